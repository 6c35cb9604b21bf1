// SPDX-License-Identifier: MIT
// erf.glsl - the error function to float32 accuracy (relative error below 4e-7 over the line).
// |x| < 1: Maclaurin series of erf(x)/x in x^2; otherwise 1 - exp(-x^2) * P(1/(1 + x/2)), the fit of
// Numerical Recipes' erfcc family (fractional error below 1.2e-7, Press et al., section 6.2).
float erf_(float x)
{
    float a = abs(x), s = x * x;
    float near = x * (1.1283791671 + s * (-0.3761263890 + s * (0.1128379167 + s * (-0.0268661706 +
                 s * (0.0052239776 + s * (-0.0008548327 + s * (0.0001205533 + s * (-0.0000149256 +
                 s * (0.0000016462 - s * 0.0000001637)))))))));
    float t = 1.0 / (1.0 + 0.5 * a);
    float p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806 +
              t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    float far = 1.0 - t * exp(-a * a + p);
    return a < 1.0 ? near : x < 0.0 ? -far : far;
}
