/* SPDX-License-Identifier: MIT
 * safetensors.c - the plugin's entry: one loader and one exporter. */
#include "st.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct burin_host *st_host;

bool st_fail(const char *fmt, ...)
{
    char text[1536];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    st_host->fail("%s", text);
    return false;
}

void *st_grow(void *p, int64_t n, int64_t *capacity, size_t element_bytes)
{
    if (n < *capacity) return p;
    int64_t more = *capacity ? *capacity * 2 : 16;
    void *bigger = st_host->alloc((size_t)more * element_bytes);
    if (p) memcpy(bigger, p, (size_t)*capacity * element_bytes);
    st_host->free(p);
    *capacity = more;
    return bigger;
}

const char *st_show(const char *name)
{
    static _Thread_local char shown[84];
    size_t n = 0;
    for (; name[n] && n < 80; n++)
        shown[n] = (unsigned char)name[n] < 0x20 || name[n] == 0x7f ? '?' : name[n];
    strcpy(shown + n, name[n] ? "..." : "");
    return shown;
}

static const struct burin_loader *const loaders[] = { &st_loader, NULL };
static const struct burin_exporter *const exporters[] = { &st_exporter, NULL };
static const struct burin_plugin plugin = {
    .size = sizeof plugin,
    .abi = BURIN_ABI,
    .name = "safetensors",
    .version = "1.0",
    .licence = "MIT",
    .help = "safetensors model files: memory-mapped reading, crash-safe writing",
    .loaders = loaders,
    .exporters = exporters,
};

BURIN_EXPORT const struct burin_plugin *burin_plugin_main(const struct burin_host *host);

const struct burin_plugin *burin_plugin_main(const struct burin_host *host)
{
    st_host = host;
    return &plugin;
}
