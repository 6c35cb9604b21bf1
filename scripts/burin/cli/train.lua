-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local errors = require "burin.base.errors"
local paths = require "burin.base.paths"
local progress = require "burin.base.progress"
local recipe = require "burin.train.recipe"
local loop = require "burin.train.loop"
local plans = require "burin.train.plan"

local command = {
  computes = true,
  recipe = { steps = 2000000000 },
  summary = "train what a recipe describes",
  usage = "RECIPE.lua [options]",
  needs = 1,
  options = {
    { "--output", "folder", "where runs are kept (overrides the recipe)" },
    { "--force", "flag", "start over although the run exists" },
  },
  more = "Ctrl-C, SIGTERM or a closing terminal stop after the current step and save; burin resume continues bit for bit.\n"
    .. "A second Ctrl-C ends at once.",
}

-- Shared with resume: runs and reports.
function command.execute(args, r, text, resume)
  local training = loop.new(plans.prepare(r))
  local result = training:execute { resume = resume, recipe_text = text }
  if args.json then
    core.write_stdout(core.json_encode(result) .. "\n")
  else
    core.log("info", ("%d steps in %s, loss %.4f"):format(result.steps, progress.duration(result.seconds), result.loss or 0 / 0))
    core.write_stdout(core.shown(result.path) .. "\n")
  end
end

function command.run(args)
  local r, text = recipe.load(args[1], args.trust)
  if args.output then r.output = args.output end
  local folder = recipe.folder(r)
  if core.exists(folder .. "/state/latest.json") and not args.force then
    errors.raise("exists", ("%s exists: continue it with 'burin resume %s', or start over with --force"):format(folder, folder))
  end
  paths.begin(folder, args.trust)
  core.make_dirs(folder)
  loop.lock(folder)  -- before anything in it changes
  core.write_file(folder .. "/recipe.lua", text)
  core.write_file(folder .. "/run.json", core.json_encode({ recipe = args[1], output = r.output, trust = args.trust or false,
    version = core.version, started = core.date(), folder = core.cwd() }, 2) .. "\n")
  args.open_device()
  command.execute(args, r, text, false)
end

return command
