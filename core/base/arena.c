/* SPDX-License-Identifier: MIT
 * arena.c - host memory. Nobody can handle running out of it, so that ends the program here. */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES (64u << 10)
#define ALIGNMENT 16

struct arena_block {
    struct arena_block *next;
    size_t bytes; /* after the header */
    _Alignas(ALIGNMENT) uint8_t data[];
};

static _Thread_local char file_name[1024];

/* As it may be shown on a terminal: there is no memory to make it so later. */
void mem_for(const char *path)
{
    struct str shown = { 0 };
    if (path) str_add_shown(&shown, path, strlen(path), false);
    snprintf(file_name, sizeof file_name, "%s", shown.len ? shown.data : "");
    str_finish(&shown);
}

const char *mem_file(void) { return file_name[0] ? file_name : NULL; }

static void (*before_end)(size_t bytes);

void mem_before_end(void (*call)(size_t bytes)) { before_end = call; }

/* What is half written goes too, as at the end by a signal. Nothing here takes memory. */
static _Noreturn void out_of_memory(size_t bytes)
{
    if (before_end) before_end(bytes);
    char text[sizeof file_name + 128];
    int n = snprintf(text, sizeof text, "error: out of memory on the host");
    if (bytes) n += snprintf(text + n, sizeof text - (size_t)n, ": %zu bytes asked", bytes);
    if (mem_file()) n += snprintf(text + n, sizeof text - (size_t)n, " for %s", file_name);
    text[n++] = '\n';
    ssize_t written = write(STDERR_FILENO, text, (size_t)n);
    (void)written;
    temp_remove_all();
    _exit(71);
}

void mem_check(void)
{
    if (errno == ENOMEM) out_of_memory(0);
}

void *mem_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) out_of_memory(bytes);
    return p;
}

void *mem_grow(void *p, size_t old_bytes, size_t bytes)
{
    if (!p) return mem_alloc(bytes);
    uint8_t *grown = realloc(p, bytes ? bytes : 1);
    if (!grown) out_of_memory(bytes);
    if (bytes > old_bytes) memset(grown + old_bytes, 0, bytes - old_bytes);
    return grown;
}

void mem_free(void *p) { free(p); }

void *array_reserve(void *array, int n, int *capacity, size_t element_bytes)
{
    if (n < *capacity) return array;
    int wanted = *capacity < 8 ? 8 : *capacity * 2;
    if (wanted <= n) wanted = n + 1;
    array = mem_grow(array, (size_t)*capacity * element_bytes, (size_t)wanted * element_bytes);
    *capacity = wanted;
    return array;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) panic("arena_alloc of %zu bytes", bytes);
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (!a->head || a->head->bytes - a->used < bytes) {
        size_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        struct arena_block *b = mem_alloc(sizeof *b + room);
        b->next = a->head;
        b->bytes = room;
        a->head = b;
        a->used = 0;
    }
    void *p = a->head->data + a->used;
    a->used += bytes;
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(arena_alloc(a, n), s, n);
}

void arena_finish(struct arena *a)
{
    for (struct arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    *a = (struct arena){ 0 };
}
