/* SPDX-License-Identifier: MIT
 * data.c - images, tokens, dataset sources and plugins for Lua. An image is a
 * tensor u8 (height, width, 3). */
#include <string.h>

#include "data/data.h"
#include "lua/script.h"
#include "plug/plug.h"

static int push_image(lua_State *L, struct image *image)
{
    int64_t dim[3] = { image->height, image->width, 3 };
    struct tensor *t = tensor_push(L, BURIN_U8, 3, dim);
    memcpy(t->own, image->rgb, t->bytes);
    image_finish(image);
    return 1;
}

static struct image check_image(lua_State *L, int index)
{
    struct tensor *t = tensor_check(L, index);
    luaL_argcheck(L,
                  t->dtype == BURIN_U8 && t->rank == 3 && t->dim[2] == 3 && t->dim[0] > 0 &&
                      t->dim[1] > 0 && t->dim[0] < 1 << 16 && t->dim[1] < 1 << 16,
                  index, "an image is a u8 tensor (height, width, 3)");
    return (struct image){ .width = (int)t->dim[1],
                           .height = (int)t->dim[0],
                           .rgb = (uint8_t *)tensor_data(t) };
}

/* core.image_load(path, max_pixels?) -> image */
static int core_image_load(lua_State *L)
{
    struct image image = { 0 };
    const char *path = luaL_checkstring(L, 1);
    uint64_t max = (uint64_t)luaL_optinteger(L, 2, 1 << 28);
    mem_for(path);
    bool ok = image_load(path, max, &image);
    int n = ok ? push_image(L, &image) : 0;
    mem_for(NULL);
    return ok ? n : script_raise(L);
}

static int core_image_size(lua_State *L)
{
    int width, height;
    if (!image_size(luaL_checkstring(L, 1), &width, &height)) return script_raise(L);
    lua_pushinteger(L, width);
    lua_pushinteger(L, height);
    return 2;
}

/* core.image_recipe(path) -> what its pixels depend on beside the file */
static int core_image_recipe(lua_State *L)
{
    char *text = image_recipe(luaL_checkstring(L, 1));
    if (!text) return script_raise(L);
    lua_pushstring(L, text);
    mem_free(text);
    return 1;
}

/* core.image_fit(from width, height, to width, height) -> the size that covers it, left, top of the
 * crop */
static int core_image_fit(lua_State *L)
{
    int side[4];
    for (int i = 0; i < 4; i++) {
        lua_Integer n = luaL_checkinteger(L, i + 1);
        luaL_argcheck(L, n > 0 && n < 1 << 16, i + 1, "a side has 1 to 65535 pixels");
        side[i] = (int)n;
    }
    struct image_fit fit = image_fit(side[0], side[1], side[2], side[3]);
    lua_pushinteger(L, fit.width);
    lua_pushinteger(L, fit.height);
    lua_pushinteger(L, fit.left);
    lua_pushinteger(L, fit.top);
    return 4;
}

/* core.image_cover(image, width, height) -> scaled to cover, cropped around the centre */
static int core_image_cover(lua_State *L)
{
    struct image in = check_image(L, 1), out = { 0 };
    if (!image_cover(&in, (int)luaL_checkinteger(L, 2), (int)luaL_checkinteger(L, 3), &out))
        return script_raise(L);
    return push_image(L, &out);
}

/* core.image_save(path, image, { key, value, ... }?) */
static int core_image_save(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1), *text[33] = { NULL };
    struct image image = check_image(L, 2);
    if (lua_istable(L, 3))
        for (int i = 0; i < 32 && lua_rawgeti(L, 3, i + 1) == LUA_TSTRING; i++)
            text[i] = lua_tostring(L, -1);
    return image_save_png(path, &image, text) ? 0 : script_raise(L);
}

static int check_flavour(lua_State *L, int index)
{
    static const char *const names[] = { "hf", "openai", "plain", "hf_pad_bang", NULL };
    return luaL_checkoption(L, index, "hf", names);
}

/* core.tokenize(text, flavour?) -> { ids } */
static int core_tokenize(lua_State *L)
{
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    int32_t *ids = NULL;
    int n = tokenizer_encode(text, bytes, (enum tokenizer_flavour)check_flavour(L, 2), &ids);
    if (n < 0) return script_raise(L);
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushinteger(L, ids[i]);
        lua_rawseti(L, -2, i + 1);
    }
    mem_free(ids);
    return 1;
}

/* core.merges() -> CLIP's vocabulary: a heading, then one pair of symbols a line */
static int core_merges(lua_State *L)
{
    size_t n;
    char *text = tokenizer_vocabulary(&n);
    lua_pushlstring(L, text, n);
    mem_free(text);
    return 1;
}

