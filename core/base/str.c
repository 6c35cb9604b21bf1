/* SPDX-License-Identifier: MIT
 * str.c - growing strings, JSON quoting and "did you mean". */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

static void reserve(struct str *s, size_t more)
{
    size_t need = s->len + more + 1;
    if (need <= s->cap) return;
    size_t cap = s->cap < 32 ? 64 : s->cap * 2;
    if (cap < need) cap = need;
    s->data = mem_grow(s->data, s->cap, cap);
    s->cap = cap;
}

void str_add_bytes(struct str *s, const void *bytes, size_t n)
{
    reserve(s, n);
    if (n) memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = 0;
}

void str_add(struct str *s, const char *text) { str_add_bytes(s, text, strlen(text)); }

void str_addf(struct str *s, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n >= 0) {
        reserve(s, (size_t)n);
        vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
        s->len += (size_t)n;
    }
    va_end(again);
}

void str_finish(struct str *s)
{
    mem_free(s->data);
    *s = (struct str){ 0 };
}

char *str_dup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(mem_alloc(n), s, n);
}

/* Length of the well-formed UTF-8 sequence at p, or 0. */
static size_t utf8_length(const uint8_t *p, size_t n)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    if (p[0] < 0x80) return 1;
    size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
    if (!len || len > n || p[0] > 0xf4) return 0;
    uint32_t code = p[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code < 0xe000;
    return code < least[len] || code > 0x10ffff || surrogate ? 0 : len;
}

/* The code point of a well-formed sequence. */
static uint32_t code_point(const uint8_t *p, size_t len)
{
    uint32_t c = len == 1 ? p[0] : p[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) c = c << 6 | (p[i] & 0x3f);
    return c;
}

static bool is_control(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

void str_add_shown(struct str *s, const char *text, size_t n, bool lines)
{
    for (size_t i = 0; i < n;) {
        const uint8_t *p = (const uint8_t *)text + i;
        size_t len = utf8_length(p, n - i);
        if (!len) str_addf(s, "\\x%02x", *p);
        else if (lines && (*p == '\n' || *p == '\t')) str_add_bytes(s, p, 1);
        else if (*p == '\n') str_add(s, "\\n");
        else if (is_control(code_point(p, len)))
            str_addf(s, "\\u%04x", (unsigned)code_point(p, len));
        else str_add_bytes(s, p, len);
        i += len ? len : 1;
    }
}

void str_add_json(struct str *s, const char *text, size_t n)
{
    str_add(s, "\"");
    for (size_t i = 0; i < n;) {
        const uint8_t *p = (const uint8_t *)text + i;
        size_t len = utf8_length(p, n - i);
        if (!len) str_add(s, "\xef\xbf\xbd"); /* U+FFFD */
        else if (*p == '"' || *p == '\\') str_addf(s, "\\%c", *p);
        else if (*p == '\n') str_add(s, "\\n");
        else if (*p == '\t') str_add(s, "\\t");
        else if (*p < 0x20 || *p == 0x7f) str_addf(s, "\\u%04x", *p);
        else str_add_bytes(s, p, len);
        i += len ? len : 1;
    }
    str_add(s, "\"");
}

/* Edit distance with swapped neighbours counted once (optimal string alignment). */
static int edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int n = (int)strlen(a), m = (int)strlen(b);
    if (n > LONGEST || m > LONGEST) return 1000;
    int row[3][LONGEST + 1];
    for (int j = 0; j <= m; j++) row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *cur = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        cur[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (cur[j - 1] + 1 < best) best = cur[j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            cur[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *str_nearest(const char *word, const char *const *candidates, int n)
{
    const char *best = NULL;
    int limit = (int)strlen(word) / 3 + 1, least = limit + 1;
    for (int i = 0; i < n; i++) {
        if (!candidates[i]) continue;
        int distance = edit_distance(word, candidates[i]);
        /* A distance as long as the candidate would match anything. */
        if (distance < least && distance < (int)strlen(candidates[i])) {
            least = distance;
            best = candidates[i];
        }
    }
    return best;
}
