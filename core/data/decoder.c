/* SPDX-License-Identifier: MIT
 * decoder.c - asks the process that decodes pictures, and says what became of it. */
#include "data/decoder.h"

#include "data/data.h"
#include "plug/plug.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What a picture may take: plain decoders need a hundredth of the time and half of the memory. */
#define SECONDS 2.0            /* of the processor's time */
#define SECONDS_PER_PIXEL 1e-6 /* and so much more */
#define MEMORY (512ull << 20)  /* bytes */
#define MEMORY_PER_PIXEL 64ull
#define MEMORY_PER_BYTE 4ull /* of the file */

#define ROUND 100                /* milliseconds between two looks at a worker */
#define STILL 600                /* rounds in which it does nothing at all */
#define ROUNDS_PER_SECOND 1000.0 /* in all, for each second that it may compute */

#define KEPT (64ull << 20) /* bytes for pixels that stay between pictures */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pid_t owner, helper, worker;         /* owner: who may ask; the others 0: there is none */
static int channel = -1, news = -1, served; /* served: replies of this worker */
static struct decoder_status *status;
static uint64_t serial;
static char why_not[256]; /* pictures are decoded in this process; "": since nobody wanted else */
static bool why_said;
static struct {
    int fd; /* < 0: none */
    uint8_t *at;
    size_t bytes;
} memory = { .fd = -1 };

/* ---- beginning and end ----------------------------------------------------------------------- */

