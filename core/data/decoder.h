/* SPDX-License-Identifier: MIT
 * decoder.h - private to data/: pictures are decoded in a process of its own, so that what a codec
 * does there costs one picture.
 *
 * Three processes: ours; a helper, forked at the program's start, before there are threads, a
 * device or any file of a user's; and a worker, which the helper forks when something is asked,
 * and again when it has died. Codecs run in the worker alone. We ask the worker by one channel;
 * by another the helper, which nothing hostile can reach, tells of its worker. */
#ifndef BURIN_DATA_DECODER_H
#define BURIN_DATA_DECODER_H

#include "base/base.h"
#include "burin_plugin.h"

#include <sys/types.h>

/* A picture's file, open for reading. */
struct picture {
    int fd;
    size_t bytes;
};

/* ---- asking (decoder.c) ---------------------------------------------------------------------- */

/* Each answers as the functions below do. */
bool decoder_codec(const uint8_t *head, size_t n, const struct burin_codec **codec);
bool decoder_size(const struct picture *p, int *width, int *height);
/* rgb: 3 bytes a pixel, lent until the next call; width, height: what decoder_size said. */
bool decoder_pixels(const struct picture *p, int width, int height, uint8_t **rgb);
/* Whether there is another process to ask; the log says once why not. It may be lost at any call,
 * which then fails, so that a caller looks again afterwards. */
bool decoder_runs(void);

/* ---- doing (image.c) ------------------------------------------------------------------------- */

/* In this process: false with a sentence, which does not name the file. */
bool picture_size(const struct file_map *m, int *width, int *height);
bool picture_pixels(const struct file_map *m, int width, int height, uint8_t *rgb);

/* ---- between the processes (decoder.c, worker.c) --------------------------------------------- */

#define DECODER_HEAD 4096 /* bytes that a codec is chosen by */

enum decoder_task { DECODER_CODEC, DECODER_SIZE, DECODER_PIXELS };

/* With it go the file, unless a codec is asked for, and the memory for pixels, if they are. */
struct decoder_request {
    uint64_t serial;
    int32_t task, width, height;
    uint32_t head_bytes;
    uint64_t bytes, memory; /* of the file; that the worker may take */
    uint8_t head[DECODER_HEAD];
};

struct decoder_reply {
    uint64_t serial;
    int32_t ok, kind; /* kind: enum fail_kind */
    int32_t width, height;
    const struct burin_codec *codec; /* the same address in all three processes */
    int32_t log_level;               /* LOG_QUIET: nothing for the log */
    char log[512], error[4096];
};

/* What the helper tells: that a worker has begun (pid > 0), or ended. */
struct decoder_news {
    int32_t pid, status; /* as waitpid has it */
    uint64_t serial;     /* of the newest request that it had taken */
    const void *table;   /* of the codec that was running, or NULL */
};

/* Memory that all three share; the worker writes. */
struct decoder_status {
    volatile uint64_t serial;
    const void *volatile table;
};

/* The worker's own exit codes. */
enum { WORKER_IS_DONE = 0, WORKER_OVER_LIMIT = 70, WORKER_NO_MEMORY = 71, WORKER_IS_STALE = 72 };

/* The helper's life: worker.c. channel: where requests come from; news: where it tells. */
_Noreturn void decoder_help(int channel, int news, struct decoder_status *status, pid_t parent);

#endif
