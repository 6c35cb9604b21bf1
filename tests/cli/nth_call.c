/* SPDX-License-Identifier: MIT
 * nth_call.c - the n-th call that changes a folder fails, for LD_PRELOAD and one process that tries
 * every n (saves_test.lua). CALLS_IN names the folder, CALLS_JOURNAL a file to which every such
 * call is written, CALLS_ORDER a file that says what is to happen, read at every call:
 *
 *   "<round> <n> <what> <times>"   from call n of this round on, so many times: what > 0 is errno,
 *                                  -1 SIGKILL before the call, -2 a write of one byte
 *
 * chdir("//fork") is a fork: 0 in the child, -1 in its parent, which waits for it first and
 * journals how it ended; chdir("//exit") ends the child. Nothing is really synced: the order of
 * calls needs no disk. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEEN __attribute__((visibility("default")))

SEEN int open(const char *path, int flags, ...);
SEEN int close(int fd);
SEEN ssize_t write(int fd, const void *bytes, size_t n);
SEEN ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at);
SEEN int posix_fallocate(int fd, off_t at, off_t n);
SEEN int ftruncate(int fd, off_t n);
SEEN int fsync(int fd);
SEEN int rename(const char *from, const char *to);
SEEN int mkdir(const char *path, mode_t mode);
SEEN int unlink(const char *path);
SEEN int remove(const char *path);
SEEN int chdir(const char *path);

/* Of the next function of this name; by memcpy, as C has no conversion from void *. */
#define REAL(name)                              \
    static __typeof__(&name) real;              \
    if (!real) {                                \
        void *symbol = dlsym(RTLD_NEXT, #name); \
        memcpy(&real, &symbol, sizeof real);    \
    }

enum { KILL = -1, SHORT = -2 };

/* By system calls of our own: what is called here must not be seen here. */
static int order_file = -1, journal_file = -1;

static int open_once(int *fd, const char *name, int flags)
{
    const char *path = getenv(name);
    REAL(open)
    if (*fd < 0 && path) *fd = real(path, flags | O_CLOEXEC, 0666);
    return *fd;
}

static void journal(const char *call, const char *path, const char *more)
{
    char line[4400];
    REAL(write)
    int n = snprintf(line, sizeof line, "%s %s%s\n", call, path, more);
    if (open_once(&journal_file, "CALLS_JOURNAL", O_WRONLY | O_APPEND | O_CREAT) < 0 || n <= 0 ||
        real(journal_file, line, (size_t)n) < 0)
        abort();
}

static bool inside(const char *path)
{
    const char *folder = getenv("CALLS_IN");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static const char *path_of(int fd)
{
    static char path[4096];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return path;
}

/* What happens to this call: 0 nothing. */
static int fate(const char *call, const char *path)
{
    static int round_seen, calls;
    int round = 0, first = 0, what = 0, times = 0;
    char text[64] = { 0 };
    if (!inside(path)) return 0;
    if (open_once(&order_file, "CALLS_ORDER", O_RDONLY) < 0) return 0;
    if (pread(order_file, text, sizeof text - 1, 0) <= 0 ||
        sscanf(text, "%d %d %d %d", &round, &first, &what, &times) != 4)
        return 0;
    if (round != round_seen) calls = 0;
    round_seen = round;
    calls++;
    bool hit = calls >= first && calls < first + times;
    char more[32];
    snprintf(more, sizeof more, hit ? " fails %d" : "%.0d", what);
    journal(call, path, hit ? more : "");
    if (hit && what == KILL) raise(SIGKILL);
    return hit ? what : 0;
}

static bool fails(const char *call, const char *path)
{
    int what = fate(call, path);
    if (what > 0) errno = what;
    return what > 0;
}

int open(const char *path, int flags, ...)
{
    REAL(open)
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
        if (fails("open", path)) return -1;
    }
    return real(path, flags, mode);
}

static bool is_written(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

int close(int fd)
{
    REAL(close)
    int what = is_written(fd) ? fate("close", path_of(fd)) : 0;
    int rc = real(fd);
    if (what > 0) errno = what;
    return what > 0 ? -1 : rc;
}

ssize_t write(int fd, const void *bytes, size_t n)
{
    REAL(write)
    int what = fate("write", path_of(fd));
    if (what > 0) return errno = what, -1;
    return real(fd, bytes, what == SHORT && n ? 1 : n);
}

ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at)
{
    REAL(pwrite)
    int what = fate("pwrite", path_of(fd));
    if (what > 0) return errno = what, -1;
    return real(fd, bytes, what == SHORT && n ? 1 : n, at);
}

int posix_fallocate(int fd, off_t at, off_t n)
{
    REAL(posix_fallocate)
    return fails("posix_fallocate", path_of(fd)) ? errno : real(fd, at, n);
}

int ftruncate(int fd, off_t n)
{
    REAL(ftruncate)
    return fails("ftruncate", path_of(fd)) ? -1 : real(fd, n);
}

int fsync(int fd)
{
    struct stat st;
    bool folder = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
    return fails(folder ? "fsync-folder" : "fsync", path_of(fd)) ? -1 : 0;
}

int rename(const char *from, const char *to)
{
    REAL(rename)
    return fails("rename", to) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir)
    return fails("mkdir", path) ? -1 : real(path, mode);
}

int unlink(const char *path)
{
    REAL(unlink)
    return fails("unlink", path) ? -1 : real(path);
}

int remove(const char *path)
{
    REAL(remove)
    return fails("remove", path) ? -1 : real(path);
}

int chdir(const char *path)
{
    REAL(chdir)
    if (strcmp(path, "//exit") == 0) _exit(0);
    if (strcmp(path, "//fork") != 0) return real(path);
    pid_t child = fork();
    if (child == 0) return 0;
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) abort();
    journal("child", WIFSIGNALED(status) ? "killed" : "ended", "");
    return -1;
}
