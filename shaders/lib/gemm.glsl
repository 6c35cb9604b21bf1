// SPDX-License-Identifier: MIT
// gemm.glsl - the inner product loop of matrix products and convolutions, in one of two engines
// (GEMM_CPU or not). It computes a tile: out (U_TILE, L_TILE) = sum over k of U (U_TILE, k)
// L (k, L_TILE). A kernel tells where the operands are, in pieces of 4 neighbours in memory:
//   along k ("KC": k is contiguous)         k .. k + 3 of one row of U (one column of L)
//   along rows ("RC": rows are contiguous)  4 rows of U (columns of L) at one k
// U is a and L is b, or the other way round (SWAP): then the output's rows run along L.
//
// An engine defines
//   U_TILE, L_TILE, STEP (k's that gemm_step consumes), U_PIECES, L_PIECES (per invocation)
//   u_row(p), l_row(c)      the row of the tile at which an invocation's piece begins
//   u_whole(p), l_whole(c)  how many neighbours one load reads there (RC)
//   gemm_clear(), gemm_step(k), gemm_store(u0, us, l0, ls)
layout(constant_id = KERNEL_SPEC_OWN) const uint TU = 16;
layout(constant_id = KERNEL_SPEC_OWN + 1) const uint TL = 16;
layout(constant_id = KERNEL_SPEC_OWN + 2) const uint FLAGS = 0;
const bool U_RC = (FLAGS & GEMM_U_RC) != 0;
const bool L_KC = (FLAGS & GEMM_L_KC) != 0;
const bool SWAP = (FLAGS & GEMM_SWAP) != 0;
const bool U_SCALAR = (FLAGS & GEMM_U_SCALAR) != 0;
const bool L_SCALAR = (FLAGS & GEMM_L_SCALAR) != 0;
const bool FOURS = (FLAGS & GEMM_FOURS) != 0;

// Index of the first element (readable), and how many of the 4 exist: 0 or 4 unless scalar.
struct piece { uint index, count; };

// The kernel's part:
piece u_piece(uint p, uint k);
piece l_piece(uint c, uint k);
const uint NO_ROW = 0xffffffffu;
uint out_row(uint row);                 // index of the first element of an output row, or NO_ROW

float element(bool b, uint i) { return b ? b_at(i) : a_at(i); }
vec4 gather(bool b, piece s)
{
    vec4 v = vec4(0.0);
    [[unroll]] for (uint e = 0; e < 4; e++) {
        float x = element(b, s.index + (e < s.count ? e : 0));
        if (e < s.count) v[e] = x;
    }
    return v;
}

// The chain's code is long, so it is called in one place: once for four, or for one after the other.
void store4(uint index, uint count, vec4 v)
{
    if (count == 0) return;
    uint end = index + count;
    do {
        vec4 r = chain_apply_if(FOURS, v, index);
        if (FOURS) y_set4(index / 4, r);
        else y_set(index, r.x);
        v = v.yzwx;
        index++;
    } while (!FOURS && index < end);
}

#ifdef GEMM_CPU
#include "gemm_cpu.glsl"
#else
#include "gemm_simd.glsl"
#endif

// A piece along k of something that begins at `first` and ends after `end` k's.
piece piece_along_k(bool scalar, uint first, uint k, uint end)
{
    if (!scalar && STEP == 4) return piece(first + k, 4);
    uint left = end - min(k, end);
    return piece(first + min(k, end - 1), scalar ? min(left, 4) : left == 0 ? 0 : 4);
}
// A piece along rows: `rows` are left of `first` and `stride` separates two k's.
piece piece_along_rows(bool scalar, uint first, uint rows, uint stride, uint k, uint end)
{
    return piece(first + min(k, end - 1) * stride, k >= end ? 0 : scalar ? min(rows, 4) : 4);
}
// The first row of a piece along rows, kept inside of the `rows` there are, `whole` to a load.
uint inside(bool scalar, uint row, uint rows, uint whole)
{
    return min(row, rows - min(rows, scalar ? 1 : whole));
}
uint rows_left(uint row, uint rows) { return rows - min(row, rows); }
