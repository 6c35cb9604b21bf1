/* SPDX-License-Identifier: MIT
 * html.c - HTML character references. The table of names is data/html_entities.txt.gz: one line per
 * name
 * ("eacute;", "eacute"), a tab, the characters as UTF-8 in hexadecimal; sorted byte-wise. */
#include "data/deflate.h"
#include "data/text.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define NAME_MAX_BYTES 32
#define STRICT_MAX 24

struct entity {
    const char *name;
    int32_t c[2];
    int n;
};
static struct entity *entities;
static int n_entities, capacity;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
    size_t bytes;
    char *text =
        deflate_unpack_embedded("html_entities.txt.gz", &bytes); /* kept: names point into it */
    for (char *line = text; *line;) {
        char *tab = strchr(line, '\t'), *end = strchr(line, '\n');
        if (!tab || !end || tab > end) panic("data/html_entities.txt.gz has a bad line");
        *tab = *end = 0;
        entities = array_reserve(entities, n_entities, &capacity, sizeof *entities);
        struct entity *e = &entities[n_entities++];
        *e = (struct entity){ .name = line };
        uint8_t utf8[16];
        int n = 0;
        for (char *hex = tab + 1; *hex && n < COUNT_OF(utf8); hex += 2) {
            char pair[3] = { hex[0], hex[1], 0 };
            utf8[n++] = (uint8_t)strtol(pair, NULL, 16);
        }
        for (int at = 0; at < n && e->n < 2; e->n++)
            at += (int)utf8proc_iterate(utf8 + at, n - at, &e->c[e->n]);
        line = end + 1;
    }
}

static int by_name(const void *key, const void *row)
{
    return strcmp(key, ((const struct entity *)row)->name);
}

static const struct entity *find(const char *name)
{
    pthread_once(&once, load);
    return bsearch(name, entities, (size_t)n_entities, sizeof *entities, by_name);
}

/* What HTML says a numeric reference means: 0x80..0x9f as Windows-1252; nothing (0) for
 * non-characters. */
static int32_t numeric(uint32_t v)
{
    if (v == 0 || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff)) return 0xfffd;
    if (v >= 0x80 && v <= 0x9f) return windows_1252((int)v);
    bool none = v <= 8 || v == 11 || (v >= 14 && v <= 31) || v == 127 ||
                (v >= 0xfdd0 && v <= 0xfdef) || (v & 0xfffe) == 0xfffe;
    return none ? 0 : (int32_t)v;
}

static int digit_of(int32_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : 99;
}

/* "#123;" or "#x7b" at c. Returns its length without ";" (0 = none) and adds the character. */
static size_t take_numeric(const int32_t *c, size_t n, struct text *out, bool add)
{
    if (n < 2 || c[0] != '#') return 0;
    bool hex = c[1] == 'x' || c[1] == 'X';
    size_t first = hex ? 2 : 1, at = first;
    uint32_t v = 0, base = hex ? 16 : 10;
    for (; at < n && digit_of(c[at]) < (int)base; at++)
        v = v > 0x110000 ? v : v * base + (uint32_t)digit_of(c[at]);
    if (at == first) return 0;
    int32_t code = numeric(v);
    if (add && code) text_add(out, code);
    return at;
}

static bool is_alnum(int32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static const struct entity *find_prefix(const char *name, size_t *n)
{
    char part[NAME_MAX_BYTES + 2];
    for (*n = strlen(name); *n > 1; --*n) {
        memcpy(part, name, *n);
        part[*n] = 0;
        const struct entity *e = find(part);
        if (e) return e;
    }
    return NULL;
}

/* "&EACUTE;" is no HTML, but people write it and ftfy reads it: the capital of "&eacute;". */
static const struct entity *find_shouted(const char *name, struct entity *made)
{
    char lower[NAME_MAX_BYTES + 2];
    size_t n = 0, used;
    for (; name[n]; n++) {
        if (name[n] >= 'a' && name[n] <= 'z') return NULL;
        lower[n] = (char)(name[n] >= 'A' && name[n] <= 'Z' ? name[n] + 32 : name[n]);
    }
    lower[n] = 0;
    const struct entity *e = find(lower);
    if (!e || find_prefix(name, &used)) return NULL;
    *made = *e;
    for (int i = 0; i < made->n; i++) made->c[i] = utf8proc_toupper(made->c[i]);
    return made;
}

/* c begins after "&". Returns how much was replaced, 0 when nothing. */
static size_t take_strict(const int32_t *c, size_t n, struct text *out)
{
    char name[NAME_MAX_BYTES + 2];
    size_t at = n && c[0] == '#', k = 0;
    for (; at + k < n && k < STRICT_MAX && is_alnum(c[at + k]); k++) name[k] = (char)c[at + k];
    if (k == 0 || at + k == n || c[at + k] != ';') return 0;
    if (at) {
        size_t used = take_numeric(c, n, out, false);
        if (used != k + 1) return 0;
        take_numeric(c, n, out, true);
        return used + 1;
    }
    name[k++] = ';';
    name[k] = 0;
    struct entity made;
    const struct entity *e = find(name);
    e = e ? e : find_shouted(name, &made);
    if (!e) return 0;
    text_add_text(out, e->c, (size_t)e->n);
    return k;
}

static size_t take_loose(const int32_t *c, size_t n, struct text *out)
{
    size_t used = take_numeric(c, n, out, true);
    if (used) return used + (used < n && c[used] == ';');
    char name[NAME_MAX_BYTES + 2];
    size_t k = 0;
    for (; k < n && k < NAME_MAX_BYTES && is_alnum(c[k]); k++) name[k] = (char)c[k];
    if (k < n && c[k] == ';') name[k++] = ';';
    name[k] = 0;
    const struct entity *e = k ? find_prefix(name, &used) : NULL;
    if (!e) return 0;
    text_add_text(out, e->c, (size_t)e->n);
    return used;
}

static void unescape(struct text *t, size_t (*take)(const int32_t *c, size_t n, struct text *out))
{
    struct text out = { 0 };
    for (size_t i = 0; i < t->n; i++) {
        size_t used = t->c[i] == '&' ? take(t->c + i + 1, t->n - i - 1, &out) : 0;
        if (!used) text_add(&out, t->c[i]);
        i += used;
    }
    text_finish(t);
    *t = out;
}

void html_unescape_strict(struct text *t) { unescape(t, take_strict); }
void html_unescape(struct text *t) { unescape(t, take_loose); }
