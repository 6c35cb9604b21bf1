/* SPDX-License-Identifier: MIT
 * pickle.c - the machine that walks a pickle. It knows the opcodes that torch.save emits in
 * protocols 2 to 5 and nothing else, checks the type of every operand, and makes no more values
 * than the pickle has opcodes. Opcodes: Lib/pickletools.py of CPython. */
#include "torch.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MARKS_MAX 1000

enum opcode {
    MARK = '(',
    EMPTY_TUPLE = ')',
    STOP = '.',
    BINFLOAT = 'G',
    BININT = 'J',
    BININT1 = 'K',
    BININT2 = 'M',
    NONE = 'N',
    BINPERSID = 'Q',
    REDUCE = 'R',
    BINUNICODE = 'X',
    EMPTY_LIST = ']',
    APPEND = 'a',
    BUILD = 'b',
    GLOBAL = 'c',
    APPENDS = 'e',
    BINGET = 'h',
    LONG_BINGET = 'j',
    BINPUT = 'q',
    LONG_BINPUT = 'r',
    SETITEM = 's',
    TUPLE = 't',
    SETITEMS = 'u',
    EMPTY_DICT = '}',
    PROTO = 0x80,
    NEWOBJ,
    TUPLE1 = 0x85,
    TUPLE2,
    TUPLE3,
    NEWTRUE,
    NEWFALSE,
    LONG1,
    SHORT_BINUNICODE = 0x8c,
    BINUNICODE8,
    STACK_GLOBAL = 0x93,
    MEMOIZE,
    FRAME,
};

bool pt_pickle_error(const struct pt_pickle *p, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return pt_fail(
        "%s: its data.pkl %s, at byte %u; the file is damaged or was not written by torch.save",
        p->zip->path, text, p->at);
}

const char *pt_show_slice(const struct pt_pickle *p, struct pt_slice s)
{
    return pt_show_n((const char *)p->data + s.at, s.n);
}

bool pt_text_is(const struct pt_pickle *p, const struct pt_value *v, const char *text)
{
    return v->kind == PT_TEXT && v->text.n == strlen(text) &&
           memcmp(p->data + v->text.at, text, v->text.n) == 0;
}

/* ---- values, stack, memo --------------------------------------------------------------------- */

struct pt_value *pt_value_new(struct pt_pickle *p, enum pt_kind kind)
{
    p->value = pt_grow(p->value, p->n_values, &p->value_room, sizeof *p->value);
    struct pt_value *v = &p->value[p->n_values++];
    *v = (struct pt_value){ .kind = (uint8_t)kind, .row = -1 };
    return v;
}

static bool push(struct pt_pickle *p, uint32_t value)
{
    p->stack = pt_grow(p->stack, p->n_stack, &p->stack_room, sizeof *p->stack);
    p->stack[p->n_stack++] = value;
    return true;
}

/* A new value on the stack. */
static struct pt_value *make(struct pt_pickle *p, enum pt_kind kind)
{
    push(p, p->n_values);
    return pt_value_new(p, kind);
}

static bool make_int(struct pt_pickle *p, enum pt_kind kind, int64_t i)
{
    make(p, kind)->i = i;
    return true;
}

/* At least n values above the last mark? */
static bool need(const struct pt_pickle *p, uint32_t n)
{
    uint32_t floor = p->n_marks ? p->mark[p->n_marks - 1] : 0;
    return p->n_stack - floor >= n || pt_pickle_error(p, "takes a value from an empty stack");
}

/* n bytes that follow the opcode; NULL after an error. */
static const uint8_t *take(struct pt_pickle *p, uint64_t n)
{
    if (n > p->n - p->next) {
        pt_pickle_error(p, "is cut off");
        return NULL;
    }
    p->next += (uint32_t)n;
    return p->data + p->next - n;
}

/* A little-endian integer of n <= 8 bytes. */
static bool take_uint(struct pt_pickle *p, int n, uint64_t *out)
{
    const uint8_t *b = take(p, (uint64_t)n);
    *out = 0;
    while (b && n-- > 0) *out = *out << 8 | b[n];
    return b != NULL;
}

/* A writer numbers its memo from 0 on, so an index beyond the opcodes so far is a lie. */
static bool remember(struct pt_pickle *p, uint64_t index)
{
    if (!need(p, 1)) return false;
    if (index >= p->steps)
        return pt_pickle_error(p, "remembers a value under the number %llu, which is too large",
                               (unsigned long long)index);
    while (index >= p->memo_room)
        p->memo = pt_grow(p->memo, p->memo_room, &p->memo_room, sizeof *p->memo);
    p->memo[index] = p->stack[p->n_stack - 1] + 1; /* 0 is "not set" */
    if (index >= p->n_memo) p->n_memo = (uint32_t)index + 1;
    return true;
}

static bool recall(struct pt_pickle *p, uint64_t index)
{
    if (index >= p->n_memo || !p->memo[index])
        return pt_pickle_error(p, "recalls the value %llu, which it never remembered",
                               (unsigned long long)index);
    return push(p, p->memo[index] - 1);
}

