#version 450
// SPDX-License-Identifier: MIT
// Attention for a CPU driver: one subgroup per T queries of a head, its lanes take the keys in
// turn. Each lane keeps an online softmax of its own (Milakov and Gimelshein 2018); they are merged
// once at the end.
#extension GL_GOOGLE_include_directive : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#include "types.glsl"
#include "attention.glsl"
#include "attention_lanes.glsl"

TENSOR(0, q, DT0)
TENSOR(1, k, DT1)
TENSOR(2, v, DT2)
TENSOR(3, o, DT3)
TENSOR(4, lse, DT4)
HEAD(q)
HEAD(k)
HEAD(v)
HEAD_OUT(o)
WIDE_HEAD(1, k, DT1)
WIDE_HEAD(2, v, DT2)

void main()
{
    uint lane = gl_LocalInvocationIndex, C = H * D, blocks = (N + T - 1) / T;
    uint head = group_number() / blocks, n0 = group_number() % blocks * T;
    if (head >= heads) return;
    uint b = head / H, column = head % H * D;

    vec4 query[T * D4], acc[T * D4];
    float top[T], sum[T];
    [[unroll]] for (uint t = 0; t < T; t++) {
        [[unroll]] for (uint d = 0; d < D4; d++) {
            query[t * D4 + d] = q_row((b * N + min(n0 + t, N - 1)) * C + column, d) * scale;
            acc[t * D4 + d] = vec4(0.0);
        }
        top[t] = NEVER;
        sum[t] = 0.0;
    }

    uint end = causal != 0 ? min(n0 + T, M) : M;
    for (uint m0 = 0; m0 < end; m0 += LANES) {
        uint m = m0 + lane, row = (b * M + min(m, M - 1)) * C + column;
        vec4 key[D4], value[D4];
        k_load(row, key);
        float s[T];
        [[unroll]] for (uint t = 0; t < T; t++) s[t] = 0.0;
        [[unroll]] for (uint d = 0; d < D4; d++) {
            [[unroll]] for (uint t = 0; t < T; t++) {
                vec4 a = query[t * D4 + d];
                s[t] += a.x * key[d].x;
                s[t] += a.y * key[d].y;
                s[t] += a.z * key[d].z;
                s[t] += a.w * key[d].w;
            }
        }
        [[unroll]] for (uint t = 0; t < T; t++) {
            bool seen = m < M && (causal == 0 || m <= n0 + t);
            float above = seen ? max(top[t], s[t]) : top[t], shrink = exp(top[t] - above);
            s[t] = seen ? exp(s[t] - above) : 0.0;
            top[t] = above;
            sum[t] = sum[t] * shrink + s[t];
            [[unroll]] for (uint d = 0; d < D4; d++) acc[t * D4 + d] *= shrink;
        }
        v_load(row, value);
        [[unroll]] for (uint d = 0; d < D4; d++)
            [[unroll]] for (uint t = 0; t < T; t++) acc[t * D4 + d] += s[t] * value[d];
    }

    [[unroll]] for (uint t = 0; t < T; t++) {
        float above = subgroupMax(top[t]), share = exp(top[t] - above);
        float total = subgroupAdd(sum[t] * share);
        if (lane == 0 && n0 + t < N) lse_set(head * N + n0 + t, above + log(total));
        share /= total;
        [[unroll]] for (uint d = 0; d < D4; d++)
            part[(t * D4 + d) * LANES + lane] = acc[t * D4 + d] * share;
    }
    part_barrier();
    for (uint i = lane; i < T * D4; i += LANES) {
        uint n = n0 + i / D4;
        vec4 x = part_sum(i);
        if (n < N) o_row_set((b * N + n) * C + column, i % D4, x);
    }
}