/* core.token_chunks(text, flavour, max_tokens, pad, weighted?) -> tensor i32 (chunks,
 * 77); weighted: (word:1.2) and the like are read, and a tensor f32 (chunks, 77) of
 * weights is the second result. */
static int core_token_chunks(lua_State *L)
{
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    enum tokenizer_flavour flavour = (enum tokenizer_flavour)check_flavour(L, 2);
    int max = (int)luaL_optinteger(L, 3, 75);
    int32_t pad = (int32_t)luaL_optinteger(L, 4, 49407);
    bool weighted = lua_toboolean(L, 5);
    luaL_argcheck(L, max >= 75 && max % 75 == 0 && max <= 7500, 3, "75, 150, 225 ... tokens");
    int64_t dim[2] = { max / 75, 77 };
    struct tensor *ids = tensor_push(L, BURIN_I32, 2, dim);
    struct tensor *weights = weighted ? tensor_push(L, BURIN_F32, 2, dim) : NULL;
    bool ok =
        weighted ? tokenizer_chunks_weighted(text, bytes, flavour, max, pad, ids->own, weights->own)
                 : tokenizer_chunks(text, bytes, flavour, max, pad, ids->own);
    return ok ? 1 + weighted : script_raise(L);
}

/* core.token_count(text, flavour, weighted?) -> how many tokens the text has, without marks */
static int core_token_count(lua_State *L)
{
    size_t bytes;
    const char *text = luaL_checklstring(L, 1, &bytes);
    enum tokenizer_flavour flavour = (enum tokenizer_flavour)check_flavour(L, 2);
    int n = tokenizer_count(text, bytes, flavour, lua_toboolean(L, 3));
    if (n < 0) return script_raise(L);
    lua_pushinteger(L, n);
    return 1;
}

static int core_caption_load(lua_State *L)
{
    char *text = caption_load(luaL_checkstring(L, 1));
    if (!text) return script_raise(L);
    lua_pushstring(L, text);
    mem_free(text);
    return 1;
}

static void set_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

static void push_value(lua_State *L, const struct burin_option *o, int index,
                       struct burin_value *out)
{
    out->number = o->fallback;
    out->string = o->fallback_string;
    if (!lua_istable(L, index) || lua_getfield(L, index, o->name) == LUA_TNIL) return;
    if (o->type == BURIN_OPT_STRING) {
        if (lua_type(L, -1) != LUA_TSTRING)
            luaL_error(L, "option %s: a text is expected (%s)", o->name, o->help);
        out->string = lua_tostring(L, -1); /* kept alive by the options table */
        return;
    }
    if (o->type == BURIN_OPT_BOOL && lua_isboolean(L, -1)) out->number = lua_toboolean(L, -1);
    else if (o->type != BURIN_OPT_BOOL && lua_type(L, -1) == LUA_TNUMBER)
        out->number = lua_tonumber(L, -1);
    else
        luaL_error(L, "option %s: a %s is expected (%s)", o->name,
                   o->type == BURIN_OPT_BOOL ? "true or false" : "number", o->help);
    if (o->min < o->max && (out->number < o->min || out->number > o->max))
        luaL_error(L, "option %s: %f is outside %f .. %f (%s)", o->name, out->number, o->min,
                   o->max, o->help);
}

/* Appends to the list of left-out files on top of the stack. */
static void push_skipped(lua_State *L, const char *path, const char *reason, int n)
{
    lua_createtable(L, 0, 2);
    set_string(L, "path", path);
    set_string(L, "reason", reason);
    lua_rawseti(L, -2, n);
}

#define ITEMS_MAX 100000000

/* false: what the source says cannot be. */
static bool push_remarks(lua_State *L, const struct burin_source *s, void *self)
{
    const char *text = NULL;
    lua_newtable(L);
    for (int64_t i = 0; s->remark && PLUG_CALL(s, s->remark(self, i, &text)) == 1; i++) {
        if (!text || i == ITEMS_MAX)
            return plug_lies(s, text ? "its remarks have no end" : "a remark of it is missing");
        lua_pushstring(L, text);
        lua_rawseti(L, -2, (int)i + 1);
        text = NULL;
    }
    return true;
}

/* What a source says of picture i, checked once. */
static bool ask_item(const struct burin_source *s, void *self, int64_t i, struct burin_item *item)
{
    plug_ask();
    if (PLUG_CALL(s, s->item(self, i, item))) return plug_refused(s);
    if (!item->path) return plug_lies(s, "picture %lld has no path", (long long)i);
    return item->repeats >= 1 ||
           plug_lies(s, "%s is to be repeated %d times", item->path, item->repeats);
}

/* core.source(location, options?) -> { { path =, caption =, class_tokens =, repeats = } ...
 * }, { { path =, reason = } ... }, { remarks } */
