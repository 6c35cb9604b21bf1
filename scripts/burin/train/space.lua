-- SPDX-License-Identifier: MIT
-- space.lua - what a run takes on its disk, known before it begins as its memory is: of the whole run, and of each
-- save. What happens where there is too little is for saving.lua.
local amounts = require "burin.base.amounts"
local core = require "burin.core"
local options = require "burin.base.options"
local recipes = require "burin.train.recipe"
local space = {}

local SPARE = 1.1       -- pictures, metrics, and what a file system needs for itself
local HEADER = 1 << 16  -- of a file, with what belongs to it: names, metadata

-- The nearest folder above a path that is there already.
local function existing(path)
  while path ~= "" and core.exists(path) ~= "folder" do path = path:match "^(.*)/[^/]*$" or "" end
  return path == "" and "." or path
end

-- Bytes of a state.
function space.state(plan) return HEADER + (plan.trainer:state_bytes()) end

-- Numbers in a result: an adapter's, or those of all networks of a model.
local function result_count(plan)
  if not plan.method.whole then return select(2, plan.trainer:state_bytes()) // 4 end
  local all = 0
  for _, item in ipairs(plan.model:look().items) do
    local count = 1
    for _, d in ipairs(item.shape) do count = count * d end
    all = all + count
  end
  return all
end

-- Bytes of a result.
function space.result(plan) return HEADER + result_count(plan) * (plan.recipe.save.dtype == "f32" and 4 or 2) end

-- Bytes of the pictures of one step at most, which do not become smaller as files: each, and all of them in one.
function space.samples(plan)
  local s, r = plan.recipe.sample, plan.recipe.resolution
  return HEADER + 2 * #s.prompts * (s.width or r) * (s.height or r) * 3
end

-- Bytes of the states that are kept, of the one that is being written, and of all results.
function space.need(plan)
  local recipe = plan.recipe
  local every, steps = options.every(recipe.save.every, plan:steps_per_epoch()), plan:steps()
  local results = 1 + (every and (steps - 1) // every or 0)
  return math.floor(SPARE * (space.state(plan) * (recipe.state.keep + 1) + space.result(plan) * results))
end

-- What is wanted for so many bytes and what is free, in a run's folder, when that is too little; else nil.
function space.lacks(folder, bytes)
  local need, free = math.floor(SPARE * bytes), core.free_space(existing(folder))
  if free and free < need then return need, free end
end

-- A line about it, and a warning when the disk has not that much left.
function space.report(plan)
  local folder = recipes.folder(plan.recipe)
  local need, free = space.need(plan), core.free_space(existing(folder))
  local line = ("about %s in %s"):format(amounts.text(need), folder)
  if not free then return line end
  local warning = free < need and ("the run takes about %s and %s has %s left: it would wait for room at a "
    .. "save, and end; make room, keep fewer states or save less often"):format(amounts.text(need), folder,
      amounts.text(free)) or nil
  return ("%s (%s free)"):format(line, amounts.text(free)), warning
end

-- At the beginning of a run.
function space.look(plan)
  local _, warning = space.report(plan)
  if warning then core.log("warn", warning) end
end

return space
