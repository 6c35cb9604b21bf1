/* SPDX-License-Identifier: MIT
 * disk.c - plain files, folders and hashes for Lua. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lua/script.h"

/* ---- files and folders ----------------------------------------------------------------------- */

/* core.read_file(path, max?, stream?) -> bytes; more than max (16 MiB) are an error. stream: it may
 * be a pipe or a terminal, which is waited for. */
static int core_read_file(lua_State *L)
{
    struct str s = { 0 };
    const char *path = luaL_checkstring(L, 1);
    size_t max = (size_t)luaL_optinteger(L, 2, 16 << 20);
    mem_for(path);
    bool ok = (lua_toboolean(L, 3) ? file_read_stream : file_read)(path, max, &s);
    if (ok) lua_pushlstring(L, s.data ? s.data : "", s.len);
    mem_for(NULL);
    str_finish(&s);
    return ok ? 1 : script_raise(L);
}

/* core.read_part(path, first, count) -> the bytes from `first` (0) on, fewer at the file's end */
static int core_read_part(lua_State *L)
{
    struct file_map m;
    lua_Integer first = luaL_checkinteger(L, 2), count = luaL_checkinteger(L, 3);
    luaL_argcheck(L, first >= 0 && count >= 0 && count <= 1 << 20, 3,
                  "a start from 0 and at most 1 MiB are expected");
    if (!file_map_open(&m, luaL_checkstring(L, 1))) return script_raise(L);
    size_t from = (uint64_t)first < m.bytes ? (size_t)first : m.bytes, left = m.bytes - from;
    lua_pushlstring(L, (const char *)m.data + from, (size_t)count < left ? (size_t)count : left);
    file_map_close(&m);
    return 1;
}

static int core_write_file(lua_State *L)
{
    size_t n;
    const char *data = luaL_checklstring(L, 2, &n);
    return file_write(luaL_checkstring(L, 1), data, n) ? 0 : script_raise(L);
}

/* Writes at `at`, behind which nothing stays: half a line is there when an earlier write failed. */
static bool write_behind(int fd, off_t at, const char *data, size_t n)
{
    struct stat st;
    if (fstat(fd, &st)) return false;
    if (st.st_size < at) return errno = ESPIPE, false;
    if (st.st_size > at && ftruncate(fd, at)) return false;
    for (ssize_t k; n; data += k, at += k, n -= (size_t)k) {
        while ((k = pwrite(fd, data, n, at)) < 0 && errno == EINTR) continue;
        if (k < 0) return false;
    }
    return true;
}

/* core.append_file(path, text, bytes): for logs that have so many bytes; what is behind them is
 * written over, a shorter file is an error. Not synced. */
static int core_append_file(lua_State *L)
{
    size_t n;
    const char *path = luaL_checkstring(L, 1), *data = luaL_checklstring(L, 2, &n);
    lua_Integer at = luaL_checkinteger(L, 3);
    if (!file_may_write(path)) return script_raise(L);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    bool ok = fd >= 0 && write_behind(fd, (off_t)at, data, n);
    int error = errno;
    if (fd >= 0 && close(fd) && ok && errno != EINTR) {
        ok = false;
        error = errno;
    }
    if (ok) return 0;
    fail("cannot append to %s: %s", path,
         error == ESPIPE ? "it is shorter than it was" : strerror(error));
    return script_raise(L);
}

/* What is still readable is written as a new file: a second fsync would succeed without it. */
static bool write_again(const char *path)
{
    struct str s = { 0 };
    bool ok = file_read(path, SIZE_MAX, &s) && file_write(path, s.data, s.len);
    str_finish(&s);
    return ok;
}

/* core.sync_file(path): what was appended is on the disk when this returns. */
static int core_sync_file(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (file_sync(path) || (errno == EIO && write_again(path))) return 0;
    return script_raise(L);
}

/* core.exists(path) -> "file", "folder" or "device", bytes, when it was changed (seconds since
 * 1970); nothing when there is nothing */
static int core_exists(lua_State *L)
{
    struct stat st;
    if (stat(luaL_checkstring(L, 1), &st)) return 0;
    lua_pushstring(L, S_ISDIR(st.st_mode) ? "folder" : S_ISREG(st.st_mode) ? "file" : "device");
    lua_pushinteger(L, st.st_size);
    lua_pushinteger(L, st.st_mtime);
    return 3;
}

/* core.free_space(path of something that is there) -> bytes that may still be written; nil when the
 * system does not say */
static int core_free_space(lua_State *L)
{
    struct statvfs fs;
    if (statvfs(luaL_checkstring(L, 1), &fs)) return 0;
    lua_pushinteger(L, (lua_Integer)(fs.f_bavail * fs.f_frsize));
    return 1;
}

/* core.touch(path): it was changed now. That it cannot be said is no error. */
static int core_touch(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (file_may_write(path)) (void)utimensat(AT_FDCWD, path, NULL, 0);
    return 0;
}

/* core.cache_root() -> the folder of Burin's caches, that of the pipelines in any case; nil when
 * there is no place for one */
static int core_cache_root(lua_State *L)
{
    char *root = file_cache_root();
    lua_pushstring(L, root);
    mem_free(root);
    return 1;
}

/* core.real_path(path) -> the same place without links, "." and ".."; nil when there is nothing */
static int core_real_path(lua_State *L)
{
    char *real = realpath(luaL_checkstring(L, 1), NULL);
    if (!real) mem_check();
    lua_pushstring(L, real);
    free(real);
    return 1;
}

