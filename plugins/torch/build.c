/* SPDX-License-Identifier: MIT
 * build.c - what the calls of a pickle may build: storages, views of storages, dictionaries. A
 * "call" looks up its name in the table below and checks its arguments; nothing is ever run. */
#include "torch.h"

#include <string.h>

enum what {
    STORAGE,
    DTYPE, /* not callable: arguments of others */
    ORDERED_DICT,
    TENSOR_V2,
    TENSOR_V3,
    PARAMETER,
    HARMLESS, /* numbers of numpy and the like; the result is never looked at */
};

/* clang-format off */
#define RAW { NULL, 0, 1 }
/* clang-format on */

/* torch/_utils.py, torch/storage.py, torch/serialization.py. The harmless names are those that
 * occur in published Stable Diffusion checkpoints, as listed by AUTOMATIC1111's modules/safe.py. */
static const struct row {
    const char *module, *name;
    enum what what;
    struct pt_dtype dtype;
} rows[] = {
    { "torch", "FloatStorage", STORAGE, { "float32", BURIN_T_F32, 4 } },
    { "torch", "HalfStorage", STORAGE, { "float16", BURIN_T_F16, 2 } },
    { "torch", "BFloat16Storage", STORAGE, { "bfloat16", BURIN_T_BF16, 2 } },
    { "torch", "DoubleStorage", STORAGE, { "float64", BURIN_T_F64, 8 } },
    { "torch", "LongStorage", STORAGE, { "int64", BURIN_T_I64, 8 } },
    { "torch", "IntStorage", STORAGE, { "int32", BURIN_T_I32, 4 } },
    { "torch", "ShortStorage", STORAGE, { "int16", BURIN_T_I16, 2 } },
    { "torch", "CharStorage", STORAGE, { "int8", BURIN_T_I8, 1 } },
    { "torch", "ByteStorage", STORAGE, { "uint8", BURIN_T_U8, 1 } },
    { "torch", "BoolStorage", STORAGE, { "bool", BURIN_T_BOOL, 1 } },
    { "torch.storage", "UntypedStorage", STORAGE, RAW }, /* typed by the tensor, version 3 */
    { "torch", "UntypedStorage", STORAGE, RAW },
    { "torch", "float8_e4m3fn", DTYPE, { "float8_e4m3fn", BURIN_T_F8_E4M3, 1 } },
    { "torch", "float8_e5m2", DTYPE, { "float8_e5m2", BURIN_T_F8_E5M2, 1 } },
    { "torch", "uint16", DTYPE, { "uint16", BURIN_T_U16, 2 } },
    { "torch", "uint32", DTYPE, { "uint32", BURIN_T_U32, 4 } },
    { "torch", "uint64", DTYPE, { "uint64", BURIN_T_U64, 8 } },
    { "collections", "OrderedDict", ORDERED_DICT, RAW },
    { "torch._utils", "_rebuild_tensor_v2", TENSOR_V2, RAW },
    { "torch._utils", "_rebuild_tensor_v3", TENSOR_V3, RAW },
    { "torch._utils", "_rebuild_parameter", PARAMETER, RAW },
    { "torch", "Size", HARMLESS, RAW },
    { "torch", "device", HARMLESS, RAW },
    { "numpy.core.multiarray", "scalar", HARMLESS, RAW },
    { "numpy.core.multiarray", "_reconstruct", HARMLESS, RAW },
    { "numpy._core.multiarray", "scalar", HARMLESS, RAW },
    { "numpy._core.multiarray", "_reconstruct", HARMLESS, RAW },
    { "numpy", "dtype", HARMLESS, RAW },
    { "_codecs", "encode", HARMLESS, RAW },
    { "__builtin__", "set", HARMLESS, RAW },
    { "builtins", "set", HARMLESS, RAW },
};

static bool slice_is(const struct pt_pickle *p, struct pt_slice s, const char *text)
{
    return s.n == strlen(text) && memcmp(p->data + s.at, text, s.n) == 0;
}

