// SPDX-License-Identifier: MIT
// attention_tile.glsl - the two products of attention on tiles of 64 rows that a workgroup owns by
// 64 rows of the far side, through shared memory. An invocation holds 4 x 4 scores, and of results
// 4 rows by every 16th column; the four rows are the components of a vector. Include after
// attention.glsl; 26 KiB of shared memory.
layout(local_size_x = KERNEL_TILE_GROUP) in;

const uint TILE = ATTENTION_TILE, STEP = 16;                        // STEP columns of a head at a time
const uint STRIDE = TILE / 4 + 1;                        // a row of vectors, padded
const uint SPAN = (D + STEP - 1) / STEP;                 // of those in a head
const uint SLICE = SPAN <= 8 ? 16 : 8;                   // far rows that fit into `stage` at once

// Columns 4 d .. 4 d + 3 of row `row` of matrix `which`, zeros past its end. Defined by the kernel.
vec4 fetch(uint which, uint row, uint d);

shared vec4 stage[2 * STEP * STRIDE];
shared vec4 weight[TILE * STRIDE];                       // (far rows, own rows)

uint tx() { return gl_LocalInvocationID.x % 16; }        // far rows 4 tx .., columns tx + 16 c
uint ty() { return gl_LocalInvocationID.x / 16; }        // own rows 4 ty ..

// s[j] += scores of the own rows with far row 4 tx + j.
void scores(uint own, uint own0, uint far, uint far0, inout vec4 s[4])
{
    uint r = gl_LocalInvocationID.x / 4, d = gl_LocalInvocationID.x % 4;
    for (uint d0 = 0; d0 < SPAN; d0++) {
        vec4 a = fetch(own, own0 + r, d0 * 4 + d), b = fetch(far, far0 + r, d0 * 4 + d);
        for (uint j = 0; j < 4; j++) {
            stage[(4 * d + j) * STRIDE + r / 4][r % 4] = a[j];
            stage[(STEP + 4 * d + j) * STRIDE + r / 4][r % 4] = b[j];
        }
        barrier();
        [[unroll]] for (uint i = 0; i < STEP; i++) {
            vec4 x = stage[i * STRIDE + ty()], y = stage[(STEP + i) * STRIDE + tx()];
            [[unroll]] for (uint j = 0; j < 4; j++) s[j] += x * y[j];
        }
        barrier();
    }
}

// Hands the invocation's weights to the workgroup.
void share(vec4 w[4])
{
    for (uint j = 0; j < 4; j++) weight[(4 * tx() + j) * STRIDE + ty()] = w[j];
}

// acc += weights' times the far rows: what `share` was given, after it.
void accumulate(uint far, uint far0, inout vec4 acc[SPAN])
{
    for (uint f = 0; f < TILE; f += SLICE) {
        for (uint i = gl_LocalInvocationID.x; i < SLICE * SPAN * 4; i += 256)
            stage[i] = fetch(far, far0 + f + i / (SPAN * 4), i % (SPAN * 4));
        barrier();
        for (uint i = 0; i < SLICE; i++) {
            vec4 w = weight[(f + i) * STRIDE + ty()];
            [[unroll]] for (uint c = 0; c < SPAN; c++)
                acc[c] += w * stage[(i * SPAN + c) * 4 + tx() / 4][tx() % 4];
        }
        barrier();
    }
}
