// SPDX-License-Identifier: MIT
// types.glsl - storage of any type, arithmetic in float32. The element type of binding i is specialization
// constant i, so one module serves f32, f16 and bf16 in any mix and the driver folds the branch away.
#extension GL_EXT_shader_16bit_storage : require
#extension GL_EXT_control_flow_attributes : enable

#include "shader.h"

// F32, F16, ...; I8 is a fraction, a whole number over 127.
#define DTYPE(NAME, number, name, bytes) const uint NAME = number;
#include "dtypes.def"
#undef DTYPE

layout(constant_id = 0) const uint DT0 = F32;
layout(constant_id = 1) const uint DT1 = F32;
layout(constant_id = 2) const uint DT2 = F32;
layout(constant_id = 3) const uint DT3 = F32;
layout(constant_id = 4) const uint DT4 = F32;
layout(constant_id = 5) const uint DT5 = F32;
layout(constant_id = 6) const uint DT6 = F32;
layout(constant_id = 7) const uint DT7 = F32;

uint bf16_bits(float f)  // round to nearest even; NaN stays NaN
{
    uint u = floatBitsToUint(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (u >> 16) | 0x40u;
    return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
uint f16_bits(float f) { return packHalf2x16(vec2(f, 0.0)); }
float bf16_value(uint u) { return uintBitsToFloat(u << 16); }

vec4 unpack4(uint dt, uvec2 u)
{
    if (dt == I8) return unpackSnorm4x8(u.x);
    if (dt == F16) return vec4(unpackHalf2x16(u.x), unpackHalf2x16(u.y));
    return vec4(uintBitsToFloat(u.x << 16), uintBitsToFloat(u.x & 0xffff0000u),
                uintBitsToFloat(u.y << 16), uintBitsToFloat(u.y & 0xffff0000u));
}
uvec2 pack4(uint dt, vec4 v)
{
    if (dt == F16) return uvec2(packHalf2x16(v.xy), packHalf2x16(v.zw));
    return uvec2(bf16_bits(v.x) | (bf16_bits(v.y) << 16), bf16_bits(v.z) | (bf16_bits(v.w) << 16));
}

// TENSOR(b, name, DTb) declares binding b and
//   float name_at(uint i), vec4 name_at4(uint i4)          element i; elements 4*i4 .. 4*i4+3
//   void name_set(uint i, float v), void name_set4(uint i4, vec4 v)     I8 in fours only
#define TENSOR(b, name, dt) \
    layout(set = 0, binding = b, std430) buffer name##_b32 { float name##_f32[]; }; \
    layout(set = 0, binding = b, std430) buffer name##_b32x4 { vec4 name##_f32x4[]; }; \
    layout(set = 0, binding = b, std430) buffer name##_b16 { uint16_t name##_u16[]; }; \
    layout(set = 0, binding = b, std430) buffer name##_b16x4 { uvec2 name##_u16x4[]; }; \
    layout(set = 0, binding = b, std430) buffer name##_b8x4 { uint name##_u8x4[]; }; \
    float name##_at(uint i) \
    { \
        if (dt == F32) return name##_f32[i]; \
        if (dt == I8) return unpackSnorm4x8(name##_u8x4[i / 4])[i % 4]; \
        uint u = uint(name##_u16[i]); \
        return dt == F16 ? unpackHalf2x16(u).x : bf16_value(u); \
    } \
    vec4 name##_at4(uint i) \
    { \
        if (dt == F32) return name##_f32x4[i]; \
        if (dt == I8) return unpackSnorm4x8(name##_u8x4[i]); \
        return unpack4(dt, name##_u16x4[i]); \
    } \
    void name##_set(uint i, float v) \
    { \
        if (dt == F32) name##_f32[i] = v; \
        else name##_u16[i] = uint16_t(dt == F16 ? f16_bits(v) : bf16_bits(v)); \
    } \
    void name##_set4(uint i, vec4 v) \
    { \
        if (dt == F32) name##_f32x4[i] = v; \
        else if (dt == I8) name##_u8x4[i] = packSnorm4x8(v); \
        else name##_u16x4[i] = pack4(dt, v); \
    }

// A number in [0, groups) for a grid that was split over three dimensions by kernel_groups.
uint group_number() { return gl_WorkGroupID.x + gl_NumWorkGroups.x * (gl_WorkGroupID.y + gl_NumWorkGroups.y * gl_WorkGroupID.z); }

// The chain's part of the push block: put this at the end of yours.
#define CHAIN_PUSH \
    layout(offset = KERNEL_OWN_PUSH) float chain_imm0; float chain_imm1; float chain_imm2; float chain_imm3; \
    uint chain_row0; uint chain_div0; uint chain_mod0; \
    uint chain_row1; uint chain_div1; uint chain_mod1; \
    uint chain_row2; uint chain_div2; uint chain_mod2;
