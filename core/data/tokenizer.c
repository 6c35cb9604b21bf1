/* SPDX-License-Identifier: MIT
 * tokenizer.c - CLIP's byte-pair tokenizer. The vocabulary file lists merges in order of rank; ids
 * are 256 bytes, the same 256 ending a word, one per merge, and the two marks. */
#include "data/data.h"
#include "data/deflate.h"
#include "data/text.h"

#include <pthread.h>
#include <string.h>

#define N_MERGES 48894
#define BOS 49406
#define EOS 49407
#define TEXT_MAX (1u << 20) /* far beyond any caption; keeps hostile ones from taking minutes */

/* ---- the table ------------------------------------------------------------------------------- */

#define SLOTS (1u << 17) /* of both hash tables; a power of two, more than twice the entries */

struct symbol {
    const char *text;
    uint32_t bytes;
    int32_t id;
}; /* text as in the file, "</w>" included */
struct pair {
    uint32_t key;
    int32_t rank;
}; /* key: left id << 16 | right id; rank -1 = free slot */

static struct pair *pairs;
static int32_t id_of_byte[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static struct symbol *symbol_slot(struct symbol *symbols, const char *text, size_t n)
{
    uint64_t at = hash_bytes(text, n, 0);
    for (;; at++) {
        struct symbol *s = &symbols[at & (SLOTS - 1)];
        if (!s->text || (s->bytes == n && memcmp(s->text, text, n) == 0)) return s;
    }
}

static struct pair *pair_slot(uint32_t key)
{
    for (uint32_t at = key * 2654435761u >> 7;; at++) {
        struct pair *p = &pairs[at & (SLOTS - 1)];
        if (p->rank < 0 || p->key == key) return p;
    }
}

static void add_symbol(struct symbol *symbols, struct arena *a, const char *text, size_t n,
                       int32_t id)
{
    char *own = arena_alloc(a, n + 1);
    memcpy(own, text, n);
    *symbol_slot(symbols, own, n) = (struct symbol){ own, (uint32_t)n, id };
}

/* The vocabulary writes bytes as printable characters: themselves where they are, else U+0100
 * onwards. */
static bool is_printable(int b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
}

static void add_bytes(struct symbol *symbols, struct arena *a)
{
    int32_t id = 0;
    for (int printable = 1; printable >= 0; printable--) {
        int others = 0;
        for (int b = 0; b < 256; b++) {
            if (is_printable(b) != (printable == 1)) continue;
            int32_t shown = printable ? b : 0x100 + others++;
            struct str s = { 0 };
            text_encode(&shown, 1, &s);
            add_symbol(symbols, a, s.data, s.len, id);
            str_add(&s, "</w>");
            add_symbol(symbols, a, s.data, s.len, id + 256);
            str_finish(&s);
            id_of_byte[b] = id++;
        }
    }
}

static int32_t id_of(struct symbol *symbols, const char *text, size_t n)
{
    const struct symbol *s = symbol_slot(symbols, text, n);
    if (!s->text) panic("the vocabulary merges \"%.*s\" before it exists", (int)n, text);
    return s->id;
}

char *tokenizer_vocabulary(size_t *n)
{
    return deflate_unpack_embedded("bpe_simple_vocab_16e6.txt.gz", n);
}

static void load(void)
{
    size_t bytes;
    char *file = tokenizer_vocabulary(&bytes);
    struct symbol *symbols = mem_alloc(SLOTS * sizeof *symbols);
    struct arena arena = { 0 };
    pairs = mem_alloc(SLOTS * sizeof *pairs);
    for (uint32_t i = 0; i < SLOTS; i++) pairs[i].rank = -1;
    add_bytes(symbols, &arena);
    const char *line = strchr(file, '\n'); /* the first line is a heading */
    for (int32_t rank = 0; rank < N_MERGES; rank++) {
        const char *left = line ? line + 1 : "", *space = strchr(left, ' ');
        line = strchr(left, '\n');
        if (!space || !line || space > line) panic("the vocabulary ends after %d merges", rank);
        const char *right = space + 1;
        size_t nl = (size_t)(space - left), nr = (size_t)(line - right);
        uint32_t l = (uint32_t)id_of(symbols, left, nl), r = (uint32_t)id_of(symbols, right, nr);
        *pair_slot(l << 16 | r) = (struct pair){ l << 16 | r, rank };
        struct str merged = { 0 };
        str_add_bytes(&merged, left, nl);
        str_add_bytes(&merged, right, nr);
        add_symbol(symbols, &arena, merged.data, merged.len, 512 + rank);
        str_finish(&merged);
    }
    arena_finish(&arena);
    mem_free(symbols);
    mem_free(file);
}

/* ---- a word ---------------------------------------------------------------------------------- */

struct ids {
    int32_t *id;
    int n, capacity;
};

static void add_id(struct ids *out, int32_t id)
{
    out->id = array_reserve(out->id, out->n, &out->capacity, sizeof *out->id);
    out->id[out->n++] = id;
}

static int32_t rank_of(int32_t left, int32_t right)
{
    return pair_slot((uint32_t)left << 16 | (uint32_t)right)->rank;
}

/* Merges the pair of lowest rank, everywhere, until no pair has one. Returns the new length. */
static int merge(int32_t *id, int n)
{
    for (;;) {
        int32_t best = N_MERGES, left = 0, right = 0;
        for (int i = 0; i + 1 < n; i++) {
            int32_t rank = rank_of(id[i], id[i + 1]);
            if (rank >= 0 && rank < best) {
                best = rank;
                left = id[i];
                right = id[i + 1];
            }
        }
        if (best == N_MERGES) return n;
        int out = 0;
        for (int i = 0; i < n; i++) {
            bool both = i + 1 < n && id[i] == left && id[i + 1] == right;
            id[out++] = both ? 512 + best : id[i];
            i += both;
        }
        n = out;
    }
}

static void add_word(struct ids *out, const int32_t *c, size_t n)
{
    struct str utf8 = { 0 };
    text_encode(c, n, &utf8);
    int first = out->n;
    for (size_t i = 0; i < utf8.len; i++) add_id(out, id_of_byte[(uint8_t)utf8.data[i]]);
    out->id[out->n - 1] += 256;
    out->n = first + merge(out->id + first, out->n - first);
    str_finish(&utf8);
}

/* ---- words ----------------------------------------------------------------------------------- */

static size_t starts_with(const int32_t *c, size_t n, const char *word)
{
    size_t k = 0;
    for (; word[k]; k++)
        if (k == n || c[k] != (unsigned char)word[k]) return 0;
    return k;
}

static size_t mark_at(const int32_t *c, size_t n, int32_t *id)
{
    size_t bos = starts_with(c, n, "<|startoftext|>"), eos = starts_with(c, n, "<|endoftext|>");
    *id = bos ? BOS : EOS;
    return bos ? bos : eos;
}

static size_t contraction_at(const int32_t *c, size_t n)
{
    static const char *const known[] = { "'s", "'t", "'re", "'ve", "'m", "'ll", "'d" };
    if (n >= 2 && c[0] == '\'' && c[1] == 0x17f) /* long s: the pattern ignores case */
        return 2;
    for (int i = 0; i < COUNT_OF(known); i++)
        if (starts_with(c, n, known[i])) return starts_with(c, n, known[i]);
    return 0;
}

static bool is_other(int32_t c)
{
    return !text_is_space(c) && !text_is_letter(c) && !text_is_number(c);
}

static size_t word_at(const int32_t *c, size_t n)
{
    size_t k = contraction_at(c, n);
    if (k) return k;
    if (text_is_number(c[0])) return 1;
    bool (*same_kind)(int32_t) = text_is_letter(c[0]) ? text_is_letter : is_other;
    while (k < n && same_kind(c[k])) k++;
    return k;
}

static void encode_segment(const int32_t *c, size_t n, enum tokenizer_flavour flavour,
                           struct ids *out)
{
    struct text t = { 0 };
    text_add_text(&t, c, n);
    if (flavour != TOKENIZER_PLAIN) text_clean(&t);
    if (flavour == TOKENIZER_OPENAI) {
        html_unescape(&t);
        html_unescape(&t);
    }
    text_squeeze(&t);
    text_lower(&t);
    for (size_t i = 0; i < t.n;) {
        int32_t id;
        size_t k = mark_at(t.c + i, t.n - i, &id);
        if (k) add_id(out, id);
        else if (text_is_space(t.c[i])) k = 1;
        else add_word(out, t.c + i, k = word_at(t.c + i, t.n - i));
        i += k;
    }
    text_finish(&t);
}

/* Hugging Face cuts the text at its special tokens before it cleans the pieces. */
static void encode_pieces(const struct text *t, enum tokenizer_flavour flavour, struct ids *out)
{
    size_t begin = 0;
    for (size_t i = 0; i < t->n;) {
        int32_t id = 0;
        size_t k = mark_at(t->c + i, t->n - i, &id);
        if (!k && flavour == TOKENIZER_HF_PAD_BANG && t->c[i] == '!') {
            k = 1;
            id = 0;
        }
        if (k) {
            encode_segment(t->c + begin, i - begin, flavour, out);
            add_id(out, id);
            begin = i + k;
        }
        i += k ? k : 1;
    }
    encode_segment(t->c + begin, t->n - begin, flavour, out);
}

int tokenizer_encode(const char *text, size_t bytes, enum tokenizer_flavour flavour, int32_t **out)
{
    *out = NULL;
    if (bytes > TEXT_MAX) {
        fail("a caption of %zu bytes is too long; at most %u are taken", bytes, TEXT_MAX);
        return -1;
    }
    pthread_once(&once, load);
    struct text t = { 0 };
    if (!text_decode(&t, text, bytes)) {
        text_finish(&t);
        return -1;
    }
    struct ids ids = { 0 };
    if (t.n && (flavour == TOKENIZER_HF || flavour == TOKENIZER_HF_PAD_BANG))
        encode_pieces(&t, flavour, &ids);
    else if (t.n) encode_segment(t.c, t.n, flavour, &ids);
    text_finish(&t);
    *out = ids.id ? ids.id : mem_alloc(sizeof(int32_t));
    return ids.n;
}
