/* SPDX-License-Identifier: MIT
 * worker.c - the processes that decode pictures: a helper that stays, and its worker, whom a broken
 * picture may end, or one that somebody made to take it over. decoder.h says how they talk. */
#include "data/decoder.h"

#include "burin.h"
#include "plug/plug.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A sanitizer maps terabytes, reads files for its reports and writes them to stderr. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { CHANNEL = 3, NEWS, DESCRIPTORS }; /* all that is open beside the standard streams */

static struct decoder_status *shared;

/* ---- worker ---------------------------------------------------------------------------------- */

static struct decoder_reply reply;
static uint64_t memory_limit; /* 0: none */
static int usage = -1;        /* /proc/self/statm */

/* What codecs say is said by who asked, without anything that could act on a terminal. */
static void keep_log(enum log_level level, const char *text)
{
    size_t n = strlen(reply.log);
    if (reply.log_level == LOG_QUIET || (int32_t)level < reply.log_level)
        reply.log_level = (int32_t)level;
    snprintf(reply.log + n, sizeof reply.log - n, "%s%s", n ? "; " : "", text);
}

/* Whether this allocation went over the limit; else the machine has no more. */
static bool is_over_limit(size_t bytes)
{
    char text[128] = "";
    unsigned long long data = 0;
    if (!memory_limit || pread(usage, text, sizeof text - 1, 0) <= 0 ||
        sscanf(text, "%*s %*s %*s %*s %*s %llu", &data) != 1)
        return false;
    return data * (uint64_t)sysconf(_SC_PAGESIZE) + bytes + (1u << 20) > memory_limit;
}

static void on_no_memory(size_t bytes)
{
    _exit(is_over_limit(bytes) ? WORKER_OVER_LIMIT : WORKER_NO_MEMORY);
}

static void limit_memory(uint64_t bytes)
{
    struct rlimit r;
    if (SANITIZED || getrlimit(RLIMIT_DATA, &r)) return;
    r.rlim_cur = bytes < r.rlim_max ? bytes : r.rlim_max;
    if (setrlimit(RLIMIT_DATA, &r) == 0) memory_limit = r.rlim_cur;
}

static bool fill_pixels(const struct decoder_request *q, const struct file_map *m, int fd)
{
    size_t bytes = (size_t)q->width * (size_t)q->height * 3;
    uint8_t *rgb = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (rgb == MAP_FAILED) return fail("no memory for its pixels: %s", strerror(errno));
    bool ok = picture_pixels(m, q->width, q->height, rgb);
    munmap(rgb, bytes);
    return ok;
}

/* files: the picture, the memory for its pixels. */
static bool answer(const struct decoder_request *q, const int files[2])
{
    struct file_map m;
    bool ok;
    if (q->task == DECODER_CODEC) {
        reply.codec = plug_codec_for(q->head, q->head_bytes);
        return true;
    }
    if (!file_map_fd(&m, files[0], (size_t)q->bytes)) return false;
    if (q->task == DECODER_SIZE) ok = picture_size(&m, &reply.width, &reply.height);
    else ok = fill_pixels(q, &m, files[1]);
    file_map_close(&m);
    return ok;
}

/* One that found a damaged picture may be damaged itself, so another takes its place. */
static _Noreturn void work(void)
{
    static struct decoder_request q;
    int files[2];
    /* Which request it is is known before it is taken: one that is lost with us is asked again. */
    while (channel_peek(CHANNEL, &q, sizeof q) > 0) {
        shared->serial = q.serial;
        if (channel_receive(CHANNEL, &q, sizeof q, files, 2) <= 0) break;
        memset(&reply, 0, sizeof reply);
        limit_memory(q.memory);
        reply.ok = answer(&q, files);
        for (int i = 0; i < 2; i++)
            if (files[i] >= 0) close(files[i]);
        reply.serial = q.serial;
        reply.kind = (int32_t)fail_kind();
        if (!reply.ok) snprintf(reply.error, sizeof reply.error, "%s", burin_error());
        if (!channel_send(CHANNEL, &reply, sizeof reply, NULL, 0)) break;
        if (!reply.ok) _exit(WORKER_IS_STALE);
    }
    _exit(WORKER_IS_DONE);
}

static void limit(int resource, rlim_t most)
{
    setrlimit(resource, &(struct rlimit){ most, most });
}

/* Memory that every picture would get from the system anew costs a quarter of the time that it is
 * decoded in. */
static void keep_memory(void)
{
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
}

/* Gives up all that decoding does not need. */
static _Noreturn void work_confined(pid_t helper)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != helper) _exit(WORKER_IS_DONE);
    close(NEWS);
    usage = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    prctl(PR_SET_DUMPABLE, 0); /* nor a core file for each broken picture */
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NOFILE, 16);
    keep_memory();
    if (!SANITIZED) jail_enter(JAIL_NO_FILES);
    work();
}

/* ---- helper ---------------------------------------------------------------------------------- */

/* Ctrl-C goes to all processes of a terminal; ours decides, and we end when it does. */
static void ignore_signals(void)
{
    static const int ignored[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGPIPE };
    for (int i = 0; i < COUNT_OF(ignored); i++) signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
}

/* Nothing of the user's stays open here, least of all what somebody waits for the end of. */
static void close_files(int channel, int news)
{
    int a = fcntl(channel, F_DUPFD_CLOEXEC, 16), b = fcntl(news, F_DUPFD_CLOEXEC, 16);
    int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (a < 0 || b < 0 || nothing < 0) _exit(1);
    for (int fd = 0; fd < (SANITIZED ? 2 : 3); fd++) dup2(nothing, fd);
    if (dup2(a, CHANNEL) < 0 || dup2(b, NEWS) < 0) _exit(1);
    closefrom(DESCRIPTORS);
}

static pid_t fork_worker(void)
{
    pid_t helper = getpid(), pid;
    for (int i = 0; (pid = fork()) < 0 && i < 20; i++)
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
    if (!pid) work_confined(helper);
    if (pid < 0) _exit(1);
    return pid;
}

static void tell(struct decoder_news news)
{
    if (!channel_send(NEWS, &news, sizeof news, NULL, 0)) _exit(0);
}

/* A worker's life; before it, whoever asks is waited for. */
static void keep_one_worker(void)
{
    struct pollfd asked = { .fd = CHANNEL, .events = POLLIN };
    while (poll(&asked, 1, -1) < 1) continue;
    if (asked.revents & (POLLHUP | POLLERR | POLLNVAL)) _exit(0);
    shared->table = NULL;
    pid_t pid = fork_worker();
    tell((struct decoder_news){ .pid = (int32_t)pid });
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) _exit(1);
    tell((struct decoder_news){
        .status = status, .serial = shared->serial, .table = shared->table });
}

_Noreturn void decoder_help(int channel, int news, struct decoder_status *status, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    shared = status;
    ignore_signals();
    close_files(channel, news);
    prctl(PR_SET_NAME, "burin-decoder");
    plug_watched(&shared->table);
    log_to(keep_log);
    mem_before_end(on_no_memory);
    for (;;) keep_one_worker();
}
