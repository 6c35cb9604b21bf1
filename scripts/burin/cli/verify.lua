-- SPDX-License-Identifier: MIT
-- verify.lua - the harness is no part of the program: it is a Lua file beside the recorded values.
local core = require "burin.core"
local errors = require "burin.base.errors"

return {
  computes = true,
  summary = "compare networks, gradients and training steps with recorded values",
  usage = "FOLDER...",
  needs = 1,
  options = {
    { "--all", "flag", "a line for every tensor of a set" },
    { "--checkpoint", "flag", "recompute blocks in the backward pass" },
  },
  more = "The values and verify.lua beside them are in tests/golden of the source: burin verify tests/golden/tiny_sd1",
  run = function(args)
    local harness = (args[1]:gsub("/+$", ""):match "^(.*)/[^/]*$" or ".") .. "/verify.lua"
    if not core.exists(harness) then errors.raise("input", harness
      .. ": there is no such file; recorded values have it beside them") end
    args.open_device()
    return core.run_recipe(harness, true)(args)
  end,
}
