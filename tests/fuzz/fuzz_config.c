/* SPDX-License-Identifier: MIT
 * fuzz_config.c - any bytes as the JSON that comes with models. They are read in Lua,
 * so the target is (config.lua). */
#define FUZZ_LUA FUZZ_CONFIG_LUA
#include "lua_target.h"
