-- SPDX-License-Identifier: MIT
-- resume.lua - a stopped run goes on: the one in the folder that is given, wherever that lies now and from any working folder.
local core = require "burin.core"
local errors = require "burin.base.errors"
local loop = require "burin.train.loop"
local paths = require "burin.base.paths"
local recipe = require "burin.train.recipe"
local record = require "burin.train.record"

-- Relative paths of a recipe are taken from where its run was started, as long as that is there. Returns the run's folder,
-- as it is called from there.
local function go_to(folder, started_in)
  local here, whole = core.cwd(), core.real_path(folder)
  if not started_in or core.real_path(started_in) == here then return folder end
  if not core.change_folder(started_in) then
    core.log("warn", ("this run was started in %s, which is not there; relative paths of its recipe are now taken from %s")
      :format(started_in, here))
    return folder
  end
  core.log("warn", ("relative paths of the recipe are taken from %s, where this run was started"):format(started_in))
  return whole
end

-- A recipe that names another run is not the one that was meant.
local function check_name(folder, r, kept)
  local name = kept.name or folder:match "[^/]*$"
  if r.name ~= name then
    errors.raise("data", "%s: this is run '%s', and the recipe in this folder is of a run named '%s'", folder, name, r.name)
  end
end

return {
  computes = true,
  recipe = { steps = 2000000000 },
  summary = "continue a stopped or killed run, bit for bit",
  usage = "RUN-FOLDER [options]",
  needs = 1,
  run = function(args)
    local folder = args[1]:gsub("(.)/+$", "%1")
    local kept = record.read(folder)
    if kept.trust and not args.trust then
      errors.raise("recipe",
        "%s: this run was begun with --trust; if you still trust its recipe: burin resume %s --trust", folder, folder)
    end
    folder = go_to(folder, kept.started_in)
    local r = recipe.load(folder .. "/recipe.lua", args.trust, record.modules(folder))
    check_name(folder, r, kept)
    r.folder = folder
    paths.begin(folder, args.trust)
    loop.lock(folder)
    args.open_device()
    require("burin.cli.train").execute(args, r, { resume = true })
  end,
}
