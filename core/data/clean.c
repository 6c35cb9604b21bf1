/* SPDX-License-Identifier: MIT
 * clean.c - repairs broken text the way the ftfy library does for prompts (the text encoders were
 * trained behind it): HTML references, UTF-8 that was read as Windows-1252 ("mojibake"), ligatures,
 * full-width forms, curly quotes, line ends, terminal escapes, control characters, and Unicode
 * normal form C.
 *
 * Where ftfy judges by a large table of suspicious pairs whether text is mojibake, the rule here is
 * smaller and errs towards leaving text alone; see is_plausible. */
#include "data/text.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define ROUNDS_MAX 16 /* of repairing what a repair uncovered */

static const int32_t high_half[32] = {
    0x20ac, 0x81,   0x201a, 0x192,  0x201e, 0x2026, 0x2020, 0x2021, 0x2c6,  0x2030, 0x160,
    0x2039, 0x152,  0x8d,   0x17d,  0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
    0x2013, 0x2014, 0x2dc,  0x2122, 0x161,  0x203a, 0x153,  0x9d,   0x17e,  0x178,
};

int32_t windows_1252(int byte) { return high_half[byte - 0x80]; }

/* ---- mojibake -------------------------------------------------------------------------------- */

/* The byte that reads as c in Windows-1252 or Latin-1, -1 when none does. */
static int byte_of(int32_t c)
{
    if (c < 0x100) return c;
    for (int i = 0; i < 32; i++)
        if (high_half[i] == c) return 0x80 + i;
    return -1;
}

/* A whole UTF-8 sequence of at least two bytes that reads as characters: its length, 0 = none. */
static int sequence(const int32_t *c, size_t n, int32_t *decoded)
{
    uint8_t bytes[4];
    int lead = byte_of(c[0]), length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (lead < 0xc2 || lead > 0xf4) return 0;
    if (n < (size_t)length) return 0;
    for (int i = 0; i < length; i++) {
        int b = byte_of(c[i]);
        if (b < 0x80) return 0;
        bytes[i] = (uint8_t)b;
    }
    return utf8proc_iterate(bytes, length, decoded) == length ? length : 0;
}

/* Characters that hardly ever follow a capital accented letter in real text. Quotes, dashes,
 * currency, trade marks and letters may ("CAFÉ®", "PŘÍŠTÍ"). */
static bool is_odd_after_letter(int32_t c)
{
    static const int32_t odd[] = { 0x2c6, 0x2dc, 0x2030, 0x2020, 0x2021, 0x201e, 0x201a, 0xa4, 0xa6,
                                   0xa7,  0xa8,  0xac,   0xad,   0xaf,   0xb1,   0xb2,   0xb3, 0xb4,
                                   0xb5,  0xb6,  0xb8,   0xb9,   0xbc,   0xbd,   0xbe };
    if (c >= 0x80 && c <= 0x9f) return true;
    for (int i = 0; i < COUNT_OF(odd); i++)
        if (odd[i] == c) return true;
    return false;
}

/* Is the sequence at c damage rather than what its author meant? Three and four characters that
 * happen to be valid UTF-8 are; pairs when they begin with the letters that Latin text turns into,
 * when the second one is odd, or when another pair follows or precedes (as in Cyrillic). */
static bool is_plausible(const int32_t *c, size_t n, int length, bool after_another)
{
    int32_t next;
    if (length > 2 || after_another || is_odd_after_letter(c[1])) return true;
    if (c[0] == 0xc2 || c[0] == 0xc3) return c[1] != 0xbb && c[1] != 0x201d && c[1] != 0x2019;
    return n > 2 && sequence(c + 2, n - 2, &next);
}

static bool fix_mojibake(struct text *t)
{
    struct text out = { 0 };
    bool changed = false, before = false;
    for (size_t i = 0; i < t->n;) {
        int32_t decoded;
        int length = t->c[i] < 0x80 ? 0 : sequence(t->c + i, t->n - i, &decoded);
        before = length && is_plausible(t->c + i, t->n - i, length, before);
        text_add(&out, before ? decoded : t->c[i]);
        changed = changed || before;
        i += before ? (size_t)length : 1;
    }
    text_finish(t);
    *t = out;
    return changed;
}

/* ---- one character at a time ----------------------------------------------------------------- */

