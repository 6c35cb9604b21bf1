/* SPDX-License-Identifier: MIT
 * answers.c - what is said of a plugin whose callbacks fail, or answer what cannot be. The checks
 * themselves stand where the answers are used, each in one place. */
#include "plug/registry.h"

#include "burin.h"

#include <stdio.h>
#include <string.h>

static const char no_reason[] = "it gave no reason";

static const char *owner_of(const void *table)
{
    const struct plug_loaded *p = plug_owner(table);
    return p ? p->plugin.name : "?";
}

bool plug_lies(const void *table, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return fail_as(
        FAIL_DATA,
        "the plugin \"%s\" is broken: %s (--no-plugins leaves out those that did not come "
        "with Burin)",
        owner_of(table), text);
}

void plug_ask(void) { fail("%s", no_reason); }

bool plug_refused(const void *table)
{
    if (!strcmp(burin_error(), no_reason))
        return fail_as(FAIL_DATA, "the plugin \"%s\" failed, and %s", owner_of(table), no_reason);
    return false;
}
