/* SPDX-License-Identifier: MIT
 * fuzz_tokenizer.c - any bytes as a prompt, in the flavour that the first byte chooses. */
#include "host.h"

#include "data/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int32_t *ids, rows[3 * 77];
    float weights[3 * 77];
    if (!n) return 0;
    enum tokenizer_flavour flavour = (enum tokenizer_flavour)(data[0] & 3);
    const char *text = (const char *)data + 1;
    int pad = data[0] & 4 ? 0 : 49407, length = 75 * (1 + (data[0] >> 3 & 1) * 2);
    int count = tokenizer_encode(text, n - 1, flavour, &ids);
    for (int i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] > 49407) abort();
    mem_free(ids);
    if (tokenizer_count(text, n - 1, flavour, false) != count) abort();
    bool plain = tokenizer_chunks(text, n - 1, flavour, length, pad, rows);
    if (plain != (count >= 0) || (plain && rows[0] != 49406)) abort();
    if (tokenizer_chunks_weighted(text, n - 1, flavour, length, pad, rows, weights) &&
        rows[0] != 49406)
        abort();
    return 0;
}
