/* SPDX-License-Identifier: MIT
 * json.c - a strict reader for the subset that a safetensors header needs. RFC 8259 to the letter:
 * no comments, no trailing commas, no leading zeros, no raw control characters, no lone surrogates.
 */
#include "st.h"

#include <string.h>

bool json_error(struct json *j, const char *what)
{
    return st_fail(
        "%s: the safetensors header is damaged: %s at byte %zu of the header; download the "
        "file again",
        j->path, what, (size_t)(j->at - j->begin));
}

void json_space(struct json *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
        j->at++;
}

bool json_peek(struct json *j, char c)
{
    json_space(j);
    return j->at < j->end && *j->at == c;
}

bool json_take(struct json *j, char c)
{
    if (!json_peek(j, c)) return false;
    j->at++;
    return true;
}

bool json_expect(struct json *j, char c, const char *where)
{
    if (json_take(j, c)) return true;
    char what[96] = "expected 'x' ";
    what[10] = c;
    strncat(what, where, sizeof what - strlen(what) - 1);
    return json_error(j, what);
}

bool json_word(struct json *j, const char *word)
{
    size_t n = strlen(word);
    json_space(j);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0) return false;
    j->at += n;
    return true;
}

size_t utf8_length(const char *s, const char *end)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t room = (size_t)(end - s), n = p[0] < 0x80 ? 1 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (n == 1) return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4 || room < n) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    /* Overlong forms, surrogates, beyond U+10FFFF: all decided by the second byte. */
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
        (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return n;
}

static char *put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (char)c;
    } else if (c < 0x800) {
        *out++ = (char)(0xc0 | c >> 6);
        *out++ = (char)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (char)(0xe0 | c >> 12);
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    } else {
        *out++ = (char)(0xf0 | c >> 18);
        *out++ = (char)(0x80 | (c >> 12 & 0x3f));
        *out++ = (char)(0x80 | (c >> 6 & 0x3f));
        *out++ = (char)(0x80 | (c & 0x3f));
    }
    return out;
}

static bool hex4(struct json *j, uint32_t *out)
{
    if (j->end - j->at < 4) return json_error(j, "the text ends inside a \\u escape");
    *out = 0;
    for (int i = 0; i < 4; i++, j->at++) {
        char c = *j->at;
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16;
        if (digit == 16) return json_error(j, "bad digit in a \\u escape");
        *out = *out << 4 | digit;
    }
    return true;
}

/* After the backslash. */
static bool escape(struct json *j)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (j->at == j->end) return json_error(j, "the text ends inside an escape");
    char c = *j->at++;
    const char *found = c ? strchr(from, c) : NULL;
    if (found) {
        *j->text++ = to[found - from];
        return true;
    }
    if (c != 'u') return json_error(j, "unknown escape");
    uint32_t code, low;
    if (!hex4(j, &code)) return false;
    if (code >= 0xdc00 && code <= 0xdfff) return json_error(j, "lone surrogate");
    if (code >= 0xd800 && code <= 0xdbff) {
        if (j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u')
            return json_error(j, "lone surrogate");
        j->at += 2;
        if (!hex4(j, &low)) return false;
        if (low < 0xdc00 || low > 0xdfff) return json_error(j, "lone surrogate");
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    j->text = put_utf8(j->text, code);
    return true;
}

bool json_get_string(struct json *j, struct json_string *out)
{
    if (!json_take(j, '"')) return json_error(j, "expected a string");
    out->s = j->text;
    for (;;) {
        if (j->at == j->end) return json_error(j, "the text ends inside a string");
        unsigned char c = (unsigned char)*j->at;
        if (c == '"') break;
        if (c < 0x20) return json_error(j, "raw control character in a string");
        if (c == '\\') {
            j->at++;
            if (!escape(j)) return false;
            continue;
        }
        size_t n = utf8_length(j->at, j->end);
        if (!n) return json_error(j, "text that is not UTF-8");
        memcpy(j->text, j->at, n);
        j->text += n;
        j->at += n;
    }
    j->at++;
    out->n = (size_t)(j->text - out->s);
    *j->text++ = 0;
    return true;
}

static bool is_digit(const struct json *j)
{
    return j->at < j->end && *j->at >= '0' && *j->at <= '9';
}

bool json_get_uint(struct json *j, uint64_t *out)
{
    json_space(j);
    if (!is_digit(j)) return json_error(j, "expected a non-negative integer");
    uint64_t v = 0;
    const char *first = j->at;
    for (; is_digit(j); j->at++) {
        uint64_t digit = (uint64_t)(*j->at - '0');
        if (v > (UINT64_MAX - digit) / 10) return json_error(j, "number too large");
        v = v * 10 + digit;
    }
    if (*first == '0' && j->at - first > 1) return json_error(j, "number with a leading zero");
    if (j->at < j->end && (*j->at == '.' || *j->at == 'e' || *j->at == 'E'))
        return json_error(j, "expected an integer, not a fraction or a power");
    *out = v;
    return true;
}

static bool skip_number(struct json *j)
{
    if (j->at < j->end && *j->at == '-') j->at++;
    if (!is_digit(j)) return json_error(j, "expected a value");
    if (*j->at++ != '0')
        while (is_digit(j)) j->at++;
    if (j->at < j->end && *j->at == '.') {
        j->at++;
        if (!is_digit(j)) return json_error(j, "expected a digit after the point");
        while (is_digit(j)) j->at++;
    }
    if (j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
        j->at++;
        if (j->at < j->end && (*j->at == '+' || *j->at == '-')) j->at++;
        if (!is_digit(j)) return json_error(j, "expected a digit in the exponent");
        while (is_digit(j)) j->at++;
    }
    return true;
}

bool json_skip(struct json *j, int depth)
{
    struct json_string s;
    if (json_peek(j, '"')) return json_get_string(j, &s);
    bool object = json_peek(j, '{');
    if (!object && !json_peek(j, '['))
        return json_word(j, "true") || json_word(j, "false") || json_word(j, "null") ||
               skip_number(j);
    if (depth <= 0) return json_error(j, "values nested too deeply");
    char close = object ? '}' : ']';
    j->at++;
    if (json_take(j, close)) return true;
    do {
        if (object && (!json_get_string(j, &s) || !json_expect(j, ':', "after a key")))
            return false;
        if (!json_skip(j, depth - 1)) return false;
    } while (json_take(j, ','));
    return json_expect(j, close, "at the end of a value");
}
