/* SPDX-License-Identifier: MIT
 * fuzz_caption.c - any bytes as a caption file: a refusal, or lines of valid UTF-8, none blank. */
#include "host.h"

#include "data/data.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int fd;
    const char *path = as_file(data, n, &fd);
    char *text = *path ? caption_load(path) : NULL;
    if (text) {
        int32_t *ids;
        if (*text == '\n' || strpbrk(text, "\r") || strstr(text, "\n\n") ||
            tokenizer_encode(text, strlen(text), TOKENIZER_PLAIN, &ids) < 0)
            abort();
        mem_free(ids);
        mem_free(text);
    }
    close(fd);
    return 0;
}