static void close_end(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void drop_memory(void)
{
    if (memory.at) munmap(memory.at, memory.bytes);
    close_end(&memory.fd);
    memory.at = NULL;
    memory.bytes = 0;
}

static bool open_ends(int theirs[2])
{
    int a[2], b[2];
    if (!channel_open(a)) return false;
    channel = a[0];
    theirs[0] = a[1];
    if (!channel_open(b)) return false;
    news = b[0];
    theirs[1] = b[1];
    status = mmap(NULL, sizeof *status, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (status == MAP_FAILED) status = NULL;
    return status != NULL;
}

void image_decoder_start(void)
{
    int theirs[2] = { -1, -1 };
    if (getenv("BURIN_DECODE_HERE")) {
        image_decoder_stop("as BURIN_DECODE_HERE asks");
        return;
    }
    owner = getpid();
    pid_t child = open_ends(theirs) ? fork() : -1;
    if (!child) decoder_help(theirs[0], theirs[1], status, owner);
    int error = errno;
    for (int i = 0; i < 2; i++) close_end(&theirs[i]);
    helper = child > 0 ? child : 0;
    if (helper) plug_ask_for_codec(decoder_codec);
    else {
        char why[128];
        snprintf(why, sizeof why, "no other could be started (%s)", strerror(error));
        image_decoder_stop(why);
    }
}

/* A worker goes with its helper. */
void image_decoder_stop(const char *why)
{
    plug_ask_for_codec(NULL);
    snprintf(why_not, sizeof why_not, "%s", why ? why : "");
    close_end(&channel);
    close_end(&news);
    drop_memory();
    if (status) munmap(status, sizeof *status);
    status = NULL;
    if (helper && owner == getpid()) {
        kill(helper, SIGKILL);
        while (waitpid(helper, NULL, 0) < 0 && errno == EINTR) continue;
    }
    helper = worker = 0;
}

bool decoder_runs(void)
{
    if (helper && owner == getpid()) return true;
    if (why_not[0] && !why_said)
        log_line(LOG_WARN,
                 "pictures are decoded in this process, which a broken decoder would end: %s",
                 why_not);
    why_said = true;
    return false;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* How a worker ended that had a request of ours. */
struct end {
    struct decoder_news news;
    bool fresh;      /* it had answered nothing before */
    char reason[64]; /* we ended it: it "took more than ..."; else "" */
};

/* What it does while we wait. Rounds are counted, not seconds: both may have been stopped. */
struct look {
    double limit, began, last; /* seconds of the processor */
    int still, rounds;
};

/* LOST: the helper is gone. Nothing that a worker does may look so: pictures are decoded in our own
 * process then. */
enum outcome { ANSWERED, DIED, LOST };

static double time_of(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (!pid || clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t)) return 0;
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void end_worker(struct end *e, const char *fmt, double seconds)
{
    snprintf(e->reason, sizeof e->reason, fmt, seconds);
    kill(worker, SIGKILL);
}

/* false: nothing more is to be expected, as it does not even end, or took what we asked along. */
static bool look_at_worker(struct look *l, struct end *e)
{
    double now = time_of(worker);
    l->rounds++;
    l->still = now > l->last ? 0 : l->still + 1;
    l->last = now;
    if (!worker || e->reason[0]) {
        if (l->still < STILL) return true;
        snprintf(e->reason, sizeof e->reason, "does not answer");
        return false;
    }
    if (now - l->began > l->limit)
        end_worker(e, "took more than %.3g s of the processor's time", l->limit);
    else if (l->still >= STILL) end_worker(e, "stood still for %g s", STILL * ROUND / 1000.0);
    else if (l->rounds > l->limit * ROUNDS_PER_SECOND)
        end_worker(e, "took more than %.3g s", l->rounds * ROUND / 1000.0);
    if (e->reason[0]) l->still = 0;
    return true;
}

/* One piece of news. DIED: of the request `mine`; ANSWERED: nothing to say. */
static enum outcome hear(uint64_t mine, struct look *l, struct end *e)
{
    struct decoder_news n;
    if (channel_receive(news, &n, sizeof n, NULL, 0) != sizeof n) return LOST;
    bool fresh = served == 0;
    served = 0;
    worker = n.pid;
    *l = (struct look){ .limit = l->limit };
    if (n.serial != mine) e->reason[0] = 0; /* that was for another one */
    if (n.pid || n.serial != mine) return ANSWERED;
    e->news = n;
    e->fresh = fresh;
    return DIED;
}

/* What has happened since the last request. */
static enum outcome hear_all(struct look *l, struct end *e)
{
    struct pollfd f = { .fd = news, .events = POLLIN };
    while (poll(&f, 1, 0) > 0)
        if (hear(0, l, e) == LOST) return LOST;
    l->began = l->last = time_of(worker);
    return ANSWERED;
}

static enum outcome wait_for(uint64_t mine, struct look *l, struct decoder_reply *r, struct end *e)
{
    for (;;) {
        struct pollfd f[2] = { { .fd = channel, .events = POLLIN },
                               { .fd = news, .events = POLLIN } };
        int n = poll(f, 2, ROUND);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return LOST;
        if (f[0].revents && channel_receive(channel, r, sizeof *r, NULL, 0) == sizeof *r &&
            r->serial == mine) {
            served++;
            return ANSWERED;
        }
        if (f[1].revents) {
            enum outcome o = hear(mine, l, e);
            if (o != ANSWERED) return o;
        } else if (!look_at_worker(l, e)) {
            return DIED;
        }
    }
}

/* ---- what became of it ----------------------------------------------------------------------- */

static void add_end(struct str *s, const struct end *e, uint64_t limit)
{
    int how = e->news.status, number = WIFSIGNALED(how) ? WTERMSIG(how) : 0;
    const char *name = number ? sigabbrev_np(number) : NULL;
    if (e->reason[0]) str_add(s, e->reason);
    else if (number == SIGKILL) str_add(s, "was killed (SIGKILL), perhaps for want of memory");
    else if (number == SIGSYS) str_add(s, "did what a decoder may not do (SIGSYS)");
    else if (number) str_addf(s, "crashed (SIG%s)", name ? name : "?");
    else if (WEXITSTATUS(how) == WORKER_OVER_LIMIT)
        str_addf(s, "took more than %llu MiB of memory", (unsigned long long)(limit >> 20));
    else str_addf(s, "ended its process (exit %d)", WEXITSTATUS(how));
}

/* Fails with the sentence that the picture is left out with. */
static bool blame(const struct end *e, uint64_t limit)
{
    const struct burin_codec *codec = e->news.table;
    const struct burin_plugin *plugin = codec ? plug_of_codec(codec) : NULL;
    struct str s = { 0 };
    if (plugin) str_addf(&s, "the decoder \"%s\" of the plugin \"%s\" ", codec->name, plugin->name);
    else str_add(&s, "the process that decodes it ");
    add_end(&s, e, limit);
    fail_as(FAIL_DATA, "%s", s.data);
    str_finish(&s);
    return false;
}

static void end_without_memory(const struct end *e)
{
    if (e->reason[0] || !WIFEXITED(e->news.status) ||
        WEXITSTATUS(e->news.status) != WORKER_NO_MEMORY)
        return;
    errno = ENOMEM;
    mem_check();
}

static bool take(struct decoder_reply *r)
{
    r->log[sizeof r->log - 1] = r->error[sizeof r->error - 1] = 0;
    if (r->log_level >= LOG_ERROR && r->log_level <= LOG_DEBUG)
        log_line((enum log_level)r->log_level, "%s", r->log);
    return r->ok || fail_as(r->kind == FAIL_DATA ? FAIL_DATA : FAIL_PLAIN, "%s", r->error);
}

/* One that has worked before may have been damaged by an earlier picture: only what ends a fresh
 * one is to blame. */
static bool ask(struct decoder_request *q, const int *files, int n_files, double seconds,
                struct decoder_reply *r)
{
    struct end e;
    enum outcome o = ANSWERED;
    for (int i = 0; i < 2; i++) {
        struct look l = { .limit = seconds };
        memset(&e, 0, sizeof e);
        q->serial = ++serial;
        size_t n = offsetof(struct decoder_request, head) + q->head_bytes;
        o = hear_all(&l, &e);
        if (o == ANSWERED && !channel_send(channel, q, n, files, n_files)) {
            o = errno == EPIPE || errno == ECONNRESET ? LOST : DIED;
            snprintf(e.reason, sizeof e.reason, "cannot be asked (%s)", strerror(errno));
        }
        if (o == ANSWERED) o = wait_for(q->serial, &l, r, &e);
        if (o != DIED || e.fresh || e.reason[0]) break;
    }
    if (o == ANSWERED) return take(r);
    if (o == LOST) {
        image_decoder_stop("the one that did it is gone");
        return fail("the process that decodes pictures is gone");
    }
    end_without_memory(&e);
    return blame(&e, q->memory);
}

/* ---- questions ------------------------------------------------------------------------------- */

bool decoder_codec(const uint8_t *head, size_t n, const struct burin_codec **codec)
{
    static struct decoder_request q;
    static struct decoder_reply r;
    if (!decoder_runs()) {
        plug_ask_for_codec(NULL);
        return true;
    }
    pthread_mutex_lock(&lock);
    q = (struct decoder_request){ .task = DECODER_CODEC, .memory = MEMORY };
    q.head_bytes = (uint32_t)(n < DECODER_HEAD ? n : DECODER_HEAD);
    memcpy(q.head, head, q.head_bytes);
    bool ok = ask(&q, NULL, 0, SECONDS, &r);
    if (ok) *codec = r.codec && plug_of_codec(r.codec) ? r.codec : NULL;
    pthread_mutex_unlock(&lock);
    return ok;
}

static uint64_t memory_for(const struct picture *p, uint64_t pixels)
{
    return MEMORY + MEMORY_PER_BYTE * p->bytes + MEMORY_PER_PIXEL * pixels;
}

bool decoder_size(const struct picture *p, int *width, int *height)
{
    static struct decoder_request q;
    static struct decoder_reply r;
    pthread_mutex_lock(&lock);
    q = (struct decoder_request){ .task = DECODER_SIZE, .bytes = p->bytes };
    q.memory = memory_for(p, 0);
    bool ok = ask(&q, &p->fd, 1, SECONDS, &r);
    *width = ok ? r.width : 0;
    *height = ok ? r.height : 0;
    pthread_mutex_unlock(&lock);
    return ok;
}

/* A file that is larger than this process may make is a signal, which would end it. */
static bool is_allowed(size_t bytes)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_FSIZE, &r) || r.rlim_cur >= bytes) return true;
    errno = EFBIG;
    return false;
}

