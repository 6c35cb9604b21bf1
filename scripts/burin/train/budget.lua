-- SPDX-License-Identifier: MIT
-- budget.lua - what a run gives up to fit into a stated amount of device memory: types of storage, values that are
-- computed twice instead of kept. Fields that the recipe sets are never touched.
local amounts = require "burin.base.amounts"
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local options = require "burin.base.options"
local residency = require "burin.train.residency"
local budget = {}

-- "3 GiB", "3000MB" -> bytes
function budget.parse(text)
  return amounts.parse(text)
    or options.fail("budget: '%s' is not an amount of memory such as '8 GiB' or '3000 MB'", tostring(text))
end

-- From what costs nothing to what costs most: 16 bits round, recomputation takes about a third more time, 8 bits round
-- more.
local ladder = {
  { precision = "f32", checkpoint = false },
  { precision = "f16", checkpoint = false },
  { precision = "f16", checkpoint = true },
  { precision = "f16", checkpoint = true, base_precision = "int8" },
}

-- The settings of a recipe without a budget.
function budget.plain(o)
  local precision = o.precision or "f32"
  return { precision = precision, checkpoint = o.checkpoint or false, base_precision = o.base_precision or precision }
end

local function candidates(o)
  local list, seen = {}, {}
  for _, step in ipairs(ladder) do
    local s = { precision = o.precision or step.precision }
    s.checkpoint = step.checkpoint
    if o.checkpoint ~= nil then s.checkpoint = o.checkpoint end
    s.base_precision = o.base_precision or (not o.method.whole and step.base_precision) or s.precision
    local key = core.json_encode(s)
    if not seen[key] then list[#list + 1] = s end
    seen[key] = true
  end
  return list
end

local function gib(bytes) return ("%.2f GiB"):format(bytes / (1 << 30)) end

-- What a plan has traded for memory, one sentence each.
function budget.traded(plan)
  local o, s, list = plan.recipe, plan.settings, {}
  local function add(text, ...) list[#list + 1] = text:format(...) end
  local function by(field) return o[field] == nil and "chosen for the budget" or "as the recipe says" end
  if s.precision ~= "f32" then add("%s storage of activations and frozen weights (%s)", s.precision, by "precision") end
  if s.base_precision ~= s.precision then add("%s storage of the U-Net's frozen matrices and kernels (%s)",
    s.base_precision, by "base_precision") end
  if s.checkpoint then add("blocks are computed again in the backward pass, about a third more time (%s)",
    by "checkpoint") end
  local phases = plan.phases
  for _, component in ipairs(plan.model:components()) do
    local before, after = phases[1].present[component], phases[2].present[component]
    if component ~= plan.model.unet and before and not after then
      add("%s: results are cached, then it leaves the device", component.name)
    elseif component == plan.model.unet and not before then
      add "unet: comes to the device once everything is cached"
    end
  end
  return list
end

-- The first settings with which a plan fits, by preparing it with each in turn: prepare(settings) -> plan.
function budget.choose(recipe, bytes, prepare)
  local name, total
  for _, settings in ipairs(candidates(recipe)) do
    local scope <close> = core.scope()  -- what was planned in vain leaves the device's plan at once
    local plan = prepare(settings)
    local phases, largest = residency.memory(plan)
    name, total = phases[largest].name, phases[largest].memory.total
    if total <= bytes then
      scope:leave()
      return plan
    end
  end
  options.fail_at(kinds.place(recipe, "budget"), "budget: %s are needed %s, which is more than %s%s", gib(total), name,
    gib(bytes), recipe.sample and "; without samples it is less, since the VAE leaves the device" or "")
end

return budget
