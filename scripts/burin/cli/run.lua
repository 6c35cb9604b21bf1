-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local errors = require "burin.base.errors"
return {
  computes = true,
  summary = "run a Lua file that holds its own loop (burin.compile, dataset:batches)",
  usage = "FILE.lua [options]",
  needs = 1,
  options = { { "--trust", "flag", "run the file without the sandbox" } },
  run = function(args)
    if not core.exists(args[1]) then errors.raise("input", args[1] .. ": there is no such file") end
    args.open_device()
    errors.located(nil, core.run_recipe, args[1], args.trust)
  end,
}
