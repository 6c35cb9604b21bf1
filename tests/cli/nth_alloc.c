/* SPDX-License-Identifier: MIT
 * nth_alloc.c - the n-th allocation fails, for LD_PRELOAD. ALLOC="<n> <times>": from the n-th on,
 * so many times (0: for good); n = 0: none. Counted are those that Burin, its plugins, Lua,
 * jansson and, unless ALLOC_LIBC=0, the C library ask for; not a driver's. ALLOC_COUNT names a file
 * that the process writes their number into as it ends. */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEEN __attribute__((visibility("default")))

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

SEEN void *malloc(size_t n);
SEEN void *calloc(size_t n, size_t size);
SEEN void *realloc(void *p, size_t n);

static long first = -1, times, counted;
static bool with_libc = true;

/* Where the code lies that is counted; found again when a library may have come. */
static struct {
    uintptr_t begin, end;
    bool ours;
} part[512];
static int parts;

static bool is_ours(const char *path)
{
    static const char *const names[] = { "/plugins/", "/liblua", "/libjansson", "_plugins/" };
    if (!*path) return true; /* the program itself */
    if (strstr(path, "/libc.so") || strstr(path, "/libc-")) return with_libc;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(path, names[i])) return true;
    return false;
}

static int look_at(struct dl_phdr_info *info, size_t size, void *user)
{
    (void)size, (void)user;
    for (int i = 0; i < info->dlpi_phnum && parts < 512; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X)) continue;
        part[parts].begin = info->dlpi_addr + p->p_vaddr;
        part[parts].end = part[parts].begin + p->p_memsz;
        part[parts++].ours = is_ours(info->dlpi_name);
    }
    return 0;
}

static int find(uintptr_t at)
{
    for (int i = 0; i < parts; i++)
        if (at >= part[i].begin && at < part[i].end) return i;
    return -1;
}

static bool asked_by_us(void *caller)
{
    static _Thread_local bool looking;
    int i = find((uintptr_t)caller);
    if (i < 0 && !looking) {
        looking = true;
        parts = 0;
        dl_iterate_phdr(look_at, NULL);
        looking = false;
        i = find((uintptr_t)caller);
    }
    return i >= 0 && part[i].ours;
}

static void begin(void)
{
    const char *order = getenv("ALLOC"), *libc = getenv("ALLOC_LIBC");
    first = 0;
    with_libc = !libc || *libc != '0';
    if (order && sscanf(order, "%ld %ld", &first, &times) < 1) first = 0;
}

static bool fails(void *caller)
{
    if (first < 0) return false; /* before the constructor */
    if (!asked_by_us(caller)) return false;
    long n = __atomic_add_fetch(&counted, 1, __ATOMIC_RELAXED);
    if (!first || n < first || (times && n >= first + times)) return false;
    errno = ENOMEM;
    return true;
}

__attribute__((constructor)) static void on_load(void) { begin(); }

__attribute__((destructor)) static void on_end(void)
{
    const char *path = getenv("ALLOC_COUNT");
    char text[32];
    long n = counted;
    first = 0;
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (fd < 0) return;
    int length = snprintf(text, sizeof text, "%ld\n", n);
    if (write(fd, text, (size_t)length) != length) _exit(99);
    close(fd);
}

void *malloc(size_t n) { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(n); }

void *calloc(size_t n, size_t size)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, n);
}