/* ---- containers ------------------------------------------------------------------------------ */

static void add_item(struct pt_pickle *p, uint32_t container, uint32_t item)
{
    p->link = pt_grow(p->link, p->n_links, &p->link_room, sizeof *p->link);
    p->link[p->n_links] = (struct pt_link){ item, PT_NO_LINK };
    struct pt_items *items = &p->value[container].items;
    if (items->n++) p->link[items->last].next = p->n_links;
    else items->first = p->n_links;
    items->last = p->n_links++;
}

/* Stack entries from `first` on become a tuple. */
static bool make_tuple(struct pt_pickle *p, uint32_t first)
{
    uint32_t tuple = p->n_values;
    pt_value_new(p, PT_TUPLE);
    for (uint32_t i = first; i < p->n_stack; i++) add_item(p, tuple, p->stack[i]);
    p->n_stack = first;
    return push(p, tuple);
}

/* Stack entries from `first` on go into the container of this kind below them. */
static bool fill(struct pt_pickle *p, uint32_t first, enum pt_kind kind)
{
    uint32_t floor = p->n_marks ? p->mark[p->n_marks - 1] : 0;
    if (first <= floor) return pt_pickle_error(p, "takes a value from an empty stack");
    uint32_t container = p->stack[first - 1];
    if (p->value[container].kind != kind)
        return pt_pickle_error(p, "puts items into something that is no %s",
                               kind == PT_LIST ? "list" : "dictionary");
    if (kind == PT_DICT && (p->n_stack - first) % 2)
        return pt_pickle_error(p, "gives a dictionary a key without a value");
    for (uint32_t i = first; i < p->n_stack; i++) add_item(p, container, p->stack[i]);
    p->n_stack = first;
    return true;
}

/* ---- opcodes --------------------------------------------------------------------------------- */

static bool do_text(struct pt_pickle *p, int length_bytes)
{
    uint64_t n;
    const uint8_t *s = take_uint(p, length_bytes, &n) ? take(p, n) : NULL;
    if (!s) return false;
    make(p, PT_TEXT)->text = (struct pt_slice){ (uint32_t)(s - p->data), (uint32_t)n };
    return true;
}

static bool take_line(struct pt_pickle *p, struct pt_slice *out)
{
    const uint8_t *s = p->data + p->next, *end = memchr(s, '\n', p->n - p->next);
    if (!end) return pt_pickle_error(p, "is cut off");
    *out = (struct pt_slice){ p->next, (uint32_t)(end - s) };
    p->next += out->n + 1;
    return true;
}

/* A name of something in a Python module. Naming it does nothing; see pt_call. */
static bool make_global(struct pt_pickle *p, struct pt_slice module, struct pt_slice name)
{
    struct pt_value *v = make(p, PT_GLOBAL);
    v->global.module = module;
    v->global.name = name;
    v->row = (int16_t)pt_global_find(p, module, name);
    return true;
}

static bool do_global(struct pt_pickle *p, bool from_stack)
{
    struct pt_slice module, name;
    if (!from_stack)
        return take_line(p, &module) && take_line(p, &name) && make_global(p, module, name);
    if (!need(p, 2)) return false;
    const struct pt_value *m = &p->value[p->stack[p->n_stack - 2]],
                          *n = &p->value[p->stack[p->n_stack - 1]];
    if (m->kind != PT_TEXT || n->kind != PT_TEXT)
        return pt_pickle_error(p, "names a global by something that is no text");
    p->n_stack -= 2;
    return make_global(p, m->text, n->text);
}

static bool do_long(struct pt_pickle *p)
{
    uint64_t n, v;
    if (!take_uint(p, 1, &n)) return false;
    if (n > 8)
        return pt_pickle_error(p, "has an integer of %llu bytes; 8 are supported",
                               (unsigned long long)n);
    if (!take_uint(p, (int)n, &v)) return false;
    unsigned unused = 64 - 8 * (unsigned)n;
    return make_int(p, PT_INT, n ? (int64_t)(v << unused) >> unused : 0);
}

static bool do_float(struct pt_pickle *p)
{
    const uint8_t *b = take(p, 8);
    uint64_t bits = 0;
    double f;
    if (!b) return false;
    for (int i = 0; i < 8; i++) bits = bits << 8 | b[i];
    memcpy(&f, &bits, sizeof f);
    make(p, PT_FLOAT)->f = f;
    return true;
}

/* Two operands and, but for BUILD, a result in their place. */
static bool do_call(struct pt_pickle *p, uint8_t op)
{
    if (!need(p, op == BINPERSID ? 1 : 2)) return false;
    uint32_t top = p->stack[--p->n_stack], result;
    if (op == BINPERSID) return pt_storage(p, top, &result) && push(p, result);
    uint32_t below = p->stack[p->n_stack - 1];
    if (op == BUILD) return pt_set_state(p, below, top);
    p->n_stack--;
    return op == REDUCE ? pt_call(p, below, top, &result) && push(p, result)
                        : pt_refuse_class(p, below);
}

