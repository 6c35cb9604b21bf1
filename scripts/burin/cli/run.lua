-- SPDX-License-Identifier: MIT
-- run.lua - a program of one's own: a Lua file that holds its own loop. What it writes lies in its run's folder.
local core = require "burin.core"
local errors = require "burin.base.errors"
local paths = require "burin.base.paths"

return {
  computes = true,
  recipe = {},
  summary = "run a Lua file that holds its own loop (burin.compile, dataset:batches)",
  usage = "FILE.lua [options]",
  needs = 1,
  options = { { "--output", "folder", "where the file writes (default runs/<its name>)" } },
  run = function(args)
    if not core.exists(args[1]) then errors.raise("input", args[1] .. ": there is no such file") end
    args.open_device()
    paths.begin(args.output or "runs/" .. args[1]:match("([^/]+)$"):gsub("%.lua$", ""), args.trust)
    errors.located(nil, core.run_recipe, args[1], args.trust)
  end,
}
