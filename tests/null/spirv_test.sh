#!/bin/sh
# SPDX-License-Identifier: MIT
# Every shader module of a build is valid: spirv_test.sh <spirv-val> <folder of .spv files>
[ -n "$(ls "$2"/*.spv 2>/dev/null)" ] || { echo "no modules in $2"; exit 1; }
failed=0
for module in "$2"/*.spv; do
  "$1" --target-env vulkan1.2 "$module" || { echo "invalid: $module"; failed=1; }
done
exit $failed
