-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local errors = require "burin.base.errors"
local recipe = require "burin.train.recipe"

return {
  computes = true,
  summary = "continue a stopped or killed run, bit for bit",
  usage = "RUN-FOLDER [options]",
  needs = 1,
  run = function(args)
    local folder = args[1]:gsub("/+$", "")
    if not core.exists(folder .. "/run.json") then
      errors.raise("input", folder .. ": this is not the folder of a run (it has no run.json)")
    end
    local info = core.json_decode(core.read_file(folder .. "/run.json"), folder .. "/run.json")
    if info.folder ~= core.cwd() then
      core.log("warn", ("this run was started in %s; relative paths of its recipe are now taken from %s"):format(info.folder, core.cwd()))
    end
    local r, text = recipe.load(folder .. "/recipe.lua", info.trust)
    r.output = info.output
    args.open_device()
    require("burin.cli.train").execute(args, r, text, true)
  end,
}
