/* SPDX-License-Identifier: MIT
 * device.c - the device for Lua: opening it, its memory, what the machine could do at best. */
#include "host/peak.h"
#include "lua/script.h"

static burin_device *device; /* one per process; destroyed after the interpreter */

int script_device_finish(void)
{
    burin_info info = { 0 };
    if (device) burin_device_info(device, &info);
    burin_device_destroy(device);
    device = NULL;
    return info.messages;
}

burin_device *script_device(lua_State *L)
{
    if (!device) luaL_error(L, "no device has been opened");
    return device;
}

/* core.open_device{ name =, tier =, validate =, cache = } */
static int core_open_device(lua_State *L)
{
    burin_device_params p = { 0 };
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "name");
    lua_getfield(L, 1, "tier");
    lua_getfield(L, 1, "cache");
    lua_getfield(L, 1, "validate");
    p.name = lua_tostring(L, -4);
    p.tier = lua_tostring(L, -3);
    p.cache = lua_tostring(L, -2);
    p.validate = lua_toboolean(L, -1);
    if (device) return luaL_error(L, "a device is open already");
    device = burin_device_create(&p);
    return device ? 0 : script_raise(L);
}

static void set_text(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

static void set_bytes(lua_State *L, const char *key, uint64_t bytes)
{
    lua_pushinteger(L, (lua_Integer)bytes);
    lua_setfield(L, -2, key);
}

static void set_flag(lua_State *L, const char *key, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, key);
}

/* burin_info without its counts */
static void push_info(lua_State *L, const burin_info *d)
{
    lua_newtable(L);
    set_text(L, "name", d->name);
    set_text(L, "driver", d->driver);
    set_text(L, "uuid", d->uuid);
    set_text(L, "api", d->api);
    set_text(L, "type", d->type);
    set_text(L, "tier", d->tier);
    set_text(L, "engine", d->engine);
    set_bytes(L, "subgroup", d->subgroup);
    set_bytes(L, "cores", d->cores);
    set_bytes(L, "max_range", d->max_range);
    set_bytes(L, "max_shared", d->max_shared);
    set_bytes(L, "heap", d->heap);
    set_bytes(L, "budget", d->budget);
    set_flag(L, "host_visible", d->host_visible);
    set_flag(L, "storage16", d->storage16);
    set_flag(L, "float16", d->float16);
    set_flag(L, "coopmat", d->coopmat);
    set_flag(L, "timestamps", d->timestamps);
}

/* core.device() -> { name, driver, type, tier, ... } of the open device */
static int core_device(lua_State *L)
{
    burin_info info;
    burin_device_info(script_device(L), &info);
    push_info(L, &info);
    return 1;
}

/* core.devices() -> a list of the same in order of preference */
static int core_devices(lua_State *L)
{
    burin_info info[16];
    int n = burin_device_list(info, COUNT_OF(info));
    if (n < 0) return script_raise(L);
    lua_newtable(L);
    for (int i = 0; i < n && i < COUNT_OF(info); i++) {
        push_info(L, &info[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* core.commit(sealed): takes the memory of everything declared so far */
static int core_commit(lua_State *L)
{
    return burin_device_commit(script_device(L), lua_toboolean(L, 1)) ? 0 : script_raise(L);
}

/* core.wait(): until the device has done all that was submitted */
static int core_wait(lua_State *L)
{
    return burin_device_wait(script_device(L)) ? 0 : script_raise(L);
}

void script_push_memory(lua_State *L, const burin_memory *m)
{
    static const char *const roles[] = { NULL, "weights", "params", "grads", "state", "inputs" };
    lua_newtable(L);
    for (int i = BURIN_ROLE_WEIGHT; i < BURIN_ROLE_COUNT; i++) set_bytes(L, roles[i], m->role[i]);
    set_bytes(L, "activations", m->activations);
    set_bytes(L, "workspace", m->workspace);
    set_bytes(L, "arena", m->arena);
    set_bytes(L, "total", m->total);
}

/* core.planned_memory() -> bytes by role, activations, workspace, arena,
 * total: all that core.commit takes */
static int core_planned_memory(lua_State *L)
{
    burin_memory m;
    burin_device_memory(script_device(L), &m);
    script_push_memory(L, &m);
    return 1;
}

/* core.allocated_memory() -> bytes that the device holds now, allocations so far */
static int core_allocated_memory(lua_State *L)
{
    burin_info info;
    burin_device_info(script_device(L), &info);
    lua_pushinteger(L, (lua_Integer)info.allocated);
    lua_pushinteger(L, info.allocations);
    return 2;
}

/* core.cpu_peak() -> { flops, bandwidth, available, cores, kind } of
 * host/peak.h; takes about half a second */
static int core_cpu_peak(lua_State *L)
{
    struct peak p;
    peak_measure(&p);
    lua_newtable(L);
    lua_pushnumber(L, p.flops);
    lua_setfield(L, -2, "flops");
    lua_pushnumber(L, p.bandwidth);
    lua_setfield(L, -2, "bandwidth");
    lua_pushnumber(L, p.available);
    lua_setfield(L, -2, "available");
    lua_pushinteger(L, p.cores);
    lua_setfield(L, -2, "cores");
    set_text(L, "kind", p.kind);
    return 1;
}

void script_open_device(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "open_device", core_open_device },
        { "device", core_device },
        { "devices", core_devices },
        { "commit", core_commit },
        { "wait", core_wait },
        { "planned_memory", core_planned_memory },
        { "allocated_memory", core_allocated_memory },
        { "cpu_peak", core_cpu_peak },
        { NULL, NULL },
    };
    luaL_setfuncs(L, functions, 0);
}
