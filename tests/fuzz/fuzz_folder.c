/* SPDX-License-Identifier: MIT
 * fuzz_folder.c - any bytes as a dataset's folder: names of files and folders, and what is in them.
 *
 *   "<name>\0<content>\0<name>\0<content> ..."   a name may have slashes; "|" in a content is NUL
 *
 * Each file is an item, a caption of one, left out with a reason, or no concern of ours; the order
 * is that of the bytes of paths; captions are refused or valid. */
#include "host.h"

#include "data/data.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define FILES_MAX 24
#define NAME_MAX_HERE 200

static char top[64];

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

/* "10_a/b.png": makes the folders. false for what cannot be a name. */
static bool make(const char *name, char *path, size_t room)
{
    int n = snprintf(path, room, "%s/%s", top, name);
    if (n < 0 || (size_t)n >= room || !*name) return false;
    int depth = 0;
    for (char *part = path + strlen(top) + 1;;) {
        size_t k = strcspn(part, "/");
        bool dots = (k == 1 && part[0] == '.') || (k == 2 && part[0] == '.' && part[1] == '.');
        if (!k || k > NAME_MAX_HERE || dots || ++depth > 3) return false;
        if (!part[k]) return true;
        part[k] = 0;
        if (mkdir(path, 0700) != 0 && access(path, X_OK) != 0) return false;
        part[k] = '/';
        part += k + 1;
    }
}

static void put(const char *name, const char *content)
{
    char path[700], text[4096];
    if (!make(name, path, sizeof path)) return;
    size_t n = strlen(content);
    n = n < sizeof text ? n : sizeof text;
    for (size_t i = 0; i < n; i++) text[i] = content[i] == '|' ? 0 : content[i];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return;
    if (write(fd, text, n) != (ssize_t)n) abort();
    close(fd);
}

static void fill(char *text, size_t n)
{
    char *end = text + n;
    for (int i = 0; i < FILES_MAX && text < end; i++) {
        char *content = text + strlen(text) + 1;
        put(text, content < end ? content : "");
        text = content < end ? content + strlen(content) + 1 : end;
    }
}

static void check_items(const struct burin_source *s, void *self)
{
    struct burin_item item;
    char before[1024] = "";
    for (int64_t i = 0; i < s->count(self); i++) {
        struct stat st;
        memset(&item, 0, sizeof item);
        if (s->item(self, i, &item) != 0 || !item.path || stat(item.path, &st) != 0 ||
            !S_ISREG(st.st_mode) || item.repeats < 1 || strncmp(item.path, top, strlen(top)) != 0)
            abort();
        const char *name = strrchr(item.path, '/') + 1;
        if (*name == '.' || (item.class_tokens && !*item.class_tokens)) abort();
        snprintf(before, sizeof before, "%s", item.path);
        if (!item.caption_path) continue;
        if (access(item.caption_path, R_OK) != 0) abort();
        char *caption = caption_load(item.caption_path);
        if (caption && (*caption == '\n' || strpbrk(caption, "\r") || strstr(caption, "\n\n")))
            abort();
        mem_free(caption);
    }
    if (s->item(self, s->count(self), &item) == 0 || s->item(self, -1, &item) == 0) abort();
}

static void check_others(const struct burin_source *s, void *self)
{
    const char *path, *reason;
    for (int64_t i = 0; s->skipped(self, i, &path, &reason) == 1; i++)
        if (!path || !reason || !*reason || strncmp(path, top, strlen(top)) != 0) abort();
    for (int64_t i = 0; s->remark(self, i, &reason) == 1; i++)
        if (!reason || !*reason) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const struct burin_source *s = burin_plugin_main(&fuzz_host)->sources[0];
    snprintf(top, sizeof top, "%s/burin-fuzz-XXXXXX",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    if (!mkdtemp(top)) abort();
    char *text = malloc(n + 2); /* names and contents end */
    memcpy(text, data, n);
    text[n] = text[n + 1] = 0;
    fill(text, n);
    free(text);
    struct burin_value values[3] = { { 0 } };
    for (int how = 0; how < 3; how++) {
        void *self = NULL;
        values[0].number = how == 1 ? 7 : 0;
        values[1].string = how == 1 ? "txt" : NULL;
        values[2].number = how == 2;
        if (s->probe(top) <= 0) abort();
        if (s->open(top, how ? values : NULL, &self) != 0) continue;
        if (s->count(self) < 1) abort();
        check_items(s, self);
        check_others(s, self);
        s->close(self);
    }
    nftw(top, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
