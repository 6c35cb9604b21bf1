// SPDX-License-Identifier: MIT
// conv.glsl - convolution and its input gradient as a sum over taps of (pixels, K) x (K, columns)
// products.
//   forward: x (N, H, W, K), w (KH, KW, K, columns)
//     output pixel (y, x) reads pixel (y s + ky - top, x s + kx - left)
//   gradient: dy (N, H, W, K), w (KH, KW, columns, K)
//     input pixel (y, x) reads pixel ((y + top - ky) / s, (x + left - kx) / s) of taps that divide
// The pixels of a gradient's tile agree in y mod s and x mod s (their phase), so a tap is of use to
// the whole tile or is skipped. The grid counts pixels within a phase: y = grid y * s + phase y.
layout(push_constant) uniform Push {
    uint images, grid_h, grid_w;    // the pixels of one phase
    uint out_h, out_w, columns;     // the output
    uint src_h, src_w, depth;       // x or dy
    uint kh, kw, stride;
    int top, left;
    uint u_tiles, l_tiles, total;
    CHAIN_PUSH
};
TENSOR(0, a, DT0)
TENSOR(1, b, DT1)
TENSOR(2, y, DT2)
#include "chain.glsl"
#include "gemm.glsl"

const bool GRADIENT = SWAP ? !U_RC : L_KC;  // the weight is KC, as pixels always are
const uint PIXELS = SWAP ? L_PIECES : U_PIECES;
const bool A_SCALAR = SWAP ? L_SCALAR : U_SCALAR;
const bool B_SCALAR = SWAP ? U_SCALAR : L_SCALAR;
const uint WEIGHTS = SWAP ? U_PIECES : L_PIECES;

int pixel_y[GEMM_CPU_TL], pixel_x[GEMM_CPU_TL];           // in the source, before the tap's offset
uint image[GEMM_CPU_TL];                         // index of the image's first element
uint pixel_at[GEMM_CPU_TL];                      // of this tap; NO_ROW outside of the source
uint weight_at[GEMM_CPU_TL], weight_left[GEMM_CPU_TL];    // of this tap
uint phase_y, phase_x;

uvec3 grid(uint row) { return uvec3(row / (grid_h * grid_w), row / grid_w % grid_h, row % grid_w); }

uint out_row(uint row)
{
    uvec3 g = grid(row);
    if (GRADIENT) g.yz = g.yz * stride + uvec2(phase_y, phase_x);
    return g.y < out_h && g.z < out_w ? ((g.x * out_h + g.y) * out_w + g.z) * columns : NO_ROW;
}

piece pixel_piece(uint i, uint k)
{
    bool there = pixel_at[i] != NO_ROW;
    piece p = piece_along_k(A_SCALAR, there ? pixel_at[i] : 0, k, depth);
    if (!there) p.count = 0;
    return p;
}
piece weight_piece(uint i, uint k)
{
    if (GRADIENT) return piece_along_k(B_SCALAR, weight_at[i], k, depth);
    return piece_along_rows(B_SCALAR, weight_at[i], weight_left[i], columns, k, depth);
}
piece u_piece(uint p, uint k) { if (SWAP) return weight_piece(p, k); return pixel_piece(p, k); }
piece l_piece(uint c, uint k) { if (SWAP) return pixel_piece(c, k); return weight_piece(c, k); }

void place(uint pixel0, uint pixels, uint column0)
{
    [[unroll]] for (uint i = 0; i < PIXELS; i++) {
        uvec3 g = grid(min(pixel0 + (SWAP ? l_row(i) : u_row(i)), pixels - 1));
        image[i] = g.x * src_h * src_w * depth;
        pixel_y[i] = int(GRADIENT ? g.y : g.y * stride);
        pixel_x[i] = int(GRADIENT ? g.z : g.z * stride);
    }
    [[unroll]] for (uint i = 0; i < WEIGHTS; i++) {
        uint column = column0 + (SWAP ? u_row(i) : l_row(i));
        weight_left[i] = rows_left(column, columns);
        uint whole = SWAP ? u_whole(i) : l_whole(i);
        weight_at[i] = GRADIENT ? min(column, columns - 1) * depth
                                : inside(B_SCALAR, column, columns, whole);
    }
}

// How far tap k of `size` is from the pixel in the source, and whether this phase has a use for it.
bool tap(uint k, uint size, int before, uint phase, out int offset)
{
    offset = int(k) - before;
    if (!GRADIENT) return true;
    int s = int(stride), t = int(phase) - offset + s * int(size);  // at least 0
    offset = t / s - int(size);
    return t % s == 0;
}

void main()
{
    uint g = group_number();
    if (g >= total) return;
    uint u0 = g % u_tiles * U_TILE, l0 = g / u_tiles % l_tiles * L_TILE;
    uint phase = g / (u_tiles * l_tiles);
    uint pixels = images * grid_h * grid_w;
    phase_y = phase / stride;
    phase_x = phase % stride;
    place(SWAP ? l0 : u0, pixels, SWAP ? u0 : l0);
    gemm_clear();
    for (uint ky = 0; ky < kh; ky++) {
        int dy, dx;
        bool use_y = tap(ky, kh, top, phase_y, dy);
        for (uint kx = 0; kx < kw; kx++) {
            bool use_x = tap(kx, kw, left, phase_x, dx);
            if (use_y && use_x) {
                [[unroll]] for (uint i = 0; i < PIXELS; i++) {
                    uint py = uint(pixel_y[i] + dy), px = uint(pixel_x[i] + dx);
                    bool there = py < src_h && px < src_w;
                    pixel_at[i] = there ? image[i] + (py * src_w + px) * depth : NO_ROW;
                }
                for (uint k = 0; k < depth; k += STEP) gemm_step(k);
            }
            [[unroll]] for (uint i = 0; i < WEIGHTS; i++) weight_at[i] += depth * columns;
        }
    }
    gemm_store(u0, SWAP ? columns : pixels, l0, SWAP ? pixels : columns);
}
