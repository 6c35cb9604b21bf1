/* SPDX-License-Identifier: MIT
 * plan_place.c - where blocks with known lifetimes go in one arena. Greedy: in a given order, each
 * block takes the lowest gap among the placed blocks that live at the same time. Largest-first is
 * within a few percent of the peak on training graphs; earliest-first sometimes beats it, so both
 * are tried. */
#include "graph/plan.h"

#include <stdlib.h>

struct placing {
    struct plan_block block;
    int index;
};

static int compare(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }

static int largest_first(const void *pa, const void *pb)
{
    const struct placing *a = pa, *b = pb;
    int c = compare(b->block.bytes, a->block.bytes);
    return c ? c : a->index - b->index;
}

static int earliest_first(const void *pa, const void *pb)
{
    const struct placing *a = pa, *b = pb;
    int c = a->block.first - b->block.first;
    if (!c) c = compare(b->block.bytes, a->block.bytes);
    return c ? c : a->index - b->index;
}

/* Places item[0..n) in their order; placed[] is scratch, kept sorted by offset. */
static uint64_t place_all(struct placing *item, int n, struct plan_block *placed)
{
    uint64_t size = 0;
    for (int i = 0; i < n; i++) {
        struct plan_block *b = &item[i].block;
        uint64_t at = 0;
        for (int j = 0; j < i; j++) {
            const struct plan_block *p = &placed[j];
            if (p->last < b->first || b->last < p->first) continue;
            if (p->offset >= at + b->bytes) break;
            if (p->offset + p->bytes > at) at = p->offset + p->bytes;
        }
        b->offset = at;
        int j = i;
        for (; j > 0 && placed[j - 1].offset > at; j--) placed[j] = placed[j - 1];
        placed[j] = *b;
        if (at + b->bytes > size) size = at + b->bytes;
    }
    return size;
}

uint64_t plan_place(struct plan_block *block, int n, uint64_t alignment)
{
    int (*const orders[])(const void *, const void *) = { largest_first, earliest_first };
    struct placing *item = mem_alloc((size_t)n * sizeof *item);
    struct plan_block *placed = mem_alloc((size_t)n * sizeof *placed);
    uint64_t best = UINT64_MAX;
    for (int order = 0; order < COUNT_OF(orders); order++) {
        for (int i = 0; i < n; i++) {
            item[i] = (struct placing){ block[i], i };
            item[i].block.bytes = (block[i].bytes + alignment - 1) / alignment * alignment;
        }
        qsort(item, (size_t)n, sizeof *item, orders[order]);
        uint64_t size = place_all(item, n, placed);
        if (size >= best) continue;
        best = size;
        for (int i = 0; i < n; i++) block[item[i].index].offset = item[i].block.offset;
    }
    mem_free(item);
    mem_free(placed);
    return n ? best : 0;
}
