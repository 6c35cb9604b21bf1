#version 450
// SPDX-License-Identifier: MIT
// Gradients of attention for a CPU driver, in the shape of attention_fwd_cpu: a subgroup owns T
// rows of one side (queries for dq, keys for dk and dv), its lanes stream the other side, and their
// sums are merged once at the end. Scores are symmetric in the two sides, so one body serves both
// (Dao 2023, FlashAttention-2, algorithm 2):
//   p = exp(scale q k' - lse)   ds = p (dy v' - delta)
//   dq = scale ds k   dk = scale ds' q   dv = p' dy
#extension GL_GOOGLE_include_directive : require
#include "types.glsl"
#include "attention.glsl"
#include "attention_lanes.glsl"

layout(constant_id = KERNEL_SPEC_OWN + 3) const bool KEYS = false;  // it owns keys: dk and dv instead of dq

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
HEAD_OUT(out0)
HEAD_OUT(out1)

WIDE_HEAD(0, q, DT0)
WIDE_HEAD(1, k, DT1)
WIDE_HEAD(2, v, DT2)
WIDE_HEAD(3, dy, DT3)

// Sums `part` over the lanes into rows row0 .. of the output.
void merge(bool second, uint row0, uint rows, uint b, uint column)
{
    part_barrier();
    for (uint i = gl_LocalInvocationIndex; i < T * D4; i += LANES) {
        vec4 x = part_sum(i);
        uint r = row0 + i / D4, at = (b * rows + r) * H * D + column;
        if (r < rows && second) out1_row_set(at, i % D4, x);
        if (r < rows && !second) out0_row_set(at, i % D4, x * scale);
    }
    part_barrier();
}

void main()
{
    uint lane = gl_LocalInvocationIndex, C = H * D;
    uint rows = KEYS ? M : N, far = KEYS ? N : M, blocks = (rows + T - 1) / T;
    uint head = group_number() / blocks, row0 = group_number() % blocks * T;
    if (head >= heads) return;
    uint b = head / H, column = head % H * D;

    vec4 a[T * D4], c[T * D4], acc0[T * D4], acc1[T * D4];
    float own_lse[T], own_delta[T];
    [[unroll]] for (uint t = 0; t < T; t++) {
        uint r = min(row0 + t, rows - 1);
        [[unroll]] for (uint d = 0; d < D4; d++) {
            uint at = (b * rows + r) * C + column;
            a[t * D4 + d] = (KEYS ? k_row(at, d) : q_row(at, d)) * scale;
            c[t * D4 + d] = KEYS ? v_row(at, d) : dy_row(at, d);
            acc0[t * D4 + d] = vec4(0.0);
            if (KEYS) acc1[t * D4 + d] = vec4(0.0);
        }
        own_lse[t] = KEYS ? 0.0 : lse_at(head * N + r);
        own_delta[t] = KEYS ? 0.0 : delta_at(head * N + r);
    }

    uint begin = KEYS && causal != 0 ? row0 : 0;
    uint end = !KEYS && causal != 0 ? min(row0 + T, far) : far;
    for (uint f0 = begin; f0 < end; f0 += LANES) {
        uint f = f0 + lane, r = min(f, far - 1), at = (b * far + r) * C + column;
        vec4 x[D4], y[D4];
        if (KEYS) {
            q_load(at, x);
            dy_load(at, y);
        } else {
            k_load(at, x);
            v_load(at, y);
        }
        float s[T], ds[T];
        [[unroll]] for (uint t = 0; t < T; t++) s[t] = ds[t] = 0.0;
        [[unroll]] for (uint d = 0; d < D4; d++) {
            [[unroll]] for (uint t = 0; t < T; t++) {
                vec4 m = a[t * D4 + d], n = c[t * D4 + d];
                s[t] += m.x * x[d].x, ds[t] += n.x * y[d].x;
                s[t] += m.y * x[d].y, ds[t] += n.y * y[d].y;
                s[t] += m.z * x[d].z, ds[t] += n.z * y[d].z;
                s[t] += m.w * x[d].w, ds[t] += n.w * y[d].w;
            }
        }
        float far_lse = KEYS ? lse_at(head * N + r) : 0.0;
        float far_delta = KEYS ? delta_at(head * N + r) : 0.0;
        [[unroll]] for (uint t = 0; t < T; t++) {
            bool seen = f < far && (causal == 0 || (KEYS ? row0 + t <= f : f <= row0 + t));
            s[t] = seen ? exp(s[t] - (KEYS ? far_lse : own_lse[t])) : 0.0;
            ds[t] = s[t] * (ds[t] - (KEYS ? far_delta : own_delta[t]));
        }
        [[unroll]] for (uint d = 0; d < D4; d++)
            [[unroll]] for (uint t = 0; t < T; t++) {
                acc0[t * D4 + d] += ds[t] * x[d];
                if (KEYS) acc1[t * D4 + d] += s[t] * y[d];
            }
    }

    [[unroll]] for (uint i = 0; i < T * D4; i++) part[i * LANES + lane] = acc0[i];
    merge(false, row0, rows, b, column);
    if (!KEYS) return;
    [[unroll]] for (uint i = 0; i < T * D4; i++) part[i * LANES + lane] = acc1[i];
    merge(true, row0, rows, b, column);
}
