/* SPDX-License-Identifier: MIT
 * fuzz_config.c - any bytes as the JSON that comes with models. They are read in Lua,
 * so the target is (config.lua). */
#include "script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    run_script(data, n);
    return 0;
}
