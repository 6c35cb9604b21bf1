/* SPDX-License-Identifier: MIT
 * peak.h - what this machine's processor does at best, as the yardstick of
 * measurements on a CPU driver. */
#ifndef BURIN_PEAK_H
#define BURIN_PEAK_H

#include "base/base.h"

struct peak {
    double flops;     /* float32 operations per second, all cores */
    double bandwidth; /* bytes read from memory per second, all cores */
    double available; /* share of the processor that other programs leave us now, 0 .. 1 */
    int cores;        /* that this process may use */
    const char *kind; /* the instructions it was measured with: "AVX2 FMA" */
};

/* Takes about half a second and 256 MiB. */
void peak_measure(struct peak *out);

#endif
