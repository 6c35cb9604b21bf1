/* SPDX-License-Identifier: MIT
 * shader.h - what the kernels and those who call them agree on; read by C (emit_*.c) and GLSL, so
 * it is plain preprocessor language. The op table is ops.def, the element types are dtypes.def, the
 * blocks of a step's state control.h. */
#ifndef BURIN_SHADER_H
#define BURIN_SHADER_H

/* ---- every kernel ---------------------------------------------------------------------------- */

/* Bindings: the kernel's own tensors first, then the chain's inputs at KERNEL_CHAIN_BINDING + i.
 * Constants: i is the type of binding i; KERNEL_SPEC_OWN + i the kernel's own number i;
 * KERNEL_SPEC_CHAIN how many steps the chain has, then the steps, then how its inputs are read.
 * Push block: KERNEL_OWN_PUSH bytes for the kernel itself, then the chain's immediates and {row,
 * div, mod} of each of its inputs. */
#define KERNEL_BINDINGS 8
#define KERNEL_CHAIN_BINDING 5 /* with a chain a kernel has at most 5 tensors of its own */
#define KERNEL_SPEC_OWN 8
#define KERNEL_SPEC_CHAIN 18
#define KERNEL_OWN_PUSH 72

#define KERNEL_GROUP 64       /* invocations of a workgroup, unless the kernel says otherwise */
#define KERNEL_TILE_GROUP 256 /* of the kernels that work on tiles in shared memory */

/* ---- chains (lib/chain.glsl) ----------------------------------------------------------------- */

/* Up to CHAIN_STEPS elementwise operations on a kernel's result. Register 0 is that result (for a
 * chain alone: its first input), register 1 + i what step i gives, register CHAIN_INPUT + i the
 * i-th extra input. */
#define CHAIN_STEPS 6
#define CHAIN_INPUTS 3
#define CHAIN_IMMEDIATES 4
#define CHAIN_INPUT 8
#define CHAIN_REGISTERS (CHAIN_INPUT + CHAIN_INPUTS)

/* A step in one word: row of the op table, registers a and b, immediates p and q. */
#define CHAIN_STEP(op, a, b, p, q) ((op) | (a) << 8 | (b) << 12 | (p) << 16 | (q) << 20)
#define CHAIN_STEP_OP(word) ((word)&255u)
#define CHAIN_STEP_A(word) (((word) >> 8) & 15u)
#define CHAIN_STEP_B(word) (((word) >> 12) & 15u)
#define CHAIN_STEP_P(word) (((word) >> 16) & 15u)
#define CHAIN_STEP_Q(word) (((word) >> 20) & 15u)

/* How an extra input is read; all of them in one word. */
#define CHAIN_ABSENT 0
#define CHAIN_SAME 1    /* it has the output's shape */
#define CHAIN_CHANNEL 2 /* it has the output's last dims */
#define CHAIN_SCALAR 3
#define CHAIN_GENERAL 4 /* (i / div % mod) * row + i % row */
#define CHAIN_MODE(mode, input) ((mode) << (4 * (input)))
#define CHAIN_MODE_OF(word, input) (((word) >> (4 * (input))) & 15u)

/* ---- single kernels -------------------------------------------------------------------------- */

/* Matrix products and convolutions (lib/gemm.glsl): FLAGS, and the sizes of tiles. */
#define GEMM_U_RC 1
#define GEMM_L_KC 2
#define GEMM_SWAP 4
#define GEMM_U_SCALAR 8 /* its contiguous size is no multiple of 4: single loads */
#define GEMM_L_SCALAR 16
#define GEMM_FOURS 32    /* rows of the output and chain are multiples of 4 */
#define GEMM_CPU_LANES 8 /* of the subgroup that has a tile, on the cpu tier */
#define GEMM_CPU_TU 16   /* the largest TU and TL there */
#define GEMM_CPU_TL 20
#define GEMM_SIMD_TILE 64 /* rows and columns, on the simd tier */

/* Attention on the simd tier (lib/attention_tile.glsl). */
#define ATTENTION_TILE 64      /* rows of both sides */
#define ATTENTION_MAX_HEAD 256 /* columns of a head that its shared memory has room for */

/* random.comp: KIND. The numbers themselves are described in control.h. */
#define RANDOM_NORMAL 0
#define RANDOM_UNIFORM 1
#define RANDOM_INTEGER 2

/* upload.comp: MODE, and the rows and columns that a workgroup transposes. */
#define UPLOAD_MOVE 0
#define UPLOAD_MEASURE 1 /* the scales of 8 bits */
#define UPLOAD_QUANTISE 2
#define UPLOAD_TILE 32

/* permute.comp: LAST is the stride of the last dim, 0 or 1, or this. */
#define PERMUTE_ANY 2

/* selftest.comp: MODE. */
#define SELFTEST_ADD 0  /* y = a * scale + b */
#define SELFTEST_STEP 1 /* y += step */
#define SELFTEST_HALF 2 /* half(y) = a */

#endif
