/* SPDX-License-Identifier: MIT
 * base.h - what every layer uses: errors, memory, strings, files, hashes,
 * random numbers. Depends on libc. */
#ifndef BURIN_BASE_H
#define BURIN_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT_OF(a) ((int)(sizeof(a) / sizeof((a)[0])))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* ---- errors (err.c) -------------------------------------------------------------------------- */

/* Records the sentence as this thread's error and returns false, so
 * `return fail(...)` reads well. */
bool fail(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* What failed, for whoever turns it into an exit code: FAIL_PLAIN after fail(), else what fail_as()
 * was told. */
enum fail_kind { FAIL_PLAIN, FAIL_NOT_FINITE, FAIL_DATA, FAIL_LOST };
bool fail_as(enum fail_kind kind, const char *fmt, ...) PRINTF_LIKE(2, 3);
enum fail_kind fail_kind(void);
/* Puts "<text>: " before the recorded error. Returns false. */
bool fail_prefix(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* A broken invariant of our own: prints and aborts. */
_Noreturn void panic(const char *fmt, ...) PRINTF_LIKE(1, 2);

enum log_level { LOG_QUIET, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
extern enum log_level log_threshold; /* LOG_INFO unless --verbose or --quiet */
/* One line on stderr */
void log_line(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* From now on the log's lines, whatever the threshold, are given to this instead. */
void log_to(void (*take)(enum log_level level, const char *text));

/* ---- memory (arena.c) ------------------------------------------------------------------------ */

/* Zeroed. When the host is out of memory the process ends here, with exit code 71 and a sentence
 * that names the file that memory is asked for. */
void *mem_alloc(size_t bytes);
/* The file that this thread asks memory for from now on; NULL: none. Kept as a copy. */
void mem_for(const char *path);
const char *mem_file(void);                              /* or NULL */
void *mem_grow(void *p, size_t old_bytes, size_t bytes); /* the new part is zeroed */
void mem_free(void *p);
/* After a function of the C library has failed, of those that take memory themselves: ends the
 * program as above when that is why. */
void mem_check(void);
/* Called before the process ends for want of memory; bytes: that were asked for, 0: not known. */
void mem_before_end(void (*call)(size_t bytes));
/* Makes room for element n of an array and returns the (possibly moved) array. */
void *array_reserve(void *array, int n, int *capacity, size_t element_bytes);

/* Zero-initialised = empty */
struct arena {
    struct arena_block *head;
    size_t used;
};
void *arena_alloc(struct arena *a, size_t bytes); /* zeroed, 16-byte aligned */
char *arena_strdup(struct arena *a, const char *s);
void arena_finish(struct arena *a);

/* ---- strings (str.c) ------------------------------------------------------------------------- */

/* Zero-initialised = ""; data NUL-terminated */
struct str {
    char *data;
    size_t len, cap;
};
void str_add(struct str *s, const char *text);
void str_add_bytes(struct str *s, const void *bytes, size_t n);
void str_addf(struct str *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Text of which parts come from files, for a terminal: control characters, those that turn the
 * direction of writing, and bytes that are no UTF-8 are escaped as \u001b and \xff; lines: but not
 * the ends of lines. Valid JSON stays so. */
void str_add_shown(struct str *s, const char *text, size_t n, bool lines);
/* Quoted and escaped; bad UTF-8 -> U+FFFD */
void str_add_json(struct str *s, const char *text, size_t n);
void str_finish(struct str *s);
char *str_dup(const char *s);
/* Nearest of the candidates by edit distance, or NULL when none is near: for "did you mean". */
const char *str_nearest(const char *word, const char *const *candidates, int n);

/* ---- files (file.c) -------------------------------------------------------------------------- */

/* Read-only view of a file */
struct file_map {
    const uint8_t *data;
    size_t bytes;
};
bool file_map_open(struct file_map *m, const char *path); /* names the path in its error */
/* Of an open file, which stays open; the error names no path. */
bool file_map_fd(struct file_map *m, int fd, size_t bytes);
void file_map_close(struct file_map *m);
/* A descriptor of a regular file, to be read, or -1 with a sentence that names it. */
int file_open(const char *path, size_t *bytes);
bool file_read(const char *path, size_t max_bytes, struct str *out);        /* a regular file */
bool file_read_stream(const char *path, size_t max_bytes, struct str *out); /* or a pipe */
/* Crash-safe writing: temp file beside `path`, then fsync, rename, fsync of the folder; once more
 * from the beginning when the disk fails to sync. */
bool file_write(const char *path, const void *bytes, size_t n);
bool file_sync(const char *path); /* what was written into this file or folder is on the disk */
/* The same in parts, which are kept in memory until commit. */
struct file_out;
struct file_out *file_out_open(const char *path);
void file_out_write(struct file_out *f, const void *bytes, size_t n);
bool file_out_commit(struct file_out *f); /* frees f either way */
void file_out_abort(struct file_out *f);  /* accepts NULL */
bool file_make_dirs(const char *path);    /* mkdir -p */
bool file_exists(const char *path);
char *file_cache_root(void);            /* $XDG_CACHE_HOME/burin; caller frees */
char *file_cache_dir(const char *leaf); /* a folder in it, made; caller frees */

/* ---- files that are not whole yet (temp.c) --------------------------------------------------- */

/* From now on a file or folder of this path is to be removed when a signal ends the process; a path
 * that ends in '-' stands for all files that begin so. Until temp_end of the same path. */
void temp_begin(const char *path);
void temp_end(const char *path);
/* Removes them; who begins another one waits for ever. For the end of the process. */
void temp_remove_all(void);

/* ---- where this process may write (confine.c) ------------------------------------------------ */

/* From now on nothing may be written but beneath the folder that file_confine_to names: paths that
 * begin with it as it is spelt, and that no link leads out of it. Never lifted. */
void file_confine(void);
void file_confine_to(const char *folder); /* NULL: nowhere */
/* Whether a file or folder may be made, changed or removed; the error says why not. */
bool file_may_write(const char *path);
/* Between them Burin's caches may be written too; no code of a recipe is run in between. */
void file_cache_enter(void);
void file_cache_leave(void);
/* Whether what exists at this path lies in a folder, all links followed. */
bool file_is_beneath(const char *path, const char *folder);
void file_confine_as_old_kernels_do(void); /* without openat2; for tests */

/* ---- other processes (channel.c, jail.c) ----------------------------------------------------- */

/* Two ends that messages go between, each whole; false: errno says why. Closed on exec. */
bool channel_open(int end[2]);
/* files: open ones that the other side gets descriptors of, at most 4. Never waits: whoever does
 * not read what it was sent is none to talk to. false: errno says why. */
bool channel_send(int end, const void *message, size_t n, const int *files, int n_files);
/* Waits for a message: its bytes, 0 when nobody has the other end any more, -1: errno says why.
 * files: n_files descriptors for the caller to close, -1 where none came. What does not fit into
 * room is lost. */
long channel_receive(int end, void *message, size_t room, int *files, int n_files);
/* The same, and the message stays to be received. */
long channel_peek(int end, void *message, size_t room);
/* From now on this process can only compute: use memory, threads, and what is open. Opening files
 * is refused, or allowed for reading; whatever else it asks of the system ends it (SIGSYS).
 * false: this system has no such filters. */
enum jail_files { JAIL_NO_FILES, JAIL_READS_FILES };
bool jail_enter(enum jail_files files);

/* ---- hashes and random numbers (hash.c, philox.h) -------------------------------------------- */

uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed); /* XXH3 */
void hash_sha256(const void *bytes, size_t n, uint8_t out[32]);
/* Philox 4x32-10 (Salmon et al., SC 2011): the numbers of shaders/lib/philox.glsl on the host. */
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* ---- small numbers (half.c) ------------------------------------------------------------------ */

uint16_t f32_to_f16(float f); /* round to nearest even, overflow to infinity */
float f16_to_f32(uint16_t h);
uint16_t f32_to_bf16(float f); /* round to nearest even; NaN stays NaN */
float bf16_to_f32(uint16_t h);
float f8_e4m3_to_f32(uint8_t code); /* exact, as every value of both kinds is an f16 */
float f8_e5m2_to_f32(uint8_t code);
double clock_seconds(void); /* monotonic */

/* ---- all cores (parallel.c) ------------------------------------------------------------------ */

/* Calls run(user, begin, end) for parts of 0 .. n - 1, each at least `least` long, on as many
 * threads; returns when all have. */
void parallel(int64_t n, int64_t least, void (*run)(void *user, int64_t begin, int64_t end),
              void *user);

#endif
