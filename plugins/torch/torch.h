/* SPDX-License-Identifier: MIT
 * torch.h - private to the torch plugin.
 *
 * What torch.save writes since PyTorch 1.6 is a zip archive of stored entries below one folder:
 *   <folder>/data.pkl      a pickle: a program for a stack machine that builds the dictionary
 *   <folder>/data/<key>    the bytes of one storage; a tensor is a view of a storage
 *   <folder>/byteorder     "little" or "big"; since PyTorch 2.1
 * To Python a pickle may be any program. Here it is walked by a machine that can only build inert
 * values (pickle.c) and whose few "calls" are a table of shapes to check (build.c): nothing in a
 * file can make it do more than remember where a tensor's bytes are. */
#ifndef BURIN_TORCH_TORCH_H
#define BURIN_TORCH_TORCH_H

#include <stdbool.h>

#include "burin_plugin.h"

#define PT_NAME_MAX 512 /* with the NUL, as in burin_tensor_info */
#define PT_TENSORS_MAX 200000
#define PT_PICKLE_MAX (16u << 20) /* SD 1.5's is 0.2 MB; with optimizer states a few MB */
#define PT_STEPS_MAX (2u << 20)   /* opcodes; bounds values, stack and memo as well */
#define PT_DEPTH_MAX 64
#define PT_NO_LINK UINT32_MAX

extern const struct burin_host *pt_host;
extern const struct burin_loader pt_loader;

bool pt_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *pt_grow(void *p, uint32_t n, uint32_t *capacity, size_t element_bytes);
/* Text of a file for messages: control characters become "?", cut at 80 bytes. Four may be in use
 * at a time. */
const char *pt_show(const char *s);
const char *pt_show_n(const char *s, size_t n);

/* ---- the archive (zip.c) --------------------------------------------------------------------- */

struct pt_entry {
    const char *name;
    uint64_t header, data, bytes; /* offsets in the file */
    uint32_t crc;
    bool described; /* a descriptor follows the data */
    bool checked;   /* its checksum was right */
};
struct pt_zip {
    const char *path;
    int fd;
    uint64_t bytes;         /* of the file */
    struct pt_entry *entry; /* sorted by name */
    uint32_t n;
    char *directory; /* holds the names */
};

void pt_crc_init(void); /* once, before anything else */
/* Reads and checks the whole directory. path must outlive z. On failure z is finished already; fd
 * stays open. */
bool pt_zip_open(struct pt_zip *z, const char *path, int fd, uint64_t bytes);
void pt_zip_finish(struct pt_zip *z);
struct pt_entry *pt_zip_find(const struct pt_zip *z, const char *name); /* NULL: not there */
bool pt_zip_check(const struct pt_zip *z, struct pt_entry *e);          /* its bytes' checksum */
bool pt_zip_read(const struct pt_zip *z, void *dst, uint64_t bytes, uint64_t offset);

/* ---- values (pickle.c) ----------------------------------------------------------------------- */

enum pt_kind {
    PT_NIL = 1,
    PT_BOOL,
    PT_INT,
    PT_FLOAT,
    PT_TEXT,
    PT_TUPLE,
    PT_LIST,
    PT_DICT,
    PT_GLOBAL,
    PT_STORAGE,
    PT_TENSOR,
    PT_INERT, /* made by a harmless call whose result nobody needs */
};

/* Bytes of the pickle */
struct pt_slice {
    uint32_t at, n;
};
/* A chain of links; a dict's: key, value, key... */
struct pt_items {
    uint32_t first, last, n;
};
struct pt_link {
    uint32_t value, next;
};
struct pt_value {
    uint8_t kind, colour; /* colour: see state.c */
    int16_t row;          /* PT_GLOBAL, PT_STORAGE: of the table in build.c; -1 unknown */
    union {
        int64_t i; /* PT_INT, PT_BOOL */
        double f;
        struct pt_slice text;
        struct pt_items items; /* PT_TUPLE, PT_LIST, PT_DICT */
        struct {
            struct pt_slice module, name;
        } global;
        uint32_t entry;  /* PT_STORAGE: of the archive */
        uint32_t tensor; /* PT_TENSOR */
    };
};

struct pt_dtype {
    const char *name;
    int dtype;
    uint32_t bytes;
};
struct pt_tensor {
    const struct pt_dtype *dtype;
    uint32_t entry; /* of the archive */
    int rank;
    int64_t dim[BURIN_PLUGIN_RANK], stride[BURIN_PLUGIN_RANK]; /* strides in elements */
    uint64_t offset; /* in bytes, of the first element in the storage */
    uint64_t extent; /* in bytes, from there to behind the last element */
    uint64_t bytes;
    bool dense; /* extent == bytes, row-major */
};

struct pt_pickle {
    const struct pt_zip *zip;
    const char *folder; /* "archive/": what the entries' names begin with */
    const uint8_t *data;
    uint32_t n;
    uint32_t at, next, steps; /* the opcode being walked; the next byte; opcodes so far */
    struct pt_value *value;
    struct pt_link *link;
    struct pt_tensor *tensor;
    uint32_t *stack, *mark, *memo;
    uint32_t n_values, n_links, n_tensors, n_stack, n_marks, n_memo;
    uint32_t value_room, link_room, tensor_room, stack_room, mark_room, memo_room;
    uint32_t root; /* the result */
};

/* Walks n bytes (at most PT_PICKLE_MAX), which must outlive p. On failure p is finished already. */
bool pt_pickle_run(struct pt_pickle *p, const struct pt_zip *z, const char *folder,
                   const uint8_t *data, uint32_t n);
void pt_pickle_finish(struct pt_pickle *p);
/* A complaint about the pickle, with its place. Returns false. */
bool pt_pickle_error(const struct pt_pickle *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
struct pt_value *pt_value_new(struct pt_pickle *p, enum pt_kind kind); /* moves all values */
bool pt_text_is(const struct pt_pickle *p, const struct pt_value *v, const char *text);
const char *pt_show_slice(const struct pt_pickle *p, struct pt_slice s);

/* ---- what calls may build (build.c) ---------------------------------------------------------- */

/* The row of a global in the table of known ones; -1 unknown. */
int pt_global_find(const struct pt_pickle *p, struct pt_slice module, struct pt_slice name);
/* callable(arguments) -> a value. Unknown callables are errors with their names. */
bool pt_call(struct pt_pickle *p, uint32_t callable, uint32_t arguments, uint32_t *result);
/* A persistent id -> a storage. */
bool pt_storage(struct pt_pickle *p, uint32_t id, uint32_t *result);
bool pt_set_state(struct pt_pickle *p, uint32_t object, uint32_t state);
bool pt_refuse_class(struct pt_pickle *p, uint32_t class); /* an instance: always an error */

/* ---- the result (state.c) -------------------------------------------------------------------- */

struct pt_named {
    char *name;
    struct pt_tensor view;
};
struct pt_pair {
    char *key, *value;
};
struct pt_state {
    struct pt_named *tensor; /* sorted by name */
    struct pt_pair *meta;
    uint32_t n_tensors, tensor_room, n_meta, meta_room;
};

/* Tensors: those of the dictionary "state_dict" where there is one, else of the whole; a dictionary
 * in a dictionary gives names with points. Metadata: the scalars at the top. On failure s is
 * finished already. */
bool pt_state_collect(struct pt_state *s, struct pt_pickle *p);
void pt_state_finish(struct pt_state *s);

#endif
