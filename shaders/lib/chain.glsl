// SPDX-License-Identifier: MIT
// chain.glsl - elementwise operations applied to a value before it is stored. The program is specialization
// constants, so every fused combination of rows of ops.def is a pipeline, not a shader. Include after types.glsl
// and after declaring the push block with CHAIN_PUSH (types.glsl) as its end.
#include "erf.glsl"

layout(constant_id = KERNEL_SPEC_CHAIN) const uint CHAIN_LENGTH = 0;  // steps
layout(constant_id = KERNEL_SPEC_CHAIN + 1) const uint CHAIN_0 = 0;
layout(constant_id = KERNEL_SPEC_CHAIN + 2) const uint CHAIN_1 = 0;
layout(constant_id = KERNEL_SPEC_CHAIN + 3) const uint CHAIN_2 = 0;
layout(constant_id = KERNEL_SPEC_CHAIN + 4) const uint CHAIN_3 = 0;
layout(constant_id = KERNEL_SPEC_CHAIN + 5) const uint CHAIN_4 = 0;
layout(constant_id = KERNEL_SPEC_CHAIN + 6) const uint CHAIN_5 = 0;
layout(constant_id = KERNEL_SPEC_CHAIN + 7) const uint CHAIN_MODES = 0;

#if CHAIN_STEPS != 6 || CHAIN_INPUTS != 3 || CHAIN_IMMEDIATES != 4
#error "the steps, the inputs and CHAIN_PUSH are written out here"
#endif

// The rows of ops.def that the steps name, a bit for each. Constants, so that the compiler drops all other formulas
// at once: that halves the time that it takes for a kernel. (Bools would say it better, but glslang 12 writes wrong
// code for || of specialization constants.)
#define ROW_LOW(word) ((1u << (CHAIN_STEP_OP(word) & 31u)) * (1u - (CHAIN_STEP_OP(word) >> 5)))
#define ROW_HIGH(word) ((1u << (CHAIN_STEP_OP(word) & 31u)) * (CHAIN_STEP_OP(word) >> 5))
#define ROWS(BITS) (BITS(CHAIN_0) | BITS(CHAIN_1) | BITS(CHAIN_2) | BITS(CHAIN_3) | BITS(CHAIN_4) | BITS(CHAIN_5))
const uint ROWS_LOW = ROWS(ROW_LOW), ROWS_HIGH = ROWS(ROW_HIGH);
bool named(uint row) { return ((row < 32 ? ROWS_LOW : ROWS_HIGH) >> (row & 31u) & 1u) != 0; }

float elementwise(uint op, float a, float b, float p, float q)
{
    float v = a, r = 0.0;
    uint k = 0;  // rows are numbered in order, elementwise rows first: the compiler keeps one of these lines
#define EW1(name, attrs, value, gradient, help) if (named(k) && op == k) r = value; k++;
#define EW2(name, attrs, value, gradient, help) if (named(k) && op == k) r = value; k++;
#define OP(name, inputs, attrs, shape, emit, gradient, help)
#include "ops.def"
#undef EW1
#undef EW2
#undef OP
    return r;
}

// Written as loops that the compiler unrolls: it sees the formulas once per step and drops all but one of them, which
// takes a tenth of the time of straight-line code. Scalars take a lane of a vector; unused lanes cost nothing.
vec4 chain_run(vec4 v, vec4 x, vec4 y, vec4 z)
{
    uint program[CHAIN_STEPS] = uint[CHAIN_STEPS](CHAIN_0, CHAIN_1, CHAIN_2, CHAIN_3, CHAIN_4, CHAIN_5);
    float imm[CHAIN_IMMEDIATES] = float[CHAIN_IMMEDIATES](chain_imm0, chain_imm1, chain_imm2, chain_imm3);
    vec4 r[CHAIN_REGISTERS];
    r[0] = v;
    r[CHAIN_INPUT] = x;
    r[CHAIN_INPUT + 1] = y;
    r[CHAIN_INPUT + 2] = z;
    [[unroll]] for (uint s = 0; s < CHAIN_LENGTH; s++) {
        uint w = program[s];
        vec4 a = r[CHAIN_STEP_A(w)], b = r[CHAIN_STEP_B(w)];
        float p = imm[CHAIN_STEP_P(w)], q = imm[CHAIN_STEP_Q(w)];
        [[unroll]] for (int lane = 0; lane < 4; lane++) r[s + 1][lane] = elementwise(CHAIN_STEP_OP(w), a[lane], b[lane], p, q);
    }
    return r[CHAIN_LENGTH];
}

TENSOR(KERNEL_CHAIN_BINDING, chain_x, DT5)
TENSOR(KERNEL_CHAIN_BINDING + 1, chain_y, DT6)
TENSOR(KERNEL_CHAIN_BINDING + 2, chain_z, DT7)

uint chain_index(uint mode, uint i, uint row, uint div, uint mod_)
{
    return mode == CHAIN_SAME ? i : mode == CHAIN_CHANNEL ? i % row : mode == CHAIN_SCALAR ? 0 :
           (i / div % mod_) * row + i % row;
}

#define CHAIN_LOAD(t, n, row, div, mod_) \
    uint mode_##t = CHAIN_MODE_OF(CHAIN_MODES, n); \
    if (mode_##t != CHAIN_ABSENT) { \
        uint at = chain_index(mode_##t, i, row, div, mod_); \
        bool one = mode_##t == CHAIN_SCALAR || (mode_##t == CHAIN_GENERAL && row == 1); \
        if (wide && !one) t = chain_##t##_at4(at / 4); \
        else t = vec4(chain_##t##_at(at)); \
    }

// v: the kernel's value of output element i (row-major index of the whole output) in v.x, or of elements i .. i + 3
// when wide: then i is a multiple of 4 and the emitter has asked chain_by_fours. A kernel calls this once if it can.
vec4 chain_apply_if(bool wide, vec4 v, uint i)
{
    if (CHAIN_LENGTH == 0) return v;
    vec4 x = vec4(0.0), y = vec4(0.0), z = vec4(0.0);
    CHAIN_LOAD(x, 0, chain_row0, chain_div0, chain_mod0)
    CHAIN_LOAD(y, 1, chain_row1, chain_div1, chain_mod1)
    CHAIN_LOAD(z, 2, chain_row2, chain_div2, chain_mod2)
    return chain_run(v, x, y, z);
}
float chain_apply(float v, uint i) { return chain_apply_if(false, vec4(v), i).x; }
vec4 chain_apply4(vec4 v, uint i) { return chain_apply_if(true, v, i); }