static int core_source(lua_State *L)
{
    const char *location = luaL_checkstring(L, 1);
    const struct burin_source *s = plug_source_for(location);
    if (!s) return script_raise(L);
    struct burin_value values[32];
    for (int i = 0; s->options && i < 32 && s->options[i].name; i++)
        push_value(L, &s->options[i], 2, &values[i]);
    void *self = NULL;
    plug_ask();
    if (PLUG_CALL(s, s->open(location, values, &self))) {
        plug_refused(s);
        return script_raise(L);
    }
    struct burin_item item;
    int64_t n = PLUG_CALL(s, s->count(self));
    int kept = 0, left_out = 0;
    bool ok = (n >= 0 && n <= ITEMS_MAX) ||
              plug_lies(s, "%s is said to have %lld pictures", location, (long long)n);
    lua_newtable(L);
    lua_newtable(L);
    for (int64_t i = 0; i < n && ok; i++) {
        memset(&item, 0, sizeof item);
        if (!(ok = ask_item(s, self, i, &item))) break;
        bool captioned = item.caption || item.caption_path;
        char *caption = captioned ? caption_of(&item) : NULL;
        if (captioned && !caption) { /* one bad caption costs one picture, not the run */
            push_skipped(L, item.path, burin_error(), ++left_out);
            continue;
        }
        lua_createtable(L, 0, 4);
        set_string(L, "path", item.path);
        set_string(L, "caption", caption);
        set_string(L, "class_tokens", item.class_tokens);
        lua_pushinteger(L, item.repeats);
        lua_setfield(L, -2, "repeats");
        lua_rawseti(L, -3, ++kept);
        mem_free(caption);
    }
    const char *path = NULL, *reason = NULL;
    for (int64_t i = 0; ok && s->skipped && PLUG_CALL(s, s->skipped(self, i, &path, &reason)) == 1;
         i++) {
        ok = (i < ITEMS_MAX || plug_lies(s, "the files that it leaves out have no end")) &&
             ((path && reason) || plug_lies(s, "a file that it leaves out has no path or reason"));
        if (ok) push_skipped(L, path, reason, ++left_out);
        path = reason = NULL;
    }
    ok = ok && push_remarks(L, s, self);
    PLUG_DO(s, s->close(self));
    return ok ? 3 : script_raise(L);
}

static void list_kind(lua_State *L, const char *kind, const char *name, const char *help, int *n)
{
    lua_createtable(L, 0, 3);
    set_string(L, "kind", kind);
    set_string(L, "name", name);
    set_string(L, "help", help);
    lua_rawseti(L, -2, ++*n);
}

/* core.plugins() -> { { name, version, licence, help, path, provides
 * = { { kind, name, help } } } } */
static int core_plugins(lua_State *L)
{
    lua_newtable(L);
    for (int i = 0; i < plug_count(); i++) {
        const struct plug_entry *e = plug_at(i);
        const struct burin_plugin *p = e->plugin;
        int n = 0;
        lua_newtable(L);
        set_string(L, "name", p->name);
        set_string(L, "version", p->version);
        set_string(L, "licence", p->licence);
        set_string(L, "help", p->help);
        set_string(L, "path", e->path);
        lua_newtable(L);
        for (int k = 0; p->loaders && p->loaders[k]; k++)
            list_kind(L, "loader", p->loaders[k]->name, p->loaders[k]->help, &n);
        for (int k = 0; p->exporters && p->exporters[k]; k++)
            list_kind(L, "exporter", p->exporters[k]->name, p->exporters[k]->help, &n);
        for (int k = 0; p->sources && p->sources[k]; k++)
            list_kind(L, "source", p->sources[k]->name, p->sources[k]->help, &n);
        for (int k = 0; p->codecs && p->codecs[k]; k++)
            list_kind(L, "codec", p->codecs[k]->name, p->codecs[k]->help, &n);
        lua_setfield(L, -2, "provides");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* core.plugin_load(path) */
static int core_plugin_load(lua_State *L)
{
    int before = plug_count();
    if (!plug_load(luaL_checkstring(L, 1))) return script_raise(L);
    if (plug_count() > before && plug_at(before)->plugin->codecs)
        image_decoder_stop("a decoder was loaded after the start");
    return 0;
}

void script_open_data(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "image_load", core_image_load },
        { "image_size", core_image_size },
        { "image_recipe", core_image_recipe },
        { "image_fit", core_image_fit },
        { "image_cover", core_image_cover },
        { "image_save", core_image_save },
        { "tokenize", core_tokenize },
        { "merges", core_merges },
        { "token_chunks", core_token_chunks },
        { "token_count", core_token_count },
        { "caption_load", core_caption_load },
        { "source", core_source },
        { "plugins", core_plugins },
        { "plugin_load", core_plugin_load },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
