/* SPDX-License-Identifier: MIT
 * state.c - from the result of a pickle to named tensors and metadata. */
#include "torch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define META_MAX 1000
#define META_BYTES_MAX 4096

/* ---- no value may contain itself ------------------------------------------------------------- */

enum { NEW, ENTERED, DONE };

static bool check_nesting(struct pt_pickle *p, uint32_t value, int depth)
{
    struct pt_value *v = &p->value[value];
    if ((v->kind != PT_TUPLE && v->kind != PT_LIST && v->kind != PT_DICT) || v->colour == DONE)
        return true;
    if (v->colour == ENTERED) return pt_pickle_error(p, "makes a value that contains itself");
    if (depth == PT_DEPTH_MAX)
        return pt_pickle_error(p, "is nested more than %d deep", PT_DEPTH_MAX);
    v->colour = ENTERED;
    uint32_t at = v->items.first;
    for (uint32_t i = 0; i < v->items.n; i++, at = p->link[at].next)
        if (!check_nesting(p, p->link[at].value, depth + 1)) return false;
    v->colour = DONE;
    return true;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* Length of the well-formed UTF-8 character at s, 0 when it is none; table 3-7 of the Unicode
 * Standard. */
static size_t character(const uint8_t *s, size_t room)
{
    static const uint8_t low[4] = { 0xa0, 0x80, 0x90, 0x80 }, high[4] = { 0xbf, 0x9f, 0xbf, 0x8f };
    size_t n = s[0] < 0x80   ? 1
               : s[0] < 0xc2 ? 0
               : s[0] < 0xe0 ? 2
               : s[0] < 0xf0 ? 3
               : s[0] < 0xf5 ? 4
                             : 0;
    if (n > room) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    int special = s[0] == 0xe0 ? 0 : s[0] == 0xed ? 1 : s[0] == 0xf0 ? 2 : s[0] == 0xf4 ? 3 : -1;
    return special >= 0 && (s[1] < low[special] || s[1] > high[special]) ? 0 : n;
}

/* UTF-8 without NUL, which a C string cannot hold, and, in names, without other control characters,
 * which only harm terminals. */
static bool good_text(const struct pt_pickle *p, struct pt_slice s, bool is_name)
{
    const uint8_t *b = p->data + s.at;
    for (size_t i = 0, n; i < s.n; i += n) {
        n = character(b + i, s.n - i);
        if (!n || !b[i] || (is_name && (b[i] < 0x20 || b[i] == 0x7f))) return false;
    }
    return true;
}

static char *text_of(const struct pt_pickle *p, const char *before, struct pt_slice s,
                     const char *after)
{
    size_t n = strlen(before), k = strlen(after);
    char *out = pt_host->alloc(n + s.n + k + 1);
    memcpy(out, before, n);
    memcpy(out + n, p->data + s.at, s.n);
    memcpy(out + n + s.n, after, k);
    return out;
}

/* ---- metadata -------------------------------------------------------------------------------- */

/* Scalars at the top of a checkpoint: epoch, global_step, pytorch-lightning_version... Odd ones are
 * left out. */
static void add_meta(struct pt_state *s, const struct pt_pickle *p, const struct pt_value *key,
                     const struct pt_value *v)
{
    char number[40] = "";
    struct pt_slice text = { 0, 0 };
    switch (v->kind) {
    case PT_BOOL: strcpy(number, v->i ? "true" : "false"); break;
    case PT_INT: snprintf(number, sizeof number, "%lld", (long long)v->i); break;
    case PT_FLOAT: snprintf(number, sizeof number, "%.17g", v->f); break;
    case PT_TEXT: text = v->text; break;
    default: return;
    }
    if (key->kind != PT_TEXT || key->text.n >= PT_NAME_MAX || text.n > META_BYTES_MAX ||
        s->n_meta == META_MAX || !good_text(p, key->text, true) || !good_text(p, text, false))
        return;
    s->meta = pt_grow(s->meta, s->n_meta, &s->meta_room, sizeof *s->meta);
    s->meta[s->n_meta++] =
        (struct pt_pair){ text_of(p, "", key->text, ""), text_of(p, "", text, number) };
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* The prefix below a dictionary whose name cannot be part of a tensor's. */
static const char unnamed[] = "?";

static bool add_tensor(struct pt_state *s, const struct pt_pickle *p, const char *prefix,
                       struct pt_slice key, uint32_t tensor)
{
    const char *shown = pt_show_slice(p, key);
    if (prefix == unnamed)
        return pt_fail("%s: the tensor \"%s\" lies below a dictionary whose name is longer than %d "
                       "bytes, has control characters or is not UTF-8",
                       p->zip->path, shown, PT_NAME_MAX - 2);
    if (strlen(prefix) + key.n >= PT_NAME_MAX)
        return pt_fail("%s: the tensor \"%s%s\" has a name longer than %d bytes", p->zip->path,
                       prefix, shown, PT_NAME_MAX - 1);
    if (!good_text(p, key, true))
        return pt_fail(
            "%s: the tensor \"%s%s\" has a name with control characters or that is not UTF-8",
            p->zip->path, prefix, shown);
    if (s->n_tensors == PT_TENSORS_MAX)
        return pt_fail("%s has more than %d tensors", p->zip->path, PT_TENSORS_MAX);
    s->tensor = pt_grow(s->tensor, s->n_tensors, &s->tensor_room, sizeof *s->tensor);
    s->tensor[s->n_tensors++] = (struct pt_named){ text_of(p, prefix, key, ""), p->tensor[tensor] };
    return true;
}

/* Shared dictionaries are walked wherever they are reached, so the steps are counted. */
static bool walk(struct pt_state *s, const struct pt_pickle *p, const struct pt_value *dict,
                 const char *prefix, uint32_t *steps)
{
    uint32_t at = dict->items.first;
    for (uint32_t i = 0; i < dict->items.n; i += 2, at = p->link[at].next) {
        const struct pt_value *key = &p->value[p->link[at].value];
        at = p->link[at].next;
        const struct pt_value *v = &p->value[p->link[at].value];
        if (++*steps > PT_STEPS_MAX)
            return pt_fail("%s: its dictionaries contain one another in too many ways",
                           p->zip->path);
        if (key->kind != PT_TEXT) continue;
        if (v->kind == PT_TENSOR && !add_tensor(s, p, prefix, key->text, v->tensor)) return false;
        if (v->kind != PT_DICT) continue;
        bool named = prefix != unnamed && strlen(prefix) + key->text.n + 1 < PT_NAME_MAX &&
                     good_text(p, key->text, true);
        char *deeper = named ? text_of(p, prefix, key->text, ".") : NULL;
        bool ok = walk(s, p, v, named ? deeper : unnamed, steps);
        pt_host->free(deeper);
        if (!ok) return false;
    }
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct pt_named *)a)->name, ((const struct pt_named *)b)->name);
}

