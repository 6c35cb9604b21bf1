// SPDX-License-Identifier: MIT
// gemm_cpu.glsl - gemm.glsl on a CPU driver: one subgroup of 8 lanes, no shared memory, no
// barriers. The tile of TU x (8 TL) stays in registers. U is spread to all lanes by broadcasts;
// each lane holds TL columns of L.
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_EXT_shader_subgroup_extended_types_int64 : require
#include "wide.glsl"
WIDE(0, a, DT0)
WIDE(1, b, DT1)

layout(local_size_x = GEMM_CPU_LANES) in;
const uint TU8 = TU / 8, TL4 = TL / 4;
const uint U_TILE = TU, L_TILE = GEMM_CPU_LANES * TL, STEP = 4;      // TU is 8 or 16, TL is 4, 8, 16 or 20
const uint U_PIECES = TU8, L_PIECES = L_KC ? TL : TL4;
const uint DTU = U_SCALAR ? F32 : SWAP ? DT1 : DT0;
const uint DTL = L_SCALAR ? F32 : SWAP ? DT0 : DT1;

uint lane = gl_LocalInvocationIndex;             // the workgroup is one subgroup
uint u_row(uint p) { return U_RC ? lane % 2 * (TU / 2) + 4 * p : 8 * p + lane; }
// Where this lane's quad j of columns begins. Quads come in pairs (one load of 8, 64 columns of the
// tile) as long as there are two.
bool paired(uint j) { return (j | 1u) < TL4; }
uint l_quad(uint j)
{
    if (L_KC) return lane * TL + 4 * j;
    return j / 2 * 64 + (paired(j) ? lane * 8 + j % 2 * 4 : lane * 4);
}
uint u_whole(uint p) { return 4 * TU8; }
uint l_whole(uint c) { return paired(c) ? 8 : 4; }
uint l_row(uint c) { return L_KC ? lane * TL + c : l_quad(c); }

raw4 load4(bool scalar, bool b, piece s)
{
    if (scalar) return raw_pack(gather(b, s));
    raw4 r = b ? b_raw4(s.index) : a_raw4(s.index);
    return s.count == 0 ? raw4(0ul) : r;
}
raw8 load8(bool b, piece s)
{
    raw8 r = b ? b_raw8(s.index) : a_raw8(s.index);
    if (s.count == 0) r = raw8(raw4(0ul), raw4(0ul));
    return r;
}

vec4 acc[GEMM_CPU_TU * GEMM_CPU_TL / 4];    // [TU][TL4], four neighbours along L
vec4 held[GEMM_CPU_TL];   // [4][TL4]: L at the 4 k's of a step
raw4 own[2];     // this lane's pieces of U

vec4 spread(uint p, uint from)
{
    raw4 r = own[p];
    r.x = subgroupBroadcast(r.x, from);
    if (DTU == F32) r.y = subgroupBroadcast(r.y, from);
    return raw_value(DTU, r);
}
void multiply_row(uint i, vec4 u)
{
    [[unroll]] for (uint j = 0; j < TL4; j++)
        acc[i * TL4 + j] += u.x * held[j] + u.y * held[TL4 + j] +
                            u.z * held[2 * TL4 + j] + u.w * held[3 * TL4 + j];
}

void gemm_clear()
{
    [[unroll]] for (uint i = 0; i < TU; i++)
        [[unroll]] for (uint j = 0; j < TL4; j++) acc[i * TL4 + j] = vec4(0.0);
}

void gemm_step(uint k)
{
    if (L_KC) {
        [[unroll]] for (uint c = 0; c < TL; c++) {
            vec4 v = raw_value(DTL, load4(L_SCALAR, !SWAP, l_piece(c, k)));
            [[unroll]] for (uint e = 0; e < 4; e++) held[e * TL4 + c / 4][c % 4] = v[e];
        }
    } else {
        [[unroll]] for (uint e = 0; e < 4; e++)
            [[unroll]] for (uint j = 0; j < TL4; j++) {
                if (L_SCALAR || !paired(j)) {
                    raw4 r = load4(L_SCALAR, !SWAP, l_piece(j, k + e));
                    held[e * TL4 + j] = raw_value(DTL, r);
                } else if (j % 2 == 0) {
                    raw8 r = load8(!SWAP, l_piece(j, k + e));
                    held[e * TL4 + j] = raw_value(DTL, r.lo);
                    held[e * TL4 + j + 1] = raw_value(DTL, r.hi);
                }
            }
    }
    uint uk = U_RC ? k + lane / 2 : k;
    if (U_RC && TU == 16 && !U_SCALAR) {
        raw8 r = load8(SWAP, u_piece(0, uk));
        own[0] = r.lo;
        own[1] = r.hi;
    } else {
        [[unroll]] for (uint p = 0; p < TU8; p++) own[p] = load4(U_SCALAR, SWAP, u_piece(p, uk));
    }
    if (!U_RC) {
        [[unroll]] for (uint i = 0; i < TU; i++) multiply_row(i, spread(i / 8, i % 8));
    } else {
        [[unroll]] for (uint q = 0; q < TU / 4; q++) {
            vec4 u[4];
            [[unroll]] for (uint e = 0; e < 4; e++) u[e] = spread(q % TU8, 2 * e + q / TU8);
            [[unroll]] for (uint r = 0; r < 4; r++)
                multiply_row(4 * q + r, vec4(u[0][r], u[1][r], u[2][r], u[3][r]));
        }
    }
}

// Stores the tile at (u0, l0) of an output of us x ls numbers; its rows run along U (after SWAP:
// along L). The loops have no constant end and move the accumulators along, because the chain's
// code is long and the compiler slow: it should see that code few times, and the accumulators must
// not be indexed by a variable.
void gemm_store(uint u0, uint us, uint l0, uint ls)
{
    uint end = min(us, u0 + TU);
    if (SWAP) {
        for (uint u = u0; u < end; u += 4) {
            vec4 t[GEMM_CPU_TL];
            [[unroll]] for (uint r = 0; r < 4; r++)
                [[unroll]] for (uint j = 0; j < TL4; j++) t[r * TL4 + j] = acc[r * TL4 + j];
            for (uint q = 0; q < min(TL4, ls - l0); q++) {
                [[unroll]] for (uint e = 0; e < 4; e++) {
                    uint c = l0 + l_quad(q) + e, row = c < ls ? out_row(c) : NO_ROW;
                    store4(row + u, row == NO_ROW ? 0 : min(end - u, 4),
                           vec4(t[0][e], t[TL4][e], t[2 * TL4][e], t[3 * TL4][e]));
                }
                [[unroll]] for (uint r = 0; r < 4; r++)
                    [[unroll]] for (uint j = 1; j < TL4; j++) t[r * TL4 + j - 1] = t[r * TL4 + j];
            }
            [[unroll]] for (uint i = 4; i < TU; i++)
                [[unroll]] for (uint j = 0; j < TL4; j++) acc[(i - 4) * TL4 + j] = acc[i * TL4 + j];
        }
    } else {
        for (uint u = u0; u < end; u++) {
            uint row = out_row(u);
            [[unroll]] for (uint j = 0; j < TL4; j++) {
                uint c = l0 + l_quad(j);
                store4(row + c, row != NO_ROW && c < ls ? min(ls - c, 4) : 0, acc[j]);
            }
            [[unroll]] for (uint i = 1; i < TU; i++)
                [[unroll]] for (uint j = 0; j < TL4; j++) acc[(i - 1) * TL4 + j] = acc[i * TL4 + j];
        }
    }
}
