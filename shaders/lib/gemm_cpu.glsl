// SPDX-License-Identifier: MIT
// gemm_cpu.glsl - the register tile of matrix products on a CPU driver: 8 lanes, no shared memory, no barriers.
//
// The tile is TU x (8 * TL). The "uniform" operand U is spread to all lanes by broadcasts, the "lane" operand L is
// held by lanes, TL neighbours each: out tile += U (TU, k) * L (k, 8 TL). Both arrive in pieces of 4 neighbours:
//   along k   ("KC", k contiguous): 4 k's of one row
//   along rows ("RC", rows contiguous): 4 rows at one k
// Which operand is U is the emitter's choice (SWAP): with few columns, the columns are U and lanes hold rows.
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require
#extension GL_EXT_shader_subgroup_extended_types_int64 : require

layout(local_size_x = 8) in;
layout(constant_id = 8) const uint TU = 16;      // 8 or 16
layout(constant_id = 9) const uint TL = 16;      // 4, 8 or 16
layout(constant_id = 10) const uint FLAGS = 0;
const bool U_RC = (FLAGS & 1) != 0;
const bool L_KC = (FLAGS & 2) != 0;
const bool SWAP = (FLAGS & 4) != 0;              // U is b and L is a
const bool SCALAR = (FLAGS & 8) != 0;            // rows are no multiples of 4: one element per load
const bool FOURS = (FLAGS & 16) != 0;            // rows of the output and of the chain's inputs are multiples of 4
const uint TU8 = TU / 8, TL4 = TL / 4;
const uint DTU = SCALAR ? F32 : SWAP ? DT1 : DT0;
const uint DTL = SCALAR ? F32 : SWAP ? DT0 : DT1;

uint lane = gl_SubgroupInvocationID;

// What a kernel supplies: where a piece begins and how many of its 4 elements exist (0 or 4 unless SCALAR; at
// least one element at the index is readable). k is the step, a multiple of 4.
//   u_piece(p, k)   KC: row 8 p + lane of the tile, k ..         RC: this lane's quad p at step k + lane / 2
//   l_piece(c, k)   KC: this lane's column c, k ..               RC: this lane's quad c at step k exactly
struct piece { uint index, count; };
piece u_piece(uint p, uint k);
piece l_piece(uint c, uint k);

raw4 gather4(bool b, piece s)
{
    vec4 v;
    [[unroll]] for (uint e = 0; e < 4; e++) {
        uint i = s.index + (e < s.count ? e : 0);
        float x = b ? b_at(i) : a_at(i);
        v[e] = e < s.count ? x : 0.0;
    }
    return raw_pack(v);
}
raw4 load4(bool b, piece s)
{
    if (SCALAR) return gather4(b, s);
    raw4 r = b ? b_raw4(s.index) : a_raw4(s.index);
    return s.count == 0 ? raw4(0ul) : r;
}
raw8 load8(bool b, piece s)
{
    raw8 r = b ? b_raw8(s.index) : a_raw8(s.index);
    if (s.count == 0) r = raw8(raw4(0ul), raw4(0ul));
    return r;
}

vec4 acc[64];    // [TU][TL4], four neighbours along L
vec4 held[16];   // [4][TL4]: L at the 4 k's of a step
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
        acc[i * TL4 + j] += u.x * held[j] + u.y * held[TL4 + j] + u.z * held[2 * TL4 + j] + u.w * held[3 * TL4 + j];
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
            vec4 v = raw_value(DTL, load4(!SWAP, l_piece(c, k)));
            [[unroll]] for (uint e = 0; e < 4; e++) held[e * TL4 + c / 4][c % 4] = v[e];
        }
    } else if (TL == 4 || SCALAR) {
        [[unroll]] for (uint e = 0; e < 4; e++)
            [[unroll]] for (uint j = 0; j < TL4; j++) held[e * TL4 + j] = raw_value(DTL, load4(!SWAP, l_piece(j, k + e)));
    } else {
        [[unroll]] for (uint e = 0; e < 4; e++)
            [[unroll]] for (uint j = 0; j < TL4; j += 2) {
                raw8 r = load8(!SWAP, l_piece(j, k + e));
                held[e * TL4 + j] = raw_value(DTL, r.lo);
                held[e * TL4 + j + 1] = raw_value(DTL, r.hi);
            }
    }
    if (U_RC && TU == 16 && !SCALAR) {
        raw8 r = load8(SWAP, u_piece(0, k));
        own[0] = r.lo;
        own[1] = r.hi;
    } else {
        [[unroll]] for (uint p = 0; p < TU8; p++) own[p] = load4(SWAP, u_piece(p, k));
    }
    if (!U_RC) {
        [[unroll]] for (uint i = 0; i < TU; i++) multiply_row(i, spread(i / 8, i % 8));
    } else {
        [[unroll]] for (uint q = 0; q < TU / 4; q++) {
            vec4 u[4];
            [[unroll]] for (uint e = 0; e < 4; e++) u[e] = spread(q % TU8, 2 * e + q / TU8);
            [[unroll]] for (uint r = 0; r < 4; r++) multiply_row(4 * q + r, vec4(u[0][r], u[1][r], u[2][r], u[3][r]));
        }
    }
}

void store4(uint index, uint count, vec4 v)
{
    if (FOURS) {
        if (count != 0) y_set4(index / 4, chain_apply4(v, index));
    } else {
        for (uint e = 0; e < count; e++) {
            y_set(index + e, chain_apply(v.x, index + e));
            v = v.yzwx;
        }
    }
}

// Tile at (u0, l0) of an output of `us` x `ls` numbers (after SWAP: rows are L) whose rows are `width` apart. The
// loops have no constant end and move the accumulators along, because the chain's code is long and the compiler
// slow: it should see that code few times, and the accumulators must not be indexed by a variable.
void gemm_store(uint base, uint u0, uint us, uint l0, uint ls, uint width)
{
    uint l = l0 + lane * TL, end = min(us, u0 + TU);
    if (SWAP) {
        for (uint u = u0; u < end; u += 4) {
            vec4 t[16];
            [[unroll]] for (uint r = 0; r < 4; r++)
                [[unroll]] for (uint j = 0; j < TL4; j++) t[r * TL4 + j] = acc[r * TL4 + j];
            for (uint c = 0; c < min(TL, ls - l0); c += 4) {
                [[unroll]] for (uint e = 0; e < 4; e++)
                    store4(base + (l + c + e) * width + u, l + c + e < ls ? min(end - u, 4) : 0,
                           vec4(t[0][e], t[TL4][e], t[2 * TL4][e], t[3 * TL4][e]));
                [[unroll]] for (uint r = 0; r < 4; r++)
                    [[unroll]] for (uint j = 1; j < TL4; j++) t[r * TL4 + j - 1] = t[r * TL4 + j];
            }
            [[unroll]] for (uint i = 4; i < TU; i++)
                [[unroll]] for (uint j = 0; j < TL4; j++) acc[(i - 4) * TL4 + j] = acc[i * TL4 + j];
        }
    } else {
        for (uint u = u0; u < end; u++) {
            [[unroll]] for (uint j = 0; j < TL4; j++)
                store4(base + u * width + l + 4 * j, l + 4 * j < ls ? min(ls - l - 4 * j, 4) : 0, acc[j]);
            [[unroll]] for (uint i = 1; i < TU; i++)
                [[unroll]] for (uint j = 0; j < TL4; j++) acc[(i - 1) * TL4 + j] = acc[i * TL4 + j];
        }
    }
}
