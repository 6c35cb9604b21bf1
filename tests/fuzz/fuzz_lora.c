/* SPDX-License-Identifier: MIT
 * fuzz_lora.c - any bytes as the keys, types and shapes of a LoRA file (lora.lua). */
#include "lua_target.h"