int pt_global_find(const struct pt_pickle *p, struct pt_slice module, struct pt_slice name)
{
    for (int i = 0; i < (int)(sizeof rows / sizeof *rows); i++)
        if (slice_is(p, name, rows[i].name) && slice_is(p, module, rows[i].module)) return i;
    return -1;
}

/* The row of a global of this kind, else NULL. */
static const struct row *row_of(const struct pt_value *v, enum what what)
{
    return v->kind == PT_GLOBAL && v->row >= 0 && rows[v->row].what == what ? &rows[v->row] : NULL;
}

/* At most `max` items; returns how many there are (more: max + 1). */
static uint32_t unpack(const struct pt_pickle *p, const struct pt_value *tuple, uint32_t max,
                       const struct pt_value **out)
{
    if (tuple->items.n > max) return max + 1;
    uint32_t at = tuple->items.first;
    for (uint32_t i = 0; i < tuple->items.n; i++, at = p->link[at].next)
        out[i] = &p->value[p->link[at].value];
    return tuple->items.n;
}

/* ---- storages -------------------------------------------------------------------------------- */

/* ("storage", type, key, location, number of elements) */
bool pt_storage(struct pt_pickle *p, uint32_t id, uint32_t *result)
{
    const struct pt_value *item[5], *tuple = &p->value[id];
    char name[PT_NAME_MAX];
    if (tuple->kind != PT_TUPLE || unpack(p, tuple, 5, item) != 5 ||
        !pt_text_is(p, item[0], "storage") || item[2]->kind != PT_TEXT ||
        item[3]->kind != PT_TEXT || item[4]->kind != PT_INT)
        return pt_pickle_error(p, "describes a storage in an unknown way");
    const struct row *type = row_of(item[1], STORAGE);
    if (!type && item[1]->kind == PT_GLOBAL)
        return pt_fail("%s: a storage in it has the type %s.%s, which is not supported",
                       p->zip->path, pt_show_slice(p, item[1]->global.module),
                       pt_show_slice(p, item[1]->global.name));
    if (!type) return pt_pickle_error(p, "describes a storage in an unknown way");
    struct pt_slice key = item[2]->text;
    size_t folder = strlen(p->folder);
    if (key.n > 64 || folder + 5 + key.n >= sizeof name || memchr(p->data + key.at, 0, key.n))
        return pt_pickle_error(p, "gives a storage an impossible name");
    strcpy(name, p->folder);
    strcpy(name + folder, "data/");
    memcpy(name + folder + 5, p->data + key.at, key.n);
    name[folder + 5 + key.n] = 0;
    const struct pt_entry *e = pt_zip_find(p->zip, name);
    if (!e)
        return pt_fail(
            "%s: its entry \"%s\" with the bytes of a tensor is missing; download the file again",
            p->zip->path, pt_show(name));
    int64_t n = item[4]->i;
    uint64_t bytes;
    if (n < 0 || __builtin_mul_overflow((uint64_t)n, (uint64_t)type->dtype.bytes, &bytes) ||
        bytes != e->bytes)
        return pt_fail("%s: its entry \"%s\" has %llu bytes, which are not the %lld elements of %s "
                       "that its data.pkl promises; the file is damaged or forged",
                       p->zip->path, pt_show(name), (unsigned long long)e->bytes, (long long)n,
                       type->name);
    struct pt_value *v = pt_value_new(p, PT_STORAGE);
    v->row = (int16_t)(type - rows);
    v->entry = (uint32_t)(e - p->zip->entry);
    *result = p->n_values - 1;
    return true;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static bool view_error(const struct pt_pickle *p, const char *what)
{
    return pt_pickle_error(p, "describes a tensor whose %s", what);
}

/* The elements of a view must be different ones: sorted by stride, each dimension steps over all
 * that the ones before it reach. `reach` becomes 1 + the index of the last element, counted from
 * the first. */
static bool view_reach(const struct pt_tensor *t, uint64_t *reach)
{
    int order[BURIN_PLUGIN_RANK], n = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] < 2) continue;
        int k = n++;
        for (; k > 0 && t->stride[order[k - 1]] > t->stride[i]; k--) order[k] = order[k - 1];
        order[k] = i;
    }
    *reach = 1;
    for (int k = 0; k < n; k++) {
        uint64_t stride = (uint64_t)t->stride[order[k]], span;
        if (stride < *reach ||
            __builtin_mul_overflow(stride, (uint64_t)t->dim[order[k]] - 1, &span) ||
            __builtin_add_overflow(*reach, span, reach))
            return false;
    }
    return true;
}

