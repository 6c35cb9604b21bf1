// SPDX-License-Identifier: MIT
// chain.glsl - elementwise operations applied to a value before it is stored. The program is specialization
// constants, so every fused combination of rows of ops.def is a pipeline, not a shader. Include after types.glsl
// and after declaring the push block with CHAIN_PUSH (types.glsl) as its end.
#include "erf.glsl"

layout(constant_id = 18) const uint CHAIN_STEPS = 0;
layout(constant_id = 19) const uint CHAIN_0 = 0;  // op | a << 8 | b << 12 | p << 16 | q << 20
layout(constant_id = 20) const uint CHAIN_1 = 0;
layout(constant_id = 21) const uint CHAIN_2 = 0;
layout(constant_id = 22) const uint CHAIN_3 = 0;
layout(constant_id = 23) const uint CHAIN_4 = 0;
layout(constant_id = 24) const uint CHAIN_5 = 0;
layout(constant_id = 25) const uint CHAIN_MODES = 0;  // 4 bits per input: 0 absent, 1 same, 2 per channel, 3 scalar, 4 general

float elementwise(uint op, float a, float b, float p, float q)
{
    float v = a, r = 0.0;
    uint k = 0;  // rows are numbered in order, elementwise rows first: the compiler keeps one of these lines
#define EW1(name, attrs, value, gradient, help) if (op == k) r = value; k++;
#define EW2(name, attrs, value, gradient, help) if (op == k) r = value; k++;
#define OP(name, inputs, attrs, shape, emit, gradient, help)
#include "ops.def"
#undef EW1
#undef EW2
#undef OP
    return r;
}

uint chain_mode(uint input_) { return (CHAIN_MODES >> (4 * input_)) & 15u; }
uint chain_index(uint mode, uint i, uint row, uint div, uint mod_)
{
    return mode == 1 ? i : mode == 2 ? i % row : mode == 3 ? 0 : (i / div % mod_) * row + i % row;
}

TENSOR(5, chain_x, DT5)
TENSOR(6, chain_y, DT6)
TENSOR(7, chain_z, DT7)

struct chain_inputs { float x, y, z; };
chain_inputs chain_load(uint i)
{
    chain_inputs c = chain_inputs(0.0, 0.0, 0.0);
    if (chain_mode(0) != 0) c.x = chain_x_at(chain_index(chain_mode(0), i, chain_row0, chain_div0, chain_mod0));
    if (chain_mode(1) != 0) c.y = chain_y_at(chain_index(chain_mode(1), i, chain_row1, chain_div1, chain_mod1));
    if (chain_mode(2) != 0) c.z = chain_z_at(chain_index(chain_mode(2), i, chain_row2, chain_div2, chain_mod2));
    return c;
}

float chain_run(float r0, chain_inputs c)
{
    if (CHAIN_STEPS == 0) return r0;
    float r1 = 0.0, r2 = 0.0, r3 = 0.0, r4 = 0.0, r5 = 0.0, r6 = 0.0;
#define CHAIN_REG(n) ((n) == 0 ? r0 : (n) == 1 ? r1 : (n) == 2 ? r2 : (n) == 3 ? r3 : (n) == 4 ? r4 : (n) == 5 ? r5 : \
                      (n) == 8 ? c.x : (n) == 9 ? c.y : c.z)
#define CHAIN_IMM(n) ((n) == 0 ? chain_imm0 : (n) == 1 ? chain_imm1 : (n) == 2 ? chain_imm2 : chain_imm3)
#define CHAIN_DO(s) elementwise(s & 255u, CHAIN_REG((s >> 8) & 15u), CHAIN_REG((s >> 12) & 15u), \
                                CHAIN_IMM((s >> 16) & 15u), CHAIN_IMM((s >> 20) & 15u))
    r1 = CHAIN_DO(CHAIN_0);
    if (CHAIN_STEPS > 1) r2 = CHAIN_DO(CHAIN_1);
    if (CHAIN_STEPS > 2) r3 = CHAIN_DO(CHAIN_2);
    if (CHAIN_STEPS > 3) r4 = CHAIN_DO(CHAIN_3);
    if (CHAIN_STEPS > 4) r5 = CHAIN_DO(CHAIN_4);
    if (CHAIN_STEPS > 5) r6 = CHAIN_DO(CHAIN_5);
    return CHAIN_STEPS == 1 ? r1 : CHAIN_STEPS == 2 ? r2 : CHAIN_STEPS == 3 ? r3 : CHAIN_STEPS == 4 ? r4 :
           CHAIN_STEPS == 5 ? r5 : r6;
}

// v: the kernel's value of output element i (row-major index of the whole output).
float chain_apply(float v, uint i)
{
    if (CHAIN_STEPS == 0) return v;
    return chain_run(v, chain_load(i));
}

// Four elements i .. i + 3; i and every row length are multiples of 4 (the emitter's promise).
vec4 chain_apply4(vec4 v, uint i)
{
    if (CHAIN_STEPS == 0) return v;
    vec4 x = vec4(0.0), y = vec4(0.0), z = vec4(0.0);
    if (chain_mode(0) == 3) x = vec4(chain_x_at(0));
    else if (chain_mode(0) != 0) x = chain_x_at4(chain_index(chain_mode(0), i, chain_row0, chain_div0, chain_mod0) / 4);
    if (chain_mode(1) == 3) y = vec4(chain_y_at(0));
    else if (chain_mode(1) != 0) y = chain_y_at4(chain_index(chain_mode(1), i, chain_row1, chain_div1, chain_mod1) / 4);
    if (chain_mode(2) == 3) z = vec4(chain_z_at(0));
    else if (chain_mode(2) != 0) z = chain_z_at4(chain_index(chain_mode(2), i, chain_row2, chain_div2, chain_mod2) / 4);
    return vec4(chain_run(v.x, chain_inputs(x.x, y.x, z.x)), chain_run(v.y, chain_inputs(x.y, y.y, z.y)),
                chain_run(v.z, chain_inputs(x.z, y.z, z.z)), chain_run(v.w, chain_inputs(x.w, y.w, z.w)));
}
