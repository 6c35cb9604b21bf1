// SPDX-License-Identifier: MIT
// matmul.glsl - (M, K) x (K, N) in any layout, batched, k cut into parts.
layout(push_constant) uniform Push {
    uint us, ls, depth;             // sizes of U, L and K
    uint u_stride, l_stride;        // elements from row to row (KC) or from k to k (RC)
    uint u_batch, l_batch;          // elements from product to product
    uint width;                     // elements of an output row
    uint u_tiles, l_tiles, total;
    uint splits, part;              // parts of k, k's of one; s of product z: output z * splits + s
    CHAIN_PUSH
};
TENSOR(0, a, DT0)
TENSOR(1, b, DT1)
TENSOR(2, y, DT2)
#include "chain.glsl"
#include "gemm.glsl"

uint u_at[2], u_left[2], l_at[GEMM_CPU_TL], l_left[GEMM_CPU_TL];  // of a piece at k = 0
uint end;                                         // of the k's of this part
uint first_row;

piece u_piece(uint p, uint k)
{
    if (!U_RC) return piece_along_k(U_SCALAR, u_at[p], k, end);
    return piece_along_rows(U_SCALAR, u_at[p], u_left[p], u_stride, k, end);
}
piece l_piece(uint c, uint k)
{
    if (L_KC) return piece_along_k(L_SCALAR, l_at[c], k, end);
    return piece_along_rows(L_SCALAR, l_at[c], l_left[c], l_stride, k, end);
}
uint out_row(uint row) { return first_row + row * width; }

void main()
{
    uint g = group_number();
    if (g >= total) return;
    uint u0 = g % u_tiles * U_TILE, l0 = g / u_tiles % l_tiles * L_TILE;
    uint z = g / (u_tiles * l_tiles);
    uint product = z / splits, begin = z % splits * part;
    end = min(begin + part, depth);
    first_row = z * us * ls;
    [[unroll]] for (uint p = 0; p < U_PIECES; p++) {
        uint row = u0 + u_row(p);
        u_left[p] = rows_left(row, us);
        row = U_RC ? inside(U_SCALAR, row, us, u_whole(p)) : min(row, us - 1) * u_stride;
        u_at[p] = product * u_batch + row;
    }
    [[unroll]] for (uint c = 0; c < L_PIECES; c++) {
        uint row = l0 + l_row(c);
        l_left[c] = rows_left(row, ls);
        row = L_KC ? min(row, ls - 1) * l_stride : inside(L_SCALAR, row, ls, l_whole(c));
        l_at[c] = product * l_batch + row;
    }
    gemm_clear();
    for (uint k = begin; k < end; k += STEP) gemm_step(k);
    gemm_store(u0, us, l0, ls);
}
