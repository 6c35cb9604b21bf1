// SPDX-License-Identifier: MIT
// gemm_simd.glsl - gemm.glsl on any GPU: 256 invocations stage 64 x 16 slices of both operands in
// shared memory and compute 4 x 4 numbers of the tile each.
layout(local_size_x = KERNEL_TILE_GROUP) in;
const uint U_TILE = GEMM_SIMD_TILE, L_TILE = GEMM_SIMD_TILE, STEP = 16;
const uint U_PIECES = 1, L_PIECES = 1;

shared vec4 slice_u[16][17], slice_l[16][17];  // [k][row / 4], padded by one against bank conflicts

uint thread = gl_LocalInvocationIndex;
uint piece_row(bool kc) { return kc ? thread / 4 : thread % 16 * 4; }
uint piece_k(bool kc) { return kc ? thread % 4 * 4 : thread / 16; }
uint u_row(uint p) { return piece_row(!U_RC); }
uint u_whole(uint p) { return 4; }
uint l_whole(uint c) { return 4; }
uint l_row(uint c) { return piece_row(L_KC); }

vec4 load(bool b, piece s)
{
    if (b ? L_SCALAR : U_SCALAR) return gather(b, s);
    vec4 v = b ? b_at4(s.index / 4) : a_at4(s.index / 4);
    return s.count == 0 ? vec4(0.0) : v;
}

vec4 acc[4];

void gemm_clear() { acc = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0)); }

void gemm_step(uint k)
{
    uint uk = piece_k(!U_RC), lk = piece_k(L_KC), ur = u_row(0), lr = l_row(0);
    vec4 u = load(false, u_piece(0, k + uk)), l = load(true, l_piece(0, k + lk));
    barrier();
    if (U_RC) slice_u[uk][ur / 4] = u;
    else for (uint e = 0; e < 4; e++) slice_u[uk + e][ur / 4][ur % 4] = u[e];
    if (!L_KC) slice_l[lk][lr / 4] = l;
    else for (uint e = 0; e < 4; e++) slice_l[lk + e][lr / 4][lr % 4] = l[e];
    barrier();
    for (uint i = 0; i < STEP; i++) {
        vec4 x = slice_u[i][thread / 16], y4 = slice_l[i][thread % 16];
        acc[0] += x.x * y4;
        acc[1] += x.y * y4;
        acc[2] += x.z * y4;
        acc[3] += x.w * y4;
    }
}

void gemm_store(uint u0, uint us, uint l0, uint ls)
{
    uint column = l0 + thread % 16 * 4;
    for (uint r = 0; r < 4; r++) {
        uint u = u0 + thread / 16 * 4 + r, row = u < us ? out_row(u) : NO_ROW;
        store4(row + column, row != NO_ROW && column < ls ? min(ls - column, 4) : 0, acc[r]);
    }
}
