/* SPDX-License-Identifier: MIT
 * deflate.h - private to data/: zlib's two directions, borrowed from stb. */
#ifndef BURIN_DATA_DEFLATE_H
#define BURIN_DATA_DEFLATE_H

#include "base/base.h"
#include "base/embed.h"

/* Unpacks an embedded .gz file (embed_data). The caller frees; *n bytes and a NUL. Aborts when the
 * file is missing or damaged: it is part of the program. */
char *deflate_unpack_embedded(const char *name, size_t *n);
/* A zlib stream of the bytes; the same bytes give the same stream. The caller frees it with
 * deflate_free. NULL when n does not fit an int. */
uint8_t *deflate_pack(uint8_t *bytes, size_t n, int *packed);
void deflate_free(uint8_t *packed);

#endif
