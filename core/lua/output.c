/* SPDX-License-Identifier: MIT
 * output.c - stdout, stderr and the log for Lua. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lua/script.h"

/* core.terminal() -> is stderr a terminal, its width in columns */
static int core_terminal(lua_State *L)
{
    struct winsize size;
    lua_pushboolean(L, isatty(STDERR_FILENO));
    lua_pushinteger(L, !ioctl(STDERR_FILENO, TIOCGWINSZ, &size) && size.ws_col ? size.ws_col : 80);
    return 2;
}

static int core_write_stderr(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    fwrite(s, 1, n, stderr);
    fflush(stderr);
    return 0;
}

static int stdout_error; /* errno of the first failure */

/* No error here, so that a reader that goes away ends no training; the exit code says it. */
static void write_stdout(const char *bytes, size_t n)
{
    while (n && !stdout_error) {
        ssize_t k = write(STDOUT_FILENO, bytes, n);
        if (k >= 0) {
            bytes += k;
            n -= (size_t)k;
        } else if (errno == EAGAIN) {
            struct pollfd room = { .fd = STDOUT_FILENO, .events = POLLOUT };
            poll(&room, 1, -1);
        } else if (errno != EINTR) {
            stdout_error = errno;
        }
    }
}

/* core.write_stdout(text): what of it came from a file cannot do anything to a terminal. */
static int core_write_stdout(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    struct str shown = { 0 };
    str_add_shown(&shown, s, n, true);
    write_stdout(shown.data, shown.len);
    str_finish(&shown);
    return 0;
}

/* core.shown(text) -> the text on one line, without control characters */
static int core_shown(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    struct str shown = { 0 };
    str_add_shown(&shown, s, n, false);
    lua_pushlstring(L, shown.data ? shown.data : "", shown.len);
    str_finish(&shown);
    return 1;
}

bool script_finish_stdout(void)
{
    if (fflush(stdout) != 0 && !stdout_error) stdout_error = errno; /* print of trusted recipes */
    if (ferror(stdout) && !stdout_error) stdout_error = EIO;
    if (close(STDOUT_FILENO) != 0 && errno != EINTR && !stdout_error) stdout_error = errno;
    if (!stdout_error) return true;
    log_line(LOG_ERROR, "not all of the output could be written to stdout: %s",
             strerror(stdout_error));
    return false;
}

void script_open_streams(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            open("/dev/null", fd ? O_RDONLY : O_WRONLY); /* whoever uses it gets an error */
}

/* core.log(level, text): "error", "warn", "info" or "debug" */
static int core_log(lua_State *L)
{
    static const char *const names[] = { "error", "warn", "info", "debug", NULL };
    log_line((enum log_level)(luaL_checkoption(L, 1, "info", names) + LOG_ERROR), "%s",
             luaL_checkstring(L, 2));
    return 0;
}

/* core.log_threshold(level) */
static int core_log_threshold(lua_State *L)
{
    static const char *const names[] = { "quiet", "error", "warn", "info", "debug", NULL };
    log_threshold = (enum log_level)luaL_checkoption(L, 1, "info", names);
    return 0;
}

void script_open_output(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "terminal", core_terminal },
        { "write_stderr", core_write_stderr },
        { "write_stdout", core_write_stdout },
        { "shown", core_shown },
        { "log", core_log },
        { "log_threshold", core_log_threshold },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
