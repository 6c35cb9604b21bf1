#!/bin/sh
# SPDX-License-Identifier: MIT
# Every shader module of a build is valid, and none asks how wide a subgroup is or which lane runs: a driver may run
# kernels narrower than it says (Intel), so lanes are counted.
#   spirv_test.sh <spirv-val> <spirv-dis> <folder of .spv files>
[ -n "$(ls "$3"/*.spv 2>/dev/null)" ] || { echo "no modules in $3"; exit 1; }
failed=0
for module in "$3"/*.spv; do
  "$1" --target-env vulkan1.2 "$module" || { echo "invalid: $module"; failed=1; }
  ! "$2" --no-color "$module" | grep -E "BuiltIn (SubgroupSize|SubgroupLocalInvocationId)" ||
    { echo "not counted: $module"; failed=1; }
done
exit $failed
