-- SPDX-License-Identifier: MIT
-- space.lua - what a run takes on its disk, known before it begins as its memory is. A save that finds no room loses
-- nothing, but it ends the run.
local amounts = require "burin.base.amounts"
local core = require "burin.core"
local options = require "burin.base.options"
local recipes = require "burin.train.recipe"
local space = {}

local SPARE = 1.1  -- pictures, metrics, and what a file system needs for itself

-- The nearest folder above a path that is there already.
local function existing(path)
  while path ~= "" and core.exists(path) ~= "folder" do path = path:match "^(.*)/[^/]*$" or "" end
  return path == "" and "." or path
end

-- Bytes of the states that are kept, of the one that is being written, and of all results: these as the trained
-- parameters in 32 bits, which is more than a checkpoint of 16 bits takes with its other parts.
function space.need(plan)
  local recipe, state, result = plan.recipe, plan.trainer:state_bytes()
  local every, steps = options.every(recipe.save.every, plan:steps_per_epoch()), plan:steps()
  local results = 1 + (every and (steps - 1) // every or 0)
  return math.floor(SPARE * (state * (recipe.state.keep + 1) + result * results))
end

-- A line about it, and a warning when the disk has not that much left.
function space.report(plan)
  local folder = recipes.folder(plan.recipe)
  local need, free = space.need(plan), core.free_space(existing(folder))
  local line = ("about %s in %s"):format(amounts.text(need), folder)
  if not free then return line end
  local warning = free < need and ("the run takes about %s and %s has %s left: it would end at a save; make room, keep "
    .. "fewer states or save less often"):format(amounts.text(need), folder, amounts.text(free)) or nil
  return ("%s (%s free)"):format(line, amounts.text(free)), warning
end

-- At the beginning of a run.
function space.look(plan)
  local _, warning = space.report(plan)
  if warning then core.log("warn", warning) end
end

return space
