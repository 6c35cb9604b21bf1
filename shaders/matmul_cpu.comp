#version 450
// SPDX-License-Identifier: MIT
#extension GL_GOOGLE_include_directive : require
// matmul_cpu.comp - (M, K) x (K, N) in any layout, batched, split along k; one subgroup per tile.
#include "types.glsl"
layout(push_constant) uniform Push {
    uint us, ls, depth;         // sizes of U, L and K
    uint u_stride, l_stride;    // elements from row to row (KC) or from k to k (RC)
    uint u_batch, l_batch;      // elements from product to product
    uint width;                 // N
    uint u_tiles, l_tiles, total;
    uint splits, part;          // parts of k, k's per part: part s of product z is output z * splits + s
    CHAIN_PUSH
};
TENSOR(0, a, DT0)
TENSOR(1, b, DT1)
TENSOR(2, y, DT2)
#include "chain.glsl"
#include "wide.glsl"
WIDE(0, a, DT0)
WIDE(1, b, DT1)
#include "gemm_cpu.glsl"

uint u_first[2], l_first[16];   // index of piece p at k = 0
uint u_count, l_count[4];       // elements of a piece (SCALAR, RC)
uint end;                       // of this part of k

piece u_piece(uint p, uint k)
{
    if (!U_RC) return piece(u_first[p] + k, SCALAR ? min(end - k, 4) : 4);
    uint at = k + lane / 2;
    uint rows = SCALAR ? min(u_count - min(4 * p, u_count), 4) : 4;
    return piece(u_first[p] + min(at, end - 1) * u_stride, at < end ? rows : 0);
}
piece l_piece(uint c, uint k)
{
    if (L_KC) return piece(l_first[c] + k, SCALAR ? min(end - k, 4) : 4);
    return piece(l_first[c] + min(k, end - 1) * l_stride, SCALAR ? l_count[c] : 4);
}

void main()
{
    uint g = group_number();
    if (g >= total) return;
    uint u0 = g % u_tiles * TU, l0 = g / u_tiles % l_tiles * (8 * TL), z = g / (u_tiles * l_tiles);
    uint product = z / splits, begin = z % splits * part;
    end = min(begin + part, depth);
    uint piece_step = SCALAR ? 1 : 4;
    if (!U_RC) {
        for (uint p = 0; p < TU8; p++) u_first[p] = product * u_batch + min(u0 + 8 * p + lane, us - 1) * u_stride;
    } else {
        uint row = u0 + lane % 2 * (TU / 2);
        u_count = us - min(row, us);
        for (uint p = 0; p < TU8; p++) u_first[p] = product * u_batch + min(row + 4 * p, us - min(us, SCALAR ? 1 : 4 * TU8));
    }
    uint l = l0 + lane * TL;
    if (L_KC) {
        for (uint c = 0; c < TL; c++) l_first[c] = product * l_batch + min(l + c, ls - 1) * l_stride;
    } else {
        for (uint j = 0; j < TL4; j++) {
            l_first[j] = product * l_batch + min(l + 4 * j, ls - (SCALAR ? 1 : TL == 4 ? 4 : 8));
            l_count[j] = min(ls - min(l + 4 * j, ls), 4);
        }
    }
    gemm_clear();
    for (uint k = begin; k < end; k += 4) gemm_step(k);
    gemm_store(z * us * ls, u0, us, l0, ls, width);
}
