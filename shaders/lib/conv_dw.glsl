// SPDX-License-Identifier: MIT
// conv_dw.glsl - weight gradient: dw (KH, KW, C, O) = sum over image rows of x' dy, where x is
// shifted by the tap. k runs along a row of dy. The image rows may be cut into parts: part s is
// output s.
layout(push_constant) uniform Push {
    uint src_h, src_w, channels;    // x (N, H, W, C)
    uint out_h, out_w, columns;     // dy (N, OH, OW, O)
    uint rows, kh, kw, stride;      // rows: N OH
    int top, left;
    uint u_tiles, l_tiles, total;
    uint part;                      // image rows of one part
    CHAIN_PUSH
};
TENSOR(0, a, DT0)
TENSOR(1, b, DT1)
TENSOR(2, y, DT2)
#include "chain.glsl"
#include "gemm.glsl"

const bool A_SCALAR = SWAP ? L_SCALAR : U_SCALAR;
const bool B_SCALAR = SWAP ? U_SCALAR : L_SCALAR;

uint u_at[2], u_left[2], l_at[GEMM_CPU_TL], l_left[GEMM_CPU_TL];  // first channel or column of a piece
uint x_row, dy_row;                               // index of the first element of the rows at hand
int shift;                                        // of the tap along the row
uint first_row;

piece x_piece(uint at, uint left_, uint k)
{
    uint px = uint(int(k * stride) + shift);
    bool there = px < src_w && k < out_w;
    uint count = A_SCALAR ? min(left_, 4) : 4;
    return piece(x_row + (there ? px * channels : 0) + at, there ? count : 0);
}
piece dy_piece(uint at, uint left_, uint k)
{
    return piece_along_rows(B_SCALAR, dy_row + at, left_, columns, k, out_w);
}
piece u_piece(uint p, uint k)
{
    if (SWAP) return dy_piece(u_at[p], u_left[p], k);
    return x_piece(u_at[p], u_left[p], k);
}
piece l_piece(uint c, uint k)
{
    if (SWAP) return x_piece(l_at[c], l_left[c], k);
    return dy_piece(l_at[c], l_left[c], k);
}
uint out_row(uint row) { return first_row + row * columns; }

void main()
{
    uint g = group_number();
    if (g >= total) return;
    uint us = SWAP ? columns : channels, ls = SWAP ? channels : columns;
    uint u0 = g % u_tiles * U_TILE, l0 = g / u_tiles % l_tiles * L_TILE;
    uint z = g / (u_tiles * l_tiles);
    uint ky = z / kw % kh, begin = z / (kw * kh) * part;
    first_row = z * channels * columns;
    shift = int(z % kw) - left;
    [[unroll]] for (uint p = 0; p < U_PIECES; p++) {
        u_at[p] = inside(U_SCALAR, u0 + u_row(p), us, u_whole(p));
        u_left[p] = rows_left(u0 + u_row(p), us);
    }
    [[unroll]] for (uint c = 0; c < L_PIECES; c++) {
        l_at[c] = inside(L_SCALAR, l0 + l_row(c), ls, l_whole(c));
        l_left[c] = rows_left(l0 + l_row(c), ls);
    }
    gemm_clear();
    for (uint row = begin; row < min(begin + part, rows); row++) {
        uint py = uint(int(row % out_h * stride + ky) - top);
        if (py >= src_h) continue;
        x_row = (row / out_h * src_h + py) * src_w * channels;
        dy_row = row * out_w * columns;
        for (uint k = 0; k < out_w; k += STEP) gemm_step(k);
    }
    gemm_store(u0, us, l0, ls);
}