static bool collect(struct pt_state *s, struct pt_pickle *p)
{
    if (!check_nesting(p, p->root, 0)) return false;
    const struct pt_value *top = &p->value[p->root], *tensors = top;
    if (top->kind != PT_DICT)
        return pt_fail("%s holds no dictionary of named tensors, so it is no checkpoint; save a "
                       "state_dict() in it",
                       p->zip->path);
    uint32_t at = top->items.first, steps = 0;
    for (uint32_t i = 0; i < top->items.n; i += 2, at = p->link[at].next) {
        const struct pt_value *key = &p->value[p->link[at].value];
        at = p->link[at].next;
        const struct pt_value *v = &p->value[p->link[at].value];
        if (v->kind == PT_DICT && pt_text_is(p, key, "state_dict")) tensors = v;
        add_meta(s, p, key, v);
    }
    if (!walk(s, p, tensors, "", &steps)) return false;
    if (s->n_tensors) qsort(s->tensor, s->n_tensors, sizeof *s->tensor, by_name);
    for (uint32_t i = 1; i < s->n_tensors; i++)
        if (strcmp(s->tensor[i - 1].name, s->tensor[i].name) == 0)
            return pt_fail("%s: the tensor \"%s\" is in it twice", p->zip->path,
                           pt_show(s->tensor[i].name));
    return true;
}

bool pt_state_collect(struct pt_state *s, struct pt_pickle *p)
{
    *s = (struct pt_state){ 0 };
    bool ok = collect(s, p);
    if (!ok) pt_state_finish(s);
    return ok;
}

void pt_state_finish(struct pt_state *s)
{
    for (uint32_t i = 0; i < s->n_tensors; i++) pt_host->free(s->tensor[i].name);
    for (uint32_t i = 0; i < s->n_meta; i++) {
        pt_host->free(s->meta[i].key);
        pt_host->free(s->meta[i].value);
    }
    pt_host->free(s->tensor);
    pt_host->free(s->meta);
    *s = (struct pt_state){ 0 };
}
