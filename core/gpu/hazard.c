/* SPDX-License-Identifier: MIT
 * hazard.c - which operations must wait for earlier ones, from the bytes they touch. */
#include "gpu/gpu_internal.h"

/* Beyond this many pending ranges a barrier costs less than looking for hazards. */
#define MAX_PENDING 256

static bool overlaps(const struct gpu_range *list, int n, const struct gpu_range *r)
{
    for (int i = 0; i < n; i++)
        if (list[i].buffer == r->buffer && list[i].begin < r->end && r->begin < list[i].end)
            return true;
    return false;
}

static void append(struct gpu_range **list, int *n, int *capacity, const struct gpu_range *r)
{
    *list = array_reserve(*list, *n, capacity, sizeof **list);
    (*list)[(*n)++] = *r;
}

static struct gpu_range range_of(const struct gpu_op *op, int i, bool *written)
{
    const struct gpu_span *s = &op->call.bind[i];
    *written = op->call.writes >> i & 1;
    return (struct gpu_range){ s->buffer, s->offset, s->offset + s->bytes };
}

static bool must_wait(const struct gpu_hazards *h, const struct gpu_op *op)
{
    if (h->n_writes + h->n_reads > MAX_PENDING) return true;
    for (int i = 0; i < op->call.n_bind; i++) {
        bool written;
        struct gpu_range r = range_of(op, i, &written);
        if (overlaps(h->writes, h->n_writes, &r) || (written && overlaps(h->reads, h->n_reads, &r)))
            return true;
    }
    return false;
}

bool gpu_hazards_add(struct gpu_hazards *h, const struct gpu_op *op)
{
    bool wait = must_wait(h, op);
    if (wait) gpu_hazards_clear(h);
    for (int i = 0; i < op->call.n_bind; i++) {
        bool written;
        struct gpu_range r = range_of(op, i, &written);
        if (written) append(&h->writes, &h->n_writes, &h->write_capacity, &r);
        else append(&h->reads, &h->n_reads, &h->read_capacity, &r);
    }
    return wait;
}

void gpu_hazards_clear(struct gpu_hazards *h) { h->n_writes = h->n_reads = 0; }

void gpu_hazards_finish(struct gpu_hazards *h)
{
    mem_free(h->writes);
    mem_free(h->reads);
    *h = (struct gpu_hazards){ 0 };
}
