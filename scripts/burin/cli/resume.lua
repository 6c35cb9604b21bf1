-- SPDX-License-Identifier: MIT
-- resume.lua - a stopped run goes on: the one in the folder that is given, wherever that lies now and from any working
-- folder.
local core = require "burin.core"
local errors = require "burin.base.errors"
local loop = require "burin.train.loop"
local patience = require "burin.cli.patience"
local paths = require "burin.base.paths"
local recipe = require "burin.train.recipe"
local record = require "burin.train.record"
local settings = require "burin.train.settings"

-- Relative paths of a recipe are taken from where its run was started, as long as that is there. Returns the run's
-- folder, as it is called from there.
local function go_to(folder, started_in)
  local here, whole = core.cwd(), core.real_path(folder)
  if not started_in or core.real_path(started_in) == here then return folder end
  if not core.change_folder(started_in) then
    core.log("warn", ("this run was started in %s, which is not there; relative paths of its recipe are now "
      .. "taken from %s")
      :format(started_in, here))
    return folder
  end
  core.log("warn", ("relative paths of the recipe are taken from %s, where this run was started"):format(started_in))
  return whole
end

-- A recipe that names another run is not the one that was meant.
local function check_name(folder, r, kept, edited)
  local name = kept.name or folder:match "[^/]*$"
  if r.name ~= name then
    errors.raise("data", "%s: this is run '%s', and the recipe %s is of a run named '%s'", folder, name,
      edited or "in this folder", r.name)
  end
end

-- What the command line sets over the recipe, now or when the run was resumed before.
local function apply_changes(args, r, kept)
  local c = kept.changes
  if args.steps and args.epochs then errors.raise("usage", "give either --steps or --epochs, not both") end
  if args.steps then c.steps, c.epochs = math.tointeger(args.steps), nil end
  if args.epochs then c.steps, c.epochs = nil, args.epochs end
  if args.steps and not (c.steps and c.steps > 0) then errors.raise("usage",
    "--steps needs a whole number from 1 on") end
  if args.epochs and not (args.epochs > 0 and args.epochs < math.huge) then
    errors.raise("usage", "--epochs needs a number above 0")
  end
  if c.steps or c.epochs then r.steps, r.epochs = c.steps, c.epochs end
end

-- A run of another name beside this one: where it will lie.
local function fork(args, folder, kept)
  recipe.check_name(args.fork, function(text, ...) errors.raise("usage", "--fork: " .. text, ...) end)
  local new = (folder:match "^(.*/)" or "") .. args.fork
  if record.is_run(new) then errors.raise("exists", new .. " exists: a fork is a new run") end
  record.check_own(new)
  kept:fork(args.fork, folder)
  return new
end

local command = {
  computes = true,
  recipe = { limited = true },
  summary = "continue a stopped or killed run, bit for bit",
  usage = "RUN-FOLDER [options]",
  needs = 1,
  more_options = patience.options,
  options = {
    { "--steps", "number", "how many steps the run has in all, whatever its recipe says" },
    { "--epochs", "number", "the same in epochs" },
    { "--recipe", "file", "the run's recipe, edited: its steps, epochs, save, sample, state or output" },
    { "--fork", "name", "start a new run of this name from the state, whatever has changed" },
  },
}

function command.run(args)
  local folder = args[1]:gsub("(.)/+$", "%1")
  local kept = record.read(folder)
  if kept.trust and not args.trust then
    errors.raise("recipe",
      "%s: this run was begun with --trust; if you still trust its recipe: burin resume %s --trust", folder, folder)
  end
  local edited = args.recipe and (core.real_path(args.recipe) or errors.raise("input",
    args.recipe .. ": there is no such recipe"))
  folder = go_to(folder, kept.started_in)
  local r, text = recipe.load(edited or folder .. "/recipe.lua", args.trust,
    not edited and record.modules(folder) or nil)
  if not args.fork then check_name(folder, r, kept, args.recipe) end
  if edited then kept:replace(args.recipe, text) end
  apply_changes(args, r, kept)
  r.folder = args.fork and fork(args, folder, kept) or folder
  if kept.new_name then
    recipe.check_name(kept.new_name, function(text, ...) errors.file(folder .. "/run.json", text, ...) end)
    r.name = kept.new_name
  end
  kept.settings = settings.of(r)
  paths.begin(r.folder, args.trust)
  core.make_dirs(r.folder)
  loop.lock(r.folder)
  require("burin.cli.train").execute(args, r, { resume = not args.fork, fork = args.fork and folder, record = kept })
end

return command
