/* SPDX-License-Identifier: MIT
 * fuzz_inspect.c - any bytes as what a file says of itself, printed by `burin inspect`
 * (inspect.lua). */
#include "script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    run_script(data, n);
    return 0;
}
