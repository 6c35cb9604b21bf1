#version 450
// SPDX-License-Identifier: MIT
// Gradients of attention for a GPU: a workgroup owns 64 rows of one side (queries for dq, keys for
// dk and dv) and walks over the other side in tiles; formulas and symmetry as in attention_bwd_cpu.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "attention.glsl"
#include "attention_tile.glsl"

layout(constant_id = KERNEL_SPEC_OWN + 3) const bool KEYS = false;  // own keys: dk and dv instead of dq

TENSOR(0, q, DT0)
TENSOR(1, k, DT1)
TENSOR(2, v, DT2)
TENSOR(3, dy, DT3)
TENSOR(4, lse, DT4)
TENSOR(5, delta, DT5)
TENSOR(6, out0, DT6)                             // dq, or dk
TENSOR(7, out1, DT7)                             // dv
HEAD(q)
HEAD(k)
HEAD(v)
HEAD(dy)

const uint QUERY = 0, KEY = 1, VALUE = 2, DY = 3;
uint batch, column;                              // of this workgroup's head

vec4 fetch(uint which, uint row, uint d)
{
    uint rows = which == QUERY || which == DY ? N : M;
    if (row >= rows || d >= D4) return vec4(0.0);
    uint at = (batch * rows + row) * H * D + column;
    if (which == QUERY) return q_row(at, d);
    if (which == KEY) return k_row(at, d);
    if (which == VALUE) return v_row(at, d);
    return dy_row(at, d);
}

void main()
{
    uint own = KEYS ? M : N, far = KEYS ? N : M, blocks = (own + TILE - 1) / TILE;
    uint head = group_number() / blocks, own0 = group_number() % blocks * TILE;
    if (head >= heads) return;
    batch = head / H;
    column = head % H * D;

    vec4 acc0[SPAN], acc1[SPAN], own_lse = vec4(0.0), own_delta = vec4(0.0);
    for (uint c = 0; c < SPAN; c++) acc0[c] = acc1[c] = vec4(0.0);
    uvec4 o = own0 + 4 * ty() + uvec4(0, 1, 2, 3);
    if (!KEYS)
        for (uint i = 0; i < 4; i++) {
            own_lse[i] = lse_at(head * N + min(o[i], N - 1));
            own_delta[i] = delta_at(head * N + min(o[i], N - 1));
        }

    uint begin = KEYS && causal != 0 ? own0 : 0;
    uint end = !KEYS && causal != 0 ? min(own0 + TILE, far) : far;
    for (uint far0 = begin; far0 < end; far0 += TILE) {
        vec4 s[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0)), ds[4] = s;
        scores(KEYS ? KEY : QUERY, own0, KEYS ? QUERY : KEY, far0, s);
        scores(KEYS ? VALUE : DY, own0, KEYS ? DY : VALUE, far0, ds);
        for (uint j = 0; j < 4; j++) {
            uint f = far0 + 4 * tx() + j;
            bvec4 seen = bvec4(f < far);         // and the key not after the query, if causal
            for (uint i = 0; i < 4; i++)
                seen[i] = seen[i] && (causal == 0 || (KEYS ? o[i] <= f : f <= o[i]));
            vec4 l = KEYS ? vec4(lse_at(head * N + min(f, N - 1))) : own_lse;
            vec4 e = KEYS ? vec4(delta_at(head * N + min(f, N - 1))) : own_delta;
            s[j] = mix(vec4(0.0), exp(s[j] * scale - l), seen);
            ds[j] = s[j] * (ds[j] - e);
        }
        if (KEYS) {
            share(s);
            accumulate(DY, far0, acc1);
        }
        share(ds);
        accumulate(KEYS ? QUERY : KEY, far0, acc0);
    }

    for (uint i = 0; i < 4; i++) {
        if (o[i] >= own) continue;
        uint at = (batch * own + o[i]) * H * D + column + tx();
        for (uint c = 0; c < SPAN; c++) {
            if (tx() + 16 * c >= D) break;
            out0_set(at + 16 * c, acc0[c][i] * scale);
            if (KEYS) out1_set(at + 16 * c, acc1[c][i]);
        }
    }
}
