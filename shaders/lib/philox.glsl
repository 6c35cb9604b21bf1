// SPDX-License-Identifier: MIT
// philox.glsl - Philox 4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011): four words for every counter, no state. base/hash.c has the same on the host.
#include "philox.h"

uvec4 philox(uvec4 counter, uvec2 key)
{
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint high0, low0, high1, low1;
        umulExtended(PHILOX_MULTIPLIER_0, counter.x, high0, low0);
        umulExtended(PHILOX_MULTIPLIER_1, counter.z, high1, low1);
        counter = uvec4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key += uvec2(PHILOX_WEYL_0, PHILOX_WEYL_1);
    }
    return counter;
}
