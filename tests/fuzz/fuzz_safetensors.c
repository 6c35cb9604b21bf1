/* SPDX-License-Identifier: MIT
 * fuzz_safetensors.c - any bytes as a model file: open, list, read every tensor in both ways. */
#include "loader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    open_and_read(data, n);
    return 0;
}
