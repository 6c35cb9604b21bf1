/* SPDX-License-Identifier: MIT
 * embed.h - files packed into the binary by cmake/embed.cmake. */
#ifndef BURIN_EMBED_H
#define BURIN_EMBED_H

struct embed_file {
    const char *name;
    const unsigned char *data, *end;
};

/* NULL-terminated: SPIR-V ("matmul_cpu"), the Lua library ("burin/nn.lua"), data tables. */
extern const struct embed_file embed_spirv[], embed_lua[], embed_data[];

#endif
