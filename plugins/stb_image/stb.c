/* SPDX-License-Identifier: MIT
 * stb.c - stb_image itself, cut down to PNG, JPEG and BMP, with an allocator that has a limit: a
 * file that unpacks to more than its dimensions justify (a "zip bomb") runs into it. */
#include "picture.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local uint64_t budget_left;

/* The size before each block keeps realloc and free exact; the union keeps the alignment. */
union block {
    size_t bytes;
    max_align_t align;
};

static void *limited_alloc(size_t bytes)
{
    if (bytes > budget_left) return NULL;
    union block *b = calloc(1, sizeof *b + bytes); /* zeroed: stb leaves gaps in damaged files */
    if (!b) return NULL;
    budget_left -= bytes;
    b->bytes = bytes;
    return b + 1;
}

static void limited_free(void *p)
{
    if (!p) return;
    union block *b = (union block *)p - 1;
    budget_left += b->bytes;
    free(b);
}

static void *limited_realloc(void *p, size_t bytes)
{
    void *bigger = limited_alloc(bytes);
    if (bigger && p) {
        size_t old = ((union block *)p - 1)->bytes;
        memcpy(bigger, p, old < bytes ? old : bytes);
        limited_free(p);
    }
    return bigger;
}

#define STBI_MALLOC(n) limited_alloc(n)
#define STBI_REALLOC(p, n) limited_realloc(p, n)
#define STBI_FREE(p) limited_free(p)
#define STBI_ASSERT(x) ((void)0)
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_MAX_DIMENSIONS SIDE_MAX
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

uint8_t *stb_decode(const struct picture *p, int channels, uint64_t budget, const char **why)
{
    int width = 0, height = 0, stored = 0;
    *why = "the file is too large";
    if (p->n > INT32_MAX) return NULL;
    budget_left = budget;
    uint8_t *pixels =
        stbi_load_from_memory(p->bytes, (int)p->n, &width, &height, &stored, channels);
    if (!pixels) {
        *why = stbi_failure_reason();
        *why = *why ? *why : "unknown reason";
    } else if (width != p->width || height != p->height) {
        *why = "it holds two sizes";
        limited_free(pixels);
        return NULL;
    }
    return pixels;
}

void stb_free(void *pixels) { limited_free(pixels); }