/* What c becomes: up to three characters. Returns how many, 0 to remove it. */
static int replace(int32_t c, int32_t to[4])
{
    static const struct {
        int32_t from;
        const char *to;
    } ligatures[] = {
        { 0x132, "IJ" },   { 0x133, "ij" },   { 0x1c7, "LJ" },  { 0x1c8, "Lj" },  { 0x1c9, "lj" },
        { 0x1ca, "NJ" },   { 0x1cb, "Nj" },   { 0x1cc, "nj" },  { 0x1f1, "DZ" },  { 0x1f2, "Dz" },
        { 0x1f3, "dz" },   { 0x149, "'n" },   { 0xfb00, "ff" }, { 0xfb01, "fi" }, { 0xfb02, "fl" },
        { 0xfb03, "ffi" }, { 0xfb04, "ffl" }, { 0xfb06, "st" },
    };
    to[0] = c;
    for (int i = 0; i < COUNT_OF(ligatures); i++) {
        int n = 0;
        if (ligatures[i].from != c) continue;
        for (const char *s = ligatures[i].to; *s; s++) to[n++] = *s;
        return n;
    }
    if (c >= 0x1c4 && c <= 0x1c6) { /* DZ with caron, in three cases */
        to[0] = c == 0x1c6 ? 'd' : 'D';
        to[1] = c == 0x1c4 ? 0x17d : 0x17e;
        return 2;
    }
    if (c == 0xfb05) {
        to[0] = 0x17f;
        to[1] = 't';
        return 2;
    }
    if (c >= 0xff01 && c <= 0xffef) { /* full-width and half-width forms */
        int boundary = 0;
        utf8proc_ssize_t n = utf8proc_decompose_char(
            c, to, 4, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, &boundary);
        return n < 1 || n > 4 ? 1 : (int)n;
    }
    if (c >= 0x80 && c <= 0x9f) c = windows_1252(c);
    to[0] = c == 0x3000                                  ? ' '
            : c == 0x2bc || (c >= 0x2018 && c <= 0x201b) ? '\''
            : c >= 0x201c && c <= 0x201f                 ? '"'
            : c == 0x2028 || c == 0x2029                 ? '\n'
                                                         : c;
    return 1;
}

static bool is_control(int32_t c)
{
    return c <= 8 || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f ||
           (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

/* The length of a terminal's color or cursor command (ESC [ 1;31 m) at c, 0 when there is none. */
static size_t terminal_escape(const int32_t *c, size_t n)
{
    size_t i = 2;
    if (n < 3 || c[0] != 0x1b || c[1] != '[') return 0;
    while (i < n && ((c[i] >= '0' && c[i] <= '9') || c[i] == ';')) i++;
    return i < n && ((c[i] | 32) >= 'a' && (c[i] | 32) <= 'z') ? i + 1 : 0;
}

static void fix_characters(struct text *t)
{
    struct text out = { 0 };
    for (size_t i = 0; i < t->n; i++) {
        size_t escape = terminal_escape(t->c + i, t->n - i);
        if (escape) {
            i += escape - 1;
            continue;
        }
        if (t->c[i] == '\r') { /* CR LF and CR alone */
            if (i + 1 == t->n || t->c[i + 1] != '\n') text_add(&out, '\n');
            continue;
        }
        int32_t to[4];
        int n = is_control(t->c[i]) ? 0 : replace(t->c[i], to);
        text_add_text(&out, to, (size_t)n);
    }
    text_finish(t);
    *t = out;
}

static void compose(struct text *t)
{
    size_t i = 0;
    while (i < t->n && t->c[i] < 0x300) i++;
    if (i == t->n) return; /* such text is in normal form C already */
    struct str utf8 = { 0 };
    text_encode(t->c, t->n, &utf8);
    uint8_t *composed = NULL;
    utf8proc_ssize_t n = utf8proc_map((const uint8_t *)utf8.data, (utf8proc_ssize_t)utf8.len,
                                      &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n >= 0) {
        t->n = 0;
        text_decode(t, (const char *)composed, (size_t)n);
    }
    str_finish(&utf8);
    free(composed);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static bool same(const struct text *a, const struct text *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->c, b->c, a->n * sizeof *a->c) == 0);
}

static void clean_line(struct text *t, bool html)
{
    for (int round = 0; round < ROUNDS_MAX; round++) {
        struct text before = { 0 };
        text_add_text(&before, t->c, t->n);
        if (html) html_unescape_strict(t);
        for (int i = 0; i < ROUNDS_MAX && fix_mojibake(t); i++) continue;
        fix_characters(t);
        compose(t);
        bool done = same(&before, t);
        text_finish(&before);
        if (done) return;
    }
}

void text_clean(struct text *t)
{
    struct text out = { 0 };
    bool html = true; /* until a "<" shows that this is HTML source, where references are meant */
    for (size_t i = 0; i < t->n;) {
        struct text line = { 0 };
        while (i < t->n) {
            int32_t c = t->c[i++];
            text_add(&line, c);
            html = html && c != '<';
            if (c == '\n') break;
        }
        clean_line(&line, html);
        text_add_text(&out, line.c, line.n);
        text_finish(&line);
    }
    text_finish(t);
    *t = out;
}
