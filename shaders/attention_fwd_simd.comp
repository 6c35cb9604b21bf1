#version 450
// SPDX-License-Identifier: MIT
// Attention for a GPU (Dao 2023, FlashAttention-2): a workgroup owns 64 queries of one head and
// walks over the keys in tiles, with an online softmax; scores live in registers and shared memory
// only.
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "attention.glsl"
#include "attention_tile.glsl"

TENSOR(0, q, DT0)
TENSOR(1, k, DT1)
TENSOR(2, v, DT2)
TENSOR(3, o, DT3)
TENSOR(4, lse, DT4)
HEAD(q)
HEAD(k)
HEAD(v)

const uint QUERY = 0, KEY = 1, VALUE = 2;
uint batch, column;                              // of this workgroup's head

vec4 fetch(uint which, uint row, uint d)
{
    uint rows = which == QUERY ? N : M;
    if (row >= rows || d >= D4) return vec4(0.0);
    uint at = (batch * rows + row) * H * D + column;
    if (which == QUERY) return q_row(at, d) * scale;
    if (which == KEY) return k_row(at, d);
    return v_row(at, d);
}

void main()
{
    uint blocks = (N + TILE - 1) / TILE, head = group_number() / blocks;
    uint n0 = group_number() % blocks * TILE;
    if (head >= heads) return;
    batch = head / H;
    column = head % H * D;

    vec4 acc[SPAN], top = vec4(NEVER), sum = vec4(0.0);
    for (uint c = 0; c < SPAN; c++) acc[c] = vec4(0.0);
    uvec4 n = n0 + 4 * ty() + uvec4(0, 1, 2, 3);

    uint end = causal != 0 ? min(n0 + TILE, M) : M;
    for (uint m0 = 0; m0 < end; m0 += TILE) {
        vec4 s[4] = vec4[4](vec4(0.0), vec4(0.0), vec4(0.0), vec4(0.0)), above = top;
        scores(QUERY, n0, KEY, m0, s);
        for (uint j = 0; j < 4; j++) {
            uint m = m0 + 4 * tx() + j;
            for (uint i = 0; i < 4; i++)
                if (m >= M || (causal != 0 && m > n[i])) s[j][i] = NEVER;
            above = max(above, s[j]);
        }
        weight[tx() * STRIDE + ty()] = above;    // 16 invocations share these rows
        barrier();
        for (uint i = 0; i < 16; i++) above = max(above, weight[i * STRIDE + ty()]);
        barrier();
        vec4 shrink = exp(top - above);
        sum *= shrink;
        for (uint c = 0; c < SPAN; c++) acc[c] *= shrink;
        for (uint j = 0; j < 4; j++) {
            s[j] = mix(exp(s[j] - above), vec4(0.0), equal(s[j], vec4(NEVER)));
            sum += s[j];
        }
        top = above;
        share(s);
        accumulate(VALUE, m0, acc);
    }

    weight[tx() * STRIDE + ty()] = sum;
    barrier();
    vec4 total = vec4(0.0);
    for (uint i = 0; i < 16; i++) total += weight[i * STRIDE + ty()];
    for (uint i = 0; i < 4; i++) {
        if (n[i] >= N) continue;
        if (tx() == 0) lse_set(head * N + n[i], top[i] + log(total[i]));
        for (uint c = 0; c < SPAN; c++)
            if (tx() + 16 * c < D)
                o_set((batch * N + n[i]) * H * D + column + tx() + 16 * c, acc[c][i] / total[i]);
    }
}