static bool do_marked(struct pt_pickle *p, uint8_t op)
{
    if (!p->n_marks) return pt_pickle_error(p, "lacks a mark");
    uint32_t first = p->mark[--p->n_marks];
    return op == TUPLE ? make_tuple(p, first) : fill(p, first, op == APPENDS ? PT_LIST : PT_DICT);
}

static bool do_memo(struct pt_pickle *p, uint8_t op)
{
    uint64_t index = p->n_memo;
    int bytes = op == MEMOIZE ? 0 : op == BINGET || op == BINPUT ? 1 : 4;
    if (bytes && !take_uint(p, bytes, &index)) return false;
    return op == BINGET || op == LONG_BINGET ? recall(p, index) : remember(p, index);
}

static bool do_mark(struct pt_pickle *p)
{
    if (p->n_marks == MARKS_MAX) return pt_pickle_error(p, "is nested too deeply");
    p->mark = pt_grow(p->mark, p->n_marks, &p->mark_room, sizeof *p->mark);
    p->mark[p->n_marks++] = p->n_stack;
    return true;
}

static bool step(struct pt_pickle *p, uint8_t op)
{
    uint64_t v;
    switch (op) {
    case MARK: return do_mark(p);
    case NONE: return make_int(p, PT_NIL, 0);
    case NEWTRUE:
    case NEWFALSE: return make_int(p, PT_BOOL, op == NEWTRUE);
    case BININT: return take_uint(p, 4, &v) && make_int(p, PT_INT, (int32_t)(uint32_t)v);
    case BININT1: return take_uint(p, 1, &v) && make_int(p, PT_INT, (int64_t)v);
    case BININT2: return take_uint(p, 2, &v) && make_int(p, PT_INT, (int64_t)v);
    case LONG1: return do_long(p);
    case BINFLOAT: return do_float(p);
    case SHORT_BINUNICODE: return do_text(p, 1);
    case BINUNICODE: return do_text(p, 4);
    case BINUNICODE8: return do_text(p, 8);
    case EMPTY_TUPLE: return make_tuple(p, p->n_stack);
    case TUPLE1:
    case TUPLE2:
    case TUPLE3: {
        uint32_t n = op - TUPLE1 + 1u;
        return need(p, n) && make_tuple(p, p->n_stack - n);
    }
    case EMPTY_LIST: return make(p, PT_LIST) != NULL;
    case EMPTY_DICT: return make(p, PT_DICT) != NULL;
    case APPEND: return need(p, 2) && fill(p, p->n_stack - 1, PT_LIST);
    case SETITEM: return need(p, 3) && fill(p, p->n_stack - 2, PT_DICT);
    case TUPLE:
    case APPENDS:
    case SETITEMS: return do_marked(p, op);
    case BINGET:
    case LONG_BINGET:
    case BINPUT:
    case LONG_BINPUT:
    case MEMOIZE: return do_memo(p, op);
    case GLOBAL:
    case STACK_GLOBAL: return do_global(p, op == STACK_GLOBAL);
    case BINPERSID:
    case REDUCE:
    case BUILD:
    case NEWOBJ: return do_call(p, op);
    case FRAME: /* a hint for readers that buffer */
        return take_uint(p, 8, &v) && (v <= p->n - p->next || pt_pickle_error(p, "is cut off"));
    default: return pt_pickle_error(p, "has the opcode 0x%02x, which torch.save does not use", op);
    }
}

static bool run(struct pt_pickle *p)
{
    if (p->n < 2 || p->data[0] != PROTO)
        return pt_pickle_error(p, "does not begin as a pickle of protocol 2 or newer");
    if (p->data[1] < 2 || p->data[1] > 5)
        return pt_pickle_error(p, "is a pickle of protocol %u; 2 to 5 are supported", p->data[1]);
    for (p->next = 2;;) {
        p->at = p->next;
        if (p->at == p->n) return pt_pickle_error(p, "is cut off");
        if (p->steps++ == PT_STEPS_MAX)
            return pt_pickle_error(p, "has more than %u opcodes", PT_STEPS_MAX);
        uint8_t op = p->data[p->next++];
        if (op == STOP) /* what follows is no part of it */
            break;
        if (!step(p, op)) return false;
    }
    if (p->n_stack != 1 || p->n_marks)
        return pt_pickle_error(p, "ends with %u values instead of one", p->n_stack);
    p->root = p->stack[0];
    return true;
}

bool pt_pickle_run(struct pt_pickle *p, const struct pt_zip *z, const char *folder,
                   const uint8_t *data, uint32_t n)
{
    *p = (struct pt_pickle){ .zip = z, .folder = folder, .data = data, .n = n };
    bool ok = run(p);
    if (!ok) pt_pickle_finish(p);
    return ok;
}

void pt_pickle_finish(struct pt_pickle *p)
{
    pt_host->free(p->value);
    pt_host->free(p->link);
    pt_host->free(p->tensor);
    pt_host->free(p->stack);
    pt_host->free(p->mark);
    pt_host->free(p->memo);
    *p = (struct pt_pickle){ 0 };
}
