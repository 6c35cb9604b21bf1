/* SPDX-License-Identifier: MIT
 * caption.c - caption files. Encodings are told apart by their byte order mark or by being valid
 * UTF-8; nothing is guessed, because a wrong guess would train on garbage in silence. */
#include "data/data.h"
#include "data/text.h"

#include "plug/plug.h"

#include <string.h>

#define CAPTION_MAX (256u << 10)

static bool starts(const struct str *s, const char *mark, size_t n)
{
    return s->len >= n && memcmp(s->data, mark, n) == 0;
}

static bool from_utf16(const struct str *in, bool big, struct str *out)
{
    struct text t = { 0 };
    const uint8_t *b = (const uint8_t *)in->data;
    bool ok = in->len % 2 == 0;
    for (size_t i = 2; ok && i < in->len; i += 2) {
        int32_t c = big ? b[i] << 8 | b[i + 1] : b[i + 1] << 8 | b[i];
        if (c >= 0xd800 && c <= 0xdbff && i + 3 < in->len) {
            int32_t low = big ? b[i + 2] << 8 | b[i + 3] : b[i + 3] << 8 | b[i + 2];
            ok = low >= 0xdc00 && low <= 0xdfff;
            c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
            i += 2;
        } else if (c >= 0xd800 && c <= 0xdfff) {
            ok = false;
        }
        if (ok) text_add(&t, c);
    }
    if (ok) text_encode(t.c, t.n, out);
    text_finish(&t);
    return ok || fail("it begins like UTF-16 but is not; save it as UTF-8");
}

/* What a file that is not UTF-8 looks like, for the message. */
static const char *guess(const struct str *s)
{
    size_t zeros_even = 0, zeros_odd = 0, high = 0, pairs = 0;
    for (size_t i = 0; i < s->len; i++) {
        uint8_t b = (uint8_t)s->data[i], next = i + 1 < s->len ? (uint8_t)s->data[i + 1] : 0;
        zeros_even += !b && i % 2 == 0;
        zeros_odd += !b && i % 2 == 1;
        high += b >= 0x80;
        if (b >= 0x81 && next >= 0x40) { /* how the Chinese and Japanese encodings pair bytes */
            pairs++;
            high += next >= 0x80;
            i++;
        }
    }
    if (zeros_even || zeros_odd)
        return zeros_odd > s->len / 4    ? "UTF-16 (little-endian) without its mark"
               : zeros_even > s->len / 4 ? "UTF-16 (big-endian) without its mark"
                                         : "binary data";
    return pairs > 1 && high > pairs + pairs / 2 ? "GBK, Big5 or Shift-JIS"
                                                 : "Windows-1252 or Latin-1";
}

/* In place: the lines that are not blank, without white space at their ends, a '\n' between two. */
static char *tidy(char *text)
{
    char *to = text;
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\r\n"), kept = n;
        while (kept && (line[kept - 1] == ' ' || line[kept - 1] == '\t')) kept--;
        if (kept && to > text) *to++ = '\n';
        memmove(to, line, kept);
        to += kept;
        line += n + (line[n] != 0);
    }
    *to = 0;
    return text;
}

static bool decode(const struct str *raw, struct str *out)
{
    if (starts(raw, "\xff\xfe\0\0", 4) || starts(raw, "\0\0\xfe\xff", 4))
        return fail("it looks like UTF-32; save it as UTF-8");
    if (starts(raw, "\xff\xfe", 2) || starts(raw, "\xfe\xff", 2)) {
        if (!from_utf16(raw, raw->data[0] == '\xfe', out)) return false;
    } else {
        size_t mark = starts(raw, "\xef\xbb\xbf", 3) ? 3 : 0;
        struct text t = { 0 };
        bool ok =
            text_decode(&t, raw->data + mark, raw->len - mark) && !memchr(raw->data, 0, raw->len);
        text_finish(&t);
        if (!ok) return fail("it is not UTF-8 but looks like %s; save it as UTF-8", guess(raw));
        str_add_bytes(out, raw->data + mark, raw->len - mark);
    }
    return !out->len || !memchr(out->data, 0, out->len) || fail("it holds NUL characters");
}

char *caption_load(const char *path)
{
    struct str raw = { 0 }, out = { 0 };
    str_add(&out, "");
    bool ok = file_read(path, CAPTION_MAX, &raw);
    if (ok && raw.len && !decode(&raw, &out))
        ok = fail_prefix("cannot use the caption file %s", path);
    str_finish(&raw);
    if (!ok) {
        str_finish(&out);
        return NULL;
    }
    return tidy(out.data);
}

/* One that a plugin gives instead of a file. */
static char *caption_given(const char *caption)
{
    struct text t = { 0 };
    bool ok = text_decode(&t, caption, strlen(caption));
    text_finish(&t);
    if (ok) return tidy(str_dup(caption));
    fail("the caption that comes with it is not UTF-8");
    return NULL;
}

char *caption_of(const struct burin_item *item)
{
    if (item->caption) return caption_given(item->caption);
    if (item->caption_path) return caption_load(item->caption_path);
    return str_dup(item->class_tokens ? item->class_tokens : "");
}
