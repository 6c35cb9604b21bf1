/* SPDX-License-Identifier: MIT
 * st.h - private to the safetensors plugin.
 *
 * A safetensors file is: the header's length (8 bytes, little-endian), a JSON header, the tensors'
 * bytes. The bytes lie one after another without holes, so that nothing can hide between them. */
#ifndef BURIN_SAFETENSORS_ST_H
#define BURIN_SAFETENSORS_ST_H

#include <stdbool.h>

#include "burin_plugin.h"

#define ST_HEADER_MAX 100000000u /* the specification's limit */
#define ST_TENSORS_MAX 200000
#define ST_NAME_MAX 512 /* with the NUL, as in burin_tensor_info */
/* Metadata by which a flipped bit is found, where whoever writes a file asks for them by setting
 * this key: numbers of 16 hex digits. The first is the hash of the file up to its data, with zeros
 * in place of this number; then that of each tensor's bytes with its type as the seed, by name. */
#define ST_SUMS "burin.sums"
#define ST_SUM_DIGITS 16

extern const struct burin_host *st_host;
extern const struct burin_loader st_loader;
extern const struct burin_exporter st_exporter;

/* ---- dtypes (dtype.c) ------------------------------------------------------------------------ */

struct st_dtype {
    const char *name;
    int dtype, bytes;
};
const struct st_dtype *st_dtype_named(const char *name); /* NULL when unknown */
const struct st_dtype *st_dtype_of(int dtype);
/* Index of the first NaN or infinity, -1 when there is none. Integers are always finite. */
int64_t st_first_non_finite(const struct st_dtype *d, const void *data, uint64_t n);

/* ---- a strict JSON reader (json.c) ----------------------------------------------------------- */

/* Reads a document front to back. A failed call records the reason with its place and returns
 * false; nothing is read after that. `text` receives decoded strings: a decoded string with its NUL
 * never needs more room than its source with its quotes, so `text` of the document's size is
 * enough. */
struct json {
    const char *path; /* for messages */
    const char *at, *begin, *end;
    char *text;
};
/* NUL-terminated, but may hold NULs */
struct json_string {
    const char *s;
    size_t n;
};

void json_space(struct json *j);
bool json_peek(struct json *j, char c); /* skips space; true when c comes next */
bool json_take(struct json *j, char c); /* the same, and eats it */
bool json_expect(struct json *j, char c, const char *where);
bool json_get_string(struct json *j, struct json_string *out);
bool json_get_uint(struct json *j, uint64_t *out); /* a plain non-negative integer */
bool json_skip(struct json *j, int depth);         /* any value, nested at most `depth` deep */
bool json_word(struct json *j, const char *word); /* true and eaten when the bare word comes next */
bool json_error(struct json *j, const char *what);
/* Length of the well-formed UTF-8 character at s (s < end), 0 when it is none. */
size_t utf8_length(const char *s, const char *end);

/* ---- the parsed header (header.c) ------------------------------------------------------------ */

struct st_tensor {
    const char *name;
    const struct st_dtype *dtype;
    int rank;
    int64_t dim[BURIN_PLUGIN_RANK];
    uint64_t begin, bytes; /* begin counts from the start of the data */
};
struct st_pair {
    const char *key, *value;
};
struct st_header {
    struct st_tensor *tensor;
    int64_t n_tensors, tensor_capacity;
    struct st_pair *meta;
    int64_t n_meta, meta_capacity;
    char *text; /* holds every string */
};

/* Parses n bytes of JSON that describe data_bytes of data. On failure the header is already freed.
 */
bool st_header_parse(struct st_header *h, const char *path, const char *json, size_t n,
                     uint64_t data_bytes);
void st_header_finish(struct st_header *h);
/* Opens, checks and parses a whole file. On success the caller owns *fd; *data is where data
 * begins. */
bool st_file_open(struct st_header *h, const char *path, int *fd, uint64_t *data, uint64_t *bytes);
bool st_read_at(int fd, void *dst, uint64_t bytes,
                uint64_t offset); /* false: errno, 0 = file too short */
/* shape -> bytes, with every overflow checked; false with the reason. */
bool st_shape_bytes(const struct st_dtype *d, int rank, const int64_t *dim, uint64_t *out);

bool st_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *st_grow(void *p, int64_t n, int64_t *capacity, size_t element_bytes);
/* A name for messages: control characters become '?', cut at 80 bytes. Not reentrant in one call.
 */
const char *st_show(const char *name);

#endif
