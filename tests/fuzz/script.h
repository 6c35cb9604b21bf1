/* SPDX-License-Identifier: MIT
 * script.h - a target that is a Lua file, FUZZ_LUA: it returns a function that takes the bytes, and
 * raises what is a finding. */
#ifndef BURIN_FUZZ_SCRIPT_H
#define BURIN_FUZZ_SCRIPT_H

#include "lua/script.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static lua_State *state;

static void finish(void) { lua_close(state); }

/* libFuzzer sees no branches in Lua: lines that run count instead. */
#ifdef FUZZ_COUNTERS
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t lines[1 << 13];

static void count(lua_State *L, lua_Debug *d)
{
    lua_getinfo(L, "Sl", d);
    lines[((uintptr_t)d->source / 16 * 31 + (uintptr_t)d->currentline) % sizeof lines]++;
}
#endif

static void stop(void)
{
    fprintf(stderr, "%s\n", luaL_tolstring(state, -1, NULL));
    abort();
}

static void start(void)
{
    state = script_new_state();
    atexit(finish);
    script_open_library(state);
    if (luaL_dofile(state, FUZZ_LUA)) stop();
#ifdef FUZZ_COUNTERS
    lua_sethook(state, count, LUA_MASKLINE, 0);
#endif
}

static void run_script(const uint8_t *data, size_t n)
{
    if (!state) start();
    lua_pushvalue(state, -1);
    lua_pushlstring(state, (const char *)data, n);
    if (lua_pcall(state, 1, 0, 0)) stop();
}

#endif
