/* SPDX-License-Identifier: MIT
 * main.c - the command line. Commands are Lua files in scripts/burin/cli. */
#include "lua/script.h"

int main(int argc, char **argv) { return script_main(argc, argv); }
