/* SPDX-License-Identifier: MIT
 * fuzz_answers.c - any bytes as what a plugin answers (answers_plugin.c), asked as Lua asks
 * (answers.lua): refused, or what can be used. */
#include "script.h"

#include <dlfcn.h>
#include <string.h>

#include "plug/plug.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static void (*set)(const uint8_t *, size_t);
    if (!set) {
        log_threshold = LOG_QUIET;
        if (!plug_load(FUZZ_PLUGIN)) abort();
        void *library = dlopen(FUZZ_PLUGIN, RTLD_NOW | RTLD_NOLOAD), *symbol;
        symbol = library ? dlsym(library, "answers_set") : NULL;
        if (!symbol) abort();
        memcpy(&set, &symbol, sizeof set);
    }
    set(data + (n > 0), n > 0 ? n - 1 : 0);
    run_script(data, n);
    return 0;
}