/* Of a size that nobody can change: pixels are read from it, and a hole would end us. false: errno
 * says why. */
static bool make_memory(size_t bytes)
{
    bool too_large = memory.bytes > KEPT && bytes < memory.bytes / 4;
    if (bytes <= memory.bytes && !too_large) return true;
    drop_memory();
    memory.fd = memfd_create("pictures", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory.fd < 0 || !is_allowed(bytes) || ftruncate(memory.fd, (off_t)bytes) != 0 ||
        fcntl(memory.fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return false;
    void *at = mmap(NULL, bytes, PROT_READ, MAP_SHARED, memory.fd, 0);
    if (at == MAP_FAILED) return false;
    memory.at = at;
    memory.bytes = bytes;
    return true;
}

bool decoder_pixels(const struct picture *p, int width, int height, uint8_t **rgb)
{
    static struct decoder_request q;
    static struct decoder_reply r;
    uint64_t pixels = (uint64_t)width * (uint64_t)height;
    pthread_mutex_lock(&lock);
    bool ok = make_memory((size_t)pixels * 3);
    if (!ok) {
        fail("no memory for its pixels can be shared: %s", strerror(errno));
        drop_memory();
    } else {
        q = (struct decoder_request){ .task = DECODER_PIXELS, .bytes = p->bytes };
        q.width = width;
        q.height = height;
        q.memory = memory_for(p, pixels);
        ok = ask(&q, (int[2]){ p->fd, memory.fd }, 2, SECONDS + SECONDS_PER_PIXEL * (double)pixels,
                 &r);
    }
    *rgb = ok ? memory.at : NULL;
    pthread_mutex_unlock(&lock);
    return ok;
}
