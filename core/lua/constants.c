/* SPDX-License-Identifier: MIT
 * constants.c - core.constants: the numbers of the headers that C and GLSL share, for the library.
 * They have the headers' names, so that one search finds every reader. */
#include "graph/control.h"
#include "lua/script.h"

#define EXPORT(name) (lua_pushinteger(L, name), lua_setfield(L, -2, #name))

void script_open_constants(lua_State *L)
{
    lua_newtable(L);
    EXPORT(CONTROL_STEP);
    EXPORT(CONTROL_SEED_LO);
    EXPORT(CONTROL_SEED_HI);
    EXPORT(CONTROL_LR);
    EXPORT(CONTROL_WORDS);
    EXPORT(AMP_STEP);
    EXPORT(AMP_SCALE);
    EXPORT(AMP_GOOD);
    EXPORT(AMP_FACTOR);
    EXPORT(AMP_NORM);
    EXPORT(AMP_SKIPPED);
    EXPORT(AMP_GROWTH);
    EXPORT(AMP_WORDS);
    lua_setfield(L, -2, "constants");
}