static bool row_major(const struct pt_tensor *t)
{
    int64_t expected = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->dim[i] != 1 && t->stride[i] != expected) return false;
        expected *= t->dim[i];
    }
    return true;
}

/* Shape, strides and offset (in elements) against the storage. */
static bool check_view(const struct pt_pickle *p, struct pt_tensor *t, int64_t offset)
{
    uint64_t size = t->dtype->bytes, room = p->zip->entry[t->entry].bytes / size, reach;
    bool empty = false;
    /* The product without its zeros must fit too: code behind us may multiply in another order. */
    t->bytes = size;
    for (int i = 0; i < t->rank; i++) {
        if (t->dim[i] < 0 || t->stride[i] < 0)
            return view_error(p, "sizes or strides are negative");
        empty = empty || t->dim[i] == 0;
        if (t->dim[i] && (__builtin_mul_overflow(t->bytes, (uint64_t)t->dim[i], &t->bytes) ||
                          t->bytes > INT64_MAX))
            return view_error(p, "size is impossible");
    }
    if (offset < 0 || (uint64_t)offset > room)
        return view_error(p, "first element lies outside of its storage");
    t->offset = (uint64_t)offset * size;
    t->dense = empty || row_major(t);
    if (empty) {
        t->bytes = 0;
        return true;
    }
    if (!view_reach(t, &reach))
        return pt_fail("%s: a tensor in it is expanded, that is, its elements share memory "
                       "(data.pkl, byte %u); save its .clone() instead",
                       p->zip->path, p->at);
    if (reach > room - (uint64_t)offset)
        return view_error(p, "elements lie outside of its storage");
    t->extent = reach * size;
    return true;
}

static bool read_sizes(const struct pt_pickle *p, const struct pt_value *tuple, int rank,
                       int64_t *out)
{
    const struct pt_value *item[BURIN_PLUGIN_RANK] = { NULL };
    if (unpack(p, tuple, BURIN_PLUGIN_RANK, item) != (uint32_t)rank)
        return view_error(p, "sizes and strides differ in number");
    for (int i = 0; i < rank; i++) {
        if (item[i]->kind != PT_INT) return view_error(p, "sizes or strides are no integers");
        out[i] = item[i]->i;
    }
    return true;
}

/* (storage, offset, size, stride, requires_grad, backward_hooks[, dtype][, metadata]) */
static bool make_tensor(struct pt_pickle *p, const struct pt_value *arguments, bool typed,
                        uint32_t *result)
{
    const struct pt_value *item[8], none = { .kind = PT_NIL };
    uint32_t n = unpack(p, arguments, 8, item), usual = typed ? 7 : 6;
    const struct pt_value *metadata = n == usual + 1 ? item[usual] : &none;
    if ((n != usual && n != usual + 1) || item[0]->kind != PT_STORAGE || item[1]->kind != PT_INT ||
        item[2]->kind != PT_TUPLE || item[3]->kind != PT_TUPLE || item[4]->kind != PT_BOOL ||
        item[5]->kind != PT_DICT)
        return view_error(p, "arguments have the wrong types");
    if (metadata->kind != PT_NIL && (metadata->kind != PT_DICT || metadata->items.n))
        return pt_fail("%s: a tensor in it is a negated or conjugated view (data.pkl, byte %u), "
                       "which is not supported; save its .resolve_neg().resolve_conj() instead",
                       p->zip->path, p->at);
    const struct row *type = typed ? row_of(item[6], DTYPE) : &rows[item[0]->row];
    if (!type && item[6]->kind == PT_GLOBAL)
        return pt_fail("%s: a tensor in it has the type %s.%s, which is not supported",
                       p->zip->path, pt_show_slice(p, item[6]->global.module),
                       pt_show_slice(p, item[6]->global.name));
    if (!type || !type->dtype.name || (typed && rows[item[0]->row].dtype.name))
        return view_error(p, "storage has the wrong type");
    if (item[2]->items.n > BURIN_PLUGIN_RANK)
        return pt_fail("%s: a tensor in it has %u dimensions; 8 are supported", p->zip->path,
                       item[2]->items.n);
    if (p->n_tensors == PT_TENSORS_MAX)
        return pt_fail("%s has more than %d tensors", p->zip->path, PT_TENSORS_MAX);
    struct pt_tensor t = { .dtype = &type->dtype,
                           .entry = item[0]->entry,
                           .rank = (int)item[2]->items.n };
    if (!read_sizes(p, item[2], t.rank, t.dim) || !read_sizes(p, item[3], t.rank, t.stride) ||
        !check_view(p, &t, item[1]->i))
        return false;
    p->tensor = pt_grow(p->tensor, p->n_tensors, &p->tensor_room, sizeof *p->tensor);
    p->tensor[p->n_tensors] = t;
    pt_value_new(p, PT_TENSOR)->tensor = p->n_tensors++;
    *result = p->n_values - 1;
    return true;
}

