/* SPDX-License-Identifier: MIT
 * text.c - code points, their classes and lower case. */
#include "data/text.h"

#include <string.h>
#include <utf8proc.h>

void text_add(struct text *t, int32_t c)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        t->c = mem_grow(t->c, t->cap * sizeof *t->c, cap * sizeof *t->c);
        t->cap = cap;
    }
    t->c[t->n++] = c;
}

void text_add_text(struct text *t, const int32_t *c, size_t n)
{
    for (size_t i = 0; i < n; i++) text_add(t, c[i]);
}

bool text_decode(struct text *t, const char *utf8, size_t bytes)
{
    const uint8_t *at = (const uint8_t *)utf8, *end = at + bytes;
    while (at < end) {
        int32_t c;
        utf8proc_ssize_t n = utf8proc_iterate(at, end - at, &c);
        if (n <= 0)
            return fail("the text is not valid UTF-8 at byte %zu",
                        (size_t)(at - (const uint8_t *)utf8));
        text_add(t, c);
        at += n;
    }
    return true;
}

void text_encode(const int32_t *c, size_t n, struct str *out)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t bytes[4];
        str_add_bytes(out, bytes, (size_t)utf8proc_encode_char(c[i], bytes));
    }
}

void text_finish(struct text *t)
{
    mem_free(t->c);
    *t = (struct text){ 0 };
}

/* ---- classes --------------------------------------------------------------------------------- */

bool text_is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

bool text_is_letter(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

bool text_is_number(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

/* Python's strip() takes four separators more than \s does. */
static bool is_strippable(int32_t c) { return text_is_space(c) || (c >= 0x1c && c <= 0x1f); }

void text_squeeze(struct text *t)
{
    size_t begin = 0, end = t->n, out = 0;
    while (end > begin && is_strippable(t->c[end - 1])) end--;
    while (begin < end && is_strippable(t->c[begin])) begin++;
    bool space = false;
    for (size_t i = begin; i < end; i++) {
        bool now = text_is_space(t->c[i]);
        if (!now) t->c[out++] = t->c[i];
        else if (!space) t->c[out++] = ' ';
        space = now;
    }
    t->n = out;
}

/* ---- lower case ------------------------------------------------------------------------------ */

/* Of those that are not case-ignorable. */
static bool is_cased(int32_t c)
{
    utf8proc_category_t k = utf8proc_category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           c == 0xaa || c == 0xba || (c >= 0x2160 && c <= 0x217f) || (c >= 0x24b6 && c <= 0x24e9);
}

static bool is_case_ignorable(int32_t c)
{
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK: return true;
    default:
        return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x387 || c == 0x2018 ||
               c == 0x2019 || c == 0x2024 || c == 0x2027;
    }
}

/* A capital sigma at the end of a word becomes the final form: a cased letter before, none after.
 */
static bool is_final_sigma(const int32_t *c, size_t n, size_t at)
{
    size_t before = at, after = at + 1;
    while (before > 0 && is_case_ignorable(c[before - 1])) before--;
    if (before == 0 || !is_cased(c[before - 1])) return false;
    while (after < n && is_case_ignorable(c[after])) after++;
    return after == n || !is_cased(c[after]);
}

void text_lower(struct text *t)
{
    struct text out = { 0 };
    for (size_t i = 0; i < t->n; i++) {
        int32_t c = t->c[i];
        if (c == 0x3a3) {
            text_add(&out, is_final_sigma(t->c, t->n, i) ? 0x3c2 : 0x3c3);
        } else if (c == 0x130) { /* the one character whose lower case is two */
            text_add(&out, 'i');
            text_add(&out, 0x307);
        } else {
            text_add(&out, utf8proc_tolower(c));
        }
    }
    text_finish(t);
    *t = out;
}
