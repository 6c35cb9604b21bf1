// SPDX-License-Identifier: MIT
// trig.glsl - logarithm, cosine and sine to float32 accuracy; Vulkan promises only about 2^-11 for its own.
// Taylor series after range reduction, so that all devices agree to rounding.

// (cos, sin) of quarter * pi / 2 + t with |t| <= pi / 4.
vec2 cos_sin_reduced(uint quarter, float t)
{
    float s = t * t;
    float c = 1.0 + s * (-1.0 / 2.0 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40320.0 - s / 3628800.0))));
    float n = t + t * s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s / 362880.0)));
    vec2 r = (quarter & 1u) == 0 ? vec2(c, n) : vec2(-n, c);
    return (quarter & 2u) == 0 ? r : -r;
}

// (cos, sin) of 2 pi u, 0 <= u < 1: u - k / 4 is exact.
vec2 cos_sin_turn(float u)
{
    float k = floor(4.0 * u + 0.5);
    return cos_sin_reduced(uint(k), 6.28318530717958647693 * (u - 0.25 * k));
}

// (cos, sin) of x radians for |x| below some thousands: pi / 2 in three parts (Cody and Waite), the products of the
// first two with k are exact.
vec2 cos_sin(float x)
{
    float k = floor(x * 0.63661977236758134308 + 0.5);
    precise float t = ((x - k * 1.5703125) - k * 4.837512969970703125e-4) - k * 7.54978995489188216e-8;
    return cos_sin_reduced(uint(int(k)), t);
}

// ln u for normal u > 0: u = m 2^e, sqrt(1/2) <= m < sqrt(2); ln m = 2 artanh((m - 1) / (m + 1)).
float log_(float u)
{
    uint bits = floatBitsToUint(u) - 0x3f3504f3u;  // sqrt(1/2): the exponent's carry rounds to the nearer power
    float e = float(int(bits) >> 23);
    float m = uintBitsToFloat((bits & 0x7fffffu) + 0x3f3504f3u);
    float s = (m - 1.0) / (m + 1.0), t = s * s;
    return e * 0.69314718055994530942 +
           2.0 * s * (1.0 + t * (1.0 / 3.0 + t * (1.0 / 5.0 + t * (1.0 / 7.0 + t * (1.0 / 9.0 + t / 11.0)))));
}