static int core_make_dirs(lua_State *L)
{
    return file_make_dirs(luaL_checkstring(L, 1)) ? 0 : script_raise(L);
}

static int core_remove_file(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (!file_may_write(path)) return script_raise(L);
    if (unlink(path) && errno != ENOENT) {
        fail("%s: cannot remove: %s", path, strerror(errno));
        return script_raise(L);
    }
    temp_end(path);
    return 0;
}

/* core.list(folder) -> sorted names without . and .. */
static int core_list(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    struct dirent **entry;
    int n = scandir(path, &entry, NULL, alphasort), k = 0;
    if (n < 0) {
        mem_check();
        fail("%s: cannot list this folder: %s", path, strerror(errno));
        return script_raise(L);
    }
    lua_newtable(L);
    for (int i = 0; i < n; i++) {
        if (strcmp(entry[i]->d_name, ".") && strcmp(entry[i]->d_name, "..")) {
            lua_pushstring(L, entry[i]->d_name);
            lua_rawseti(L, -2, ++k);
        }
        free(entry[i]);
    }
    free(entry);
    return 1;
}

static int sync_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)at;
    return type == FTW_DP && !file_sync(path) ? errno : 0;
}

/* The folders of a result: 0, or errno. Its files were synced when they were written. */
static int sync_folders(const char *path)
{
    int error = nftw(path, sync_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (error < 0) mem_check();
    return error;
}

/* core.rename(from, to): on the disk when this returns, a folder with all folders in it; `to` must
 * not exist, or be a file. */
static int core_rename(lua_State *L)
{
    const char *from = luaL_checkstring(L, 1), *to = luaL_checkstring(L, 2),
               *slash = strrchr(to, '/');
    if (!file_may_write(from) || !file_may_write(to)) return script_raise(L);
    /* Folders cannot be written again, so a disk that fails once is asked once more. */
    int error = sync_folders(from);
    if (error == EIO) error = sync_folders(from);
    if (error > 0) return script_raise(L); /* -1: there is nothing, as rename will say */
    if (rename(from, to)) {
        fail("cannot rename %s to %s: %s", from, to, strerror(errno));
        return script_raise(L);
    }
    temp_end(from);
    lua_pushlstring(L, slash ? to : ".", slash ? (size_t)(slash - to) + 1 : 1);
    const char *folder = lua_tostring(L, -1);
    bool ok = file_sync(folder) || (errno == EIO && file_sync(folder));
    if (!ok) fail_prefix("%s", to);
    return ok ? 0 : script_raise(L);
}

/* core.begin_temporary(path): a file or folder of this path is not whole until it is renamed or
 * removed; the end of the process by a signal removes it. */
static int core_begin_temporary(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (!file_may_write(path)) return script_raise(L);
    temp_begin(path);
    return 0;
}

/* core.remove_tree(folder): a folder of files and folders; links are removed, not followed. */
static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static int core_remove_tree(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    if (!file_may_write(path)) return script_raise(L);
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT) {
        mem_check();
        fail("%s: cannot remove: %s", path, strerror(errno));
        return script_raise(L);
    }
    temp_end(path);
    return 0;
}

/* ---- hashes ---------------------------------------------------------------------------------- */

/* core.hash(text) -> 16 hex digits (XXH3); core.hash_file(path) -> the same of a file's bytes */
static int push_hash(lua_State *L, const void *data, size_t n)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash_bytes(data, n, 0));
    lua_pushstring(L, text);
    return 1;
}

static int core_hash(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    return push_hash(L, s, n);
}

static int core_hash_file(lua_State *L)
{
    struct file_map m;
    if (!file_map_open(&m, luaL_checkstring(L, 1))) return script_raise(L);
    push_hash(L, m.data, m.bytes);
    file_map_close(&m);
    return 1;
}

static int push_sha256(lua_State *L, const void *data, size_t n)
{
    uint8_t h[32];
    char text[65];
    hash_sha256(data, n, h);
    for (int i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", h[i]);
    lua_pushstring(L, text);
    return 1;
}

static int core_sha256(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    return push_sha256(L, s, n);
}

/* core.sha256_file(path, first?, count?) -> 64 hex digits of the bytes from `first`
 * (0) on, `count` of them at most */
static int core_sha256_file(lua_State *L)
{
    struct file_map m;
    lua_Integer first = luaL_optinteger(L, 2, 0), count = luaL_optinteger(L, 3, INT64_MAX);
    luaL_argcheck(L, first >= 0 && count >= 0, 2, "negative");
    if (!file_map_open(&m, luaL_checkstring(L, 1))) return script_raise(L);
    size_t from = (uint64_t)first < m.bytes ? (size_t)first : m.bytes, left = m.bytes - from;
    push_sha256(L, m.data + from, (uint64_t)count < left ? (size_t)count : left);
    file_map_close(&m);
    return 1;
}

void script_open_disk(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "read_file", core_read_file },
        { "read_part", core_read_part },
        { "write_file", core_write_file },
        { "append_file", core_append_file },
        { "sync_file", core_sync_file },
        { "exists", core_exists },
        { "free_space", core_free_space },
        { "touch", core_touch },
        { "cache_root", core_cache_root },
        { "real_path", core_real_path },
        { "make_dirs", core_make_dirs },
        { "list", core_list },
        { "rename", core_rename },
        { "begin_temporary", core_begin_temporary },
        { "remove_file", core_remove_file },
        { "remove_tree", core_remove_tree },
        { "hash", core_hash },
        { "hash_file", core_hash_file },
        { "sha256", core_sha256 },
        { "sha256_file", core_sha256_file },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
