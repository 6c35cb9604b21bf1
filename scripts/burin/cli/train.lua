-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local errors = require "burin.base.errors"
local patience = require "burin.cli.patience"
local paths = require "burin.base.paths"
local progress = require "burin.base.progress"
local loop = require "burin.train.loop"
local plans = require "burin.train.plan"
local recipe = require "burin.train.recipe"
local record = require "burin.train.record"
local settings = require "burin.train.settings"

local command = {
  computes = true,
  recipe = { limited = true },
  summary = "train what a recipe describes",
  usage = "RECIPE.lua [options]",
  needs = 1,
  more_options = patience.options,
  options = {
    { "--output", "folder", "where runs are kept (overrides the recipe)" },
    { "--force", "flag", "start over although the run exists" },
  },
  more = "Ctrl-C, SIGTERM or a closing terminal stop after the current step and save; burin resume "
    .. "continues bit for bit.\n"
    .. "A second Ctrl-C ends at once.",
}

-- tier: asked for, or nil
local function say_device(tier)
  local device = core.device()
  local engine = device.engine ~= "" and " with " .. device.engine or ""
  local slow = device.type == "cpu" and ", which runs on the processor; see 'burin devices' for others" or ""
  core.log("info", ("training on %s (%s)%s%s"):format(device.name, device.driver, engine, slow))
  if device.type == "cpu" and device.tier == "cpu" and not tier then
    core.log("warn", "without oneDNN (package libdnnl2 or newer) a processor takes several times as long")
  end
end

-- Shared with resume: runs and reports. o: as of Training:execute
function command.execute(args, r, o)
  patience.begin(args, recipe.folder(r))
  args.open_device()
  say_device(args.tier)
  local training = loop.new(plans.prepare(r, o.resume or o.fork))
  local result = training:execute(o)
  if args.json then
    core.write_stdout(core.json_encode(result) .. "\n")
  else
    core.log("info", ("%d steps in %s, loss %.4f"):format(result.steps, progress.duration(result.seconds),
      result.loss or 0 / 0))
    core.write_stdout(core.shown(result.path) .. "\n")
  end
end

-- A run is not replaced by accident: how to go on with it, and what this recipe has that it has not.
local function refuse(folder, r, path)
  local read, kept = pcall(record.read, folder)
  local list = read and settings.differences(kept.settings, settings.of(r)) or {}
  if #list == 0 then
    errors.raise("exists", ("%s exists: continue it with 'burin resume %s', or start over with --force"):format(folder,
      folder))
  end
  errors.raise("exists", ("%s exists: continue it with 'burin resume %s', or start over with --force. This "
    .. "recipe differs from "
    .. "the run's: %s. To continue with it: burin resume %s --recipe %s"):format(folder, folder,
      table.concat(list, "; "),
    folder, path))
end

function command.run(args)
  local r, text = recipe.load(args[1], args.trust)
  if args.output then r.output = args.output end
  local folder = recipe.folder(r)
  if record.is_run(folder) and not args.force then refuse(folder, r, args[1]) end
  record.check_own(folder)
  paths.begin(folder, args.trust)
  core.make_dirs(folder)
  loop.lock(folder)  -- before anything in it changes
  command.execute(args, r, { record = record.new { recipe = { path = args[1], text = text }, name = r.name,
    trust = args.trust, settings = settings.of(r) } })
end

return command
