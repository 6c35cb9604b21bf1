-- SPDX-License-Identifier: MIT
-- resume.lua - a stopped run goes on. What its folder says is believed about numbers only: where it lies, and whether
-- its recipe is trusted, comes from the command line.
local core = require "burin.core"
local errors = require "burin.base.errors"
local paths = require "burin.base.paths"
local recipe = require "burin.train.recipe"

local function read_info(folder)
  local path = folder .. "/run.json"
  if not core.exists(path) then
    errors.raise("input", folder .. ": this is not the folder of a run (it has no run.json)")
  end
  local info = errors.guard("data", core.json_decode, core.read_file(path), path)
  return type(info) == "table" and info or errors.file(path, "a table is expected")
end

-- A run's folder is <output>/<name>; its recipe has the name.
local function output_of(folder, name)
  if folder:match "[^/]*$" ~= name then folder = core.real_path(folder) end
  if folder:match "[^/]*$" ~= name then
    errors.raise("data", "%s: the recipe in this folder is of a run named '%s'; the folder must have that name",
      folder, name)
  end
  return folder:match "^(.*)/" or "."
end

return {
  computes = true,
  recipe = { steps = 2000000000 },
  summary = "continue a stopped or killed run, bit for bit",
  usage = "RUN-FOLDER [options]",
  needs = 1,
  run = function(args)
    local folder = args[1]:gsub("(.)/+$", "%1")
    local info = read_info(folder)
    if info.trust and not args.trust then
      errors.raise("recipe",
        "%s: this run was begun with --trust; if you still trust its recipe: burin resume %s --trust", folder, folder)
    end
    if info.folder ~= core.cwd() then
      core.log("warn", ("this run was started in %s; relative paths of its recipe are now taken from %s"):format(
        tostring(info.folder), core.cwd()))
    end
    local r, text = recipe.load(folder .. "/recipe.lua", args.trust)
    r.output = output_of(folder, r.name)
    paths.begin(r.output .. "/" .. r.name, args.trust)
    args.open_device()
    require("burin.cli.train").execute(args, r, text, true)
  end,
}
