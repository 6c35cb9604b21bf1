/* SPDX-License-Identifier: MIT
 * torch.c - the plugin's entry: one loader. */
#include "torch.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct burin_host *pt_host;

bool pt_fail(const char *fmt, ...)
{
    char text[1536];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pt_host->fail("%s", text);
    return false;
}

void *pt_grow(void *p, uint32_t n, uint32_t *capacity, size_t element_bytes)
{
    if (n < *capacity) return p;
    uint32_t more = *capacity ? *capacity * 2 : 16;
    void *bigger = pt_host->alloc((size_t)more * element_bytes);
    if (p) memcpy(bigger, p, (size_t)*capacity * element_bytes);
    pt_host->free(p);
    *capacity = more;
    return bigger;
}

const char *pt_show_n(const char *s, size_t n)
{
    static _Thread_local char shown[4][84];
    static _Thread_local unsigned next;
    char *out = shown[next++ % 4];
    size_t k = 0;
    for (; k < n && k < 80; k++) out[k] = (unsigned char)s[k] < 0x20 || s[k] == 0x7f ? '?' : s[k];
    strcpy(out + k, k < n ? "..." : "");
    return out;
}

const char *pt_show(const char *s) { return pt_show_n(s, strlen(s)); }

static const struct burin_loader *const loaders[] = { &pt_loader, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "torch",
    .version = "1.0",
    .licence = "MIT",
    .help = "PyTorch checkpoints: memory-mapped reading that runs nothing",
    .loaders = loaders,
};

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *host);

const struct burin_plugin *burin_plugin_main(const struct burin_host *host)
{
    pt_host = host;
    pt_crc_init();
    return &plugin;
}
