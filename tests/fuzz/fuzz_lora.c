/* SPDX-License-Identifier: MIT
 * fuzz_lora.c - any bytes as the keys, types and shapes of a LoRA file (lora.lua). */
#include "script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    run_script(data, n);
    return 0;
}