/* (tensor, requires_grad, backward_hooks) -> tensor */
static bool make_parameter(struct pt_pickle *p, const struct pt_value *arguments, uint32_t *result)
{
    const struct pt_value *item[3];
    if (unpack(p, arguments, 3, item) != 3 || item[0]->kind != PT_TENSOR ||
        item[1]->kind != PT_BOOL || item[2]->kind != PT_DICT)
        return pt_pickle_error(p, "describes a parameter whose arguments have the wrong types");
    *result = (uint32_t)(item[0] - p->value);
    return true;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static bool refuse(const struct pt_pickle *p, const struct pt_value *callable)
{
    return pt_fail(
        "%s is a program: it wants to call \"%s.%s\", which no file of tensors needs; nothing of "
        "it was run. If you trust the file, save its state_dict() alone with torch.save, or as "
        ".safetensors",
        p->zip->path, pt_show_slice(p, callable->global.module),
        pt_show_slice(p, callable->global.name));
}

bool pt_refuse_class(struct pt_pickle *p, uint32_t class)
{
    const struct pt_value *v = &p->value[class];
    return v->kind == PT_GLOBAL ? refuse(p, v)
                                : pt_pickle_error(p, "calls something that is no function");
}

bool pt_call(struct pt_pickle *p, uint32_t callable, uint32_t arguments, uint32_t *result)
{
    const struct pt_value *f = &p->value[callable], *a = &p->value[arguments];
    if (f->kind != PT_GLOBAL) return pt_pickle_error(p, "calls something that is no function");
    if (f->row < 0) return refuse(p, f);
    if (a->kind != PT_TUPLE)
        return pt_pickle_error(p, "calls %s with something that is no tuple", rows[f->row].name);
    switch (rows[f->row].what) {
    case TENSOR_V2: return make_tensor(p, a, false, result);
    case TENSOR_V3: return make_tensor(p, a, true, result);
    case PARAMETER: return make_parameter(p, a, result);
    case ORDERED_DICT:
        if (a->items.n) return pt_pickle_error(p, "fills a dictionary in an unknown way");
        pt_value_new(p, PT_DICT);
        break;
    case HARMLESS: pt_value_new(p, PT_INERT); break;
    default: return pt_pickle_error(p, "calls %s, which is no function", rows[f->row].name);
    }
    *result = p->n_values - 1;
    return true;
}

/* Attributes of an OrderedDict (a state_dict has _metadata) and the contents of harmless objects:
 * left out. */
bool pt_set_state(struct pt_pickle *p, uint32_t object, uint32_t state)
{
    const struct pt_value *v = &p->value[object];
    if (v->kind == PT_INERT || (v->kind == PT_DICT && p->value[state].kind == PT_DICT)) return true;
    return v->kind == PT_GLOBAL ? refuse(p, v)
                                : pt_pickle_error(p, "sets attributes of something that has none");
}
