// SPDX-License-Identifier: MIT
// wide.glsl - loads of 4 or 8 neighbours as 64-bit words. A CPU driver runs a load as a loop over
// lanes whose cost hardly depends on the width of what one lane reads, so wide words halve the
// price of a number. Include after types.glsl. A raw4 holds 4 elements: two words of f32, one
// word (x) of a 16-bit type, or half a word of I8.
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require

#define raw4 u64vec2

struct raw8 { raw4 lo, hi; };

raw4 raw_pack(vec4 v)
{
    return raw4(packUint2x32(floatBitsToUint(v.xy)), packUint2x32(floatBitsToUint(v.zw)));
}
vec4 raw_value(uint dt, raw4 r)
{
    uvec2 x = unpackUint2x32(r.x);
    if (dt == F32) return vec4(uintBitsToFloat(x), uintBitsToFloat(unpackUint2x32(r.y)));
    return unpack4(dt, x);
}

// WIDE(b, name, DTb) goes with TENSOR(b, name, DTb) and declares
//   raw4 name_raw4(uint i)   elements i .. i + 3, i a multiple of 4
//   raw8 name_raw8(uint i)   elements i .. i + 7, i a multiple of 8
#define WIDE(b, name, dt) \
    layout(set = 0, binding = b, std430) buffer name##_b64 { uint64_t name##_u64[]; }; \
    layout(set = 0, binding = b, std430) buffer name##_b64x2 { u64vec2 name##_u64x2[]; }; \
    layout(set = 0, binding = b, std430) buffer name##_b64x4 { u64vec4 name##_u64x4[]; }; \
    raw4 name##_raw4(uint i) \
    { \
        if (dt == F32) return name##_u64x2[i / 4]; \
        if (dt == I8) return raw4(uint64_t(name##_u8x4[i / 4]), 0ul); \
        return raw4(name##_u64[i / 4], 0ul); \
    } \
    raw8 name##_raw8(uint i) \
    { \
        if (dt == F32) { u64vec4 v = name##_u64x4[i / 8]; return raw8(v.xy, v.zw); } \
        if (dt == I8) { uvec2 u = unpackUint2x32(name##_u64[i / 8]); return raw8(raw4(u.x, 0ul), raw4(u.y, 0ul)); } \
        u64vec2 v = name##_u64x2[i / 8]; \
        return raw8(raw4(v.x, 0ul), raw4(v.y, 0ul)); \
    }
