/* SPDX-License-Identifier: MIT
 * chunks.c - token ids in rows of 77 for a text encoder, plain and with A1111's weights. The rows
 * are those of sd-scripts, so that a model trained here reads prompts as one trained there. */
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

#define BOS 49406
#define EOS 49407
#define ROW 77
#define TOKENS 75 /* of a row, without its two marks */

/* ids: n tokens without marks. weights may be NULL. */
static void rows(const int32_t *ids, const double *weights, int n, int max_tokens, int32_t pad,
                 int32_t *out, float *out_weights)
{
    int chunks = max_tokens / TOKENS;
    bool full = n >= max_tokens;
    n = full ? max_tokens : n;
    for (int k = 0; k < chunks; k++, out += ROW) {
        out[0] = BOS;
        for (int i = 0; i < TOKENS; i++) {
            int at = k * TOKENS + i;
            out[1 + i] = at < n ? ids[at] : at == n ? EOS : pad;
        }
        /* The last place of every row is the last one of the whole: EOS when the text fills it. */
        out[ROW - 1] = full ? EOS : pad;
        if (chunks == 1) out[ROW - 1] = n == TOKENS ? EOS : pad;
        else if (pad != EOS) {
            if (out[ROW - 2] != EOS && out[ROW - 2] != pad) out[ROW - 1] = EOS;
            if (out[1] == pad) out[1] = EOS;
        }
        for (int i = 0; out_weights && i < ROW; i++) {
            int at = k * TOKENS + i - 1;
            bool inside = i > 0 && i <= TOKENS && at < n;
            out_weights[k * ROW + i] = inside ? (float)weights[at] : 1.0f;
        }
    }
}

static bool check_length(int max_tokens)
{
    return (max_tokens > 0 && max_tokens % TOKENS == 0) ||
           fail("max_tokens is %d, but a multiple of %d was expected (75, 150 or 225)", max_tokens,
                TOKENS);
}

bool tokenizer_chunks(const char *text, size_t bytes, enum tokenizer_flavour flavour,
                      int max_tokens, int32_t pad, int32_t *out)
{
    int32_t *ids;
    if (!check_length(max_tokens)) return false;
    int n = tokenizer_encode(text, bytes, flavour, &ids);
    if (n < 0) return false;
    rows(ids, NULL, n, max_tokens, pad, out, NULL);
    mem_free(ids);
    return true;
}

/* ---- weights --------------------------------------------------------------------------------- */

struct part {
    struct str text;
    double weight;
};
struct parts {
    struct part *part;
    int n, capacity;
};
struct stack {
    int *at;
    int n, capacity;
};

static void push(struct stack *s, int v)
{
    s->at = array_reserve(s->at, s->n, &s->capacity, sizeof *s->at);
    s->at[s->n++] = v;
}

static void add_part(struct parts *p, const char *text, size_t n)
{
    p->part = array_reserve(p->part, p->n, &p->capacity, sizeof *p->part);
    struct part *new = &p->part[p->n++];
    *new = (struct part){ .weight = 1 };
    str_add_bytes(&new->text, text, n);
}

static void multiply(struct parts *p, int from, double by)
{
    for (int i = from; i < p->n; i++) p->part[i].weight *= by;
}

/* ":1.2)" at s: its length and the number, 0 when it is something else. */
static size_t weight_at(const char *s, const char *end, double *weight)
{
    char number[32];
    size_t n = 1, digits = 0, points = 0;
    if (n < (size_t)(end - s) && (s[n] == '+' || s[n] == '-')) n++;
    for (; n < (size_t)(end - s) && ((s[n] >= '0' && s[n] <= '9') || s[n] == '.'); n++) {
        digits += s[n] != '.';
        points += s[n] == '.';
    }
    if (!digits || points > 1 || n >= sizeof number || n == (size_t)(end - s) || s[n] != ')')
        return 0;
    memcpy(number, s + 1, n - 1);
    number[n - 1] = 0;
    *weight = strtod(number, NULL);
    return n + 1;
}

static void parse(const char *s, size_t bytes, struct parts *p)
{
    const char *end = s + bytes;
    struct stack round = { 0 }, square = { 0 };
    double weight;
    while (s < end) {
        size_t n = 1, w = *s == ':' && round.n ? weight_at(s, end, &weight) : 0;
        if (*s == '\\') {
            n = s + 1 < end && strchr("()[]\\", s[1]) && s[1] ? 2 : 1;
            add_part(p, s + 1, n - 1);
        } else if (*s == '(') {
            push(&round, p->n);
        } else if (*s == '[') {
            push(&square, p->n);
        } else if (w) {
            multiply(p, round.at[--round.n], weight);
            n = w;
        } else if (*s == ')' && round.n) {
            multiply(p, round.at[--round.n], 1.1);
        } else if (*s == ']' && square.n) {
            multiply(p, square.at[--square.n], 1 / 1.1);
        } else {
            while (s + n < end && !strchr("\\()[]:", s[n])) n++;
            add_part(p, s, n);
        }
        s += n;
    }
    while (round.n) /* brackets that were never closed reach to the end */
        multiply(p, round.at[--round.n], 1.1);
    while (square.n) multiply(p, square.at[--square.n], 1 / 1.1);
    mem_free(round.at);
    mem_free(square.at);
}

/* Neighbours of one weight are tokenized together. */
static void join(struct parts *p)
{
    int out = 0;
    for (int i = 1; i < p->n; i++) {
        if (p->part[i].weight == p->part[out].weight) {
            str_add_bytes(&p->part[out].text, p->part[i].text.data, p->part[i].text.len);
            str_finish(&p->part[i].text);
        } else if (++out != i) {
            p->part[out] = p->part[i];
        }
    }
    p->n = p->n ? out + 1 : 0;
}

/* The tokens of a text with weights, of which the first `most` go to ids and w: how many there are
 * in all, -1 on invalid UTF-8. */
static int encode_weighted(const char *text, size_t bytes, enum tokenizer_flavour flavour, int most,
                           int32_t *ids, double *w)
{
    struct parts p = { 0 };
    parse(text, bytes, &p);
    join(&p);
    int n = 0;
    for (int i = 0; i < p.n; i++) {
        int32_t *part = NULL;
        int k =
            n < 0 ? -1 : tokenizer_encode(p.part[i].text.data, p.part[i].text.len, flavour, &part);
        for (int j = 0; j < k && n + j < most; j++) {
            ids[n + j] = part[j];
            w[n + j] = p.part[i].weight;
        }
        n = k < 0 ? -1 : n + k;
        mem_free(part);
        str_finish(&p.part[i].text);
    }
    mem_free(p.part);
    return n;
}

bool tokenizer_chunks_weighted(const char *text, size_t bytes, enum tokenizer_flavour flavour,
                               int max_tokens, int32_t pad, int32_t *out, float *weights)
{
    if (!check_length(max_tokens)) return false;
    int32_t *ids = mem_alloc((size_t)max_tokens * sizeof *ids);
    double *w = mem_alloc((size_t)max_tokens * sizeof *w);
    int n = encode_weighted(text, bytes, flavour, max_tokens, ids, w);
    if (n >= 0) rows(ids, w, n, max_tokens, pad, out, weights);
    mem_free(ids);
    mem_free(w);
    return n >= 0;
}

int tokenizer_count(const char *text, size_t bytes, enum tokenizer_flavour flavour, bool weighted)
{
    if (weighted) return encode_weighted(text, bytes, flavour, 0, NULL, NULL);
    int32_t *ids;
    int n = tokenizer_encode(text, bytes, flavour, &ids);
    if (n >= 0) mem_free(ids);
    return n;
}
