/* SPDX-License-Identifier: MIT
 * err.c - the error of a thread, panics and the log. */
#include "base/base.h"

#include "burin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ERROR_BYTES 4096

static _Thread_local char error_text[ERROR_BYTES];
static _Thread_local enum fail_kind error_kind;

enum log_level log_threshold = LOG_INFO;
static void (*log_taker)(enum log_level level, const char *text);

const char *burin_error(void) { return error_text[0] ? error_text : "no error"; }

enum fail_kind fail_kind(void) { return error_kind; }

static bool fail_list(enum fail_kind kind, const char *fmt, va_list args)
{
    /* Formatted aside first: an argument may be burin_error() itself. */
    char text[ERROR_BYTES];
    vsnprintf(text, sizeof text, fmt, args);
    memcpy(error_text, text, sizeof text);
    error_kind = kind;
    return false;
}

bool fail(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_list(FAIL_PLAIN, fmt, args);
    va_end(args);
    return false;
}

bool fail_as(enum fail_kind kind, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fail_list(kind, fmt, args);
    va_end(args);
    return false;
}

bool fail_prefix(const char *fmt, ...)
{
    char text[ERROR_BYTES];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0) return false;
    struct str whole = { 0 };
    str_addf(&whole, "%s: %s", text, error_text);
    size_t keep = whole.len < ERROR_BYTES ? whole.len : ERROR_BYTES - 1;
    memcpy(error_text, whole.data, keep);
    error_text[keep] = 0;
    str_finish(&whole);
    return false;
}

_Noreturn void panic(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("burin: internal error: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    abort();
}

void log_to(void (*take)(enum log_level level, const char *text)) { log_taker = take; }

void log_line(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = { "", "error: ", "warning: ", "", "" };
    if (level == LOG_QUIET || (level > log_threshold && !log_taker)) return;
    /* One fwrite per line, so that lines of several threads do not mix. */
    struct str line = { 0 };
    va_list args;
    va_start(args, fmt);
    char text[ERROR_BYTES];
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (log_taker) {
        log_taker(level, text);
        return;
    }
    str_add(&line, names[level]);
    str_add_shown(&line, text, strlen(text), level >= LOG_INFO);
    str_add(&line, "\n");
    fwrite(line.data, 1, line.len, stderr);
    str_finish(&line);
}
