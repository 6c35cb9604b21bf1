-- SPDX-License-Identifier: MIT
-- budget.lua - what a run gives up to fit into a stated amount of device memory: types of storage, values that are
-- computed twice instead of kept. Fields that the recipe sets are never touched.
local core = require "burin.core"
local options = require "burin.base.options"
local residency = require "burin.train.residency"
local budget = {}

local units = { b = 1, kb = 1e3, mb = 1e6, gb = 1e9, kib = 1 << 10, mib = 1 << 20, gib = 1 << 30 }

-- "3 GiB", "3000MB" -> bytes
function budget.parse(text)
  local number, unit = tostring(text):match "^%s*([%d.]+)%s*(%a+)%s*$"
  local factor = unit and units[unit:lower()]
  if not (factor and tonumber(number)) then
    options.fail("budget: '%s' is not an amount of memory such as '8 GiB' or '3000 MB'", tostring(text))
  end
  return math.floor(tonumber(number) * factor)
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
    s.base_precision = o.base_precision or (not o.method.method.whole and step.base_precision) or s.precision
    local key = core.json_encode(s)
    if not seen[key] then list[#list + 1] = s end
    seen[key] = true
  end
  return list
end

local function gib(bytes) return ("%.2f GiB"):format(bytes / (1 << 30)) end

-- What a run has traded for memory, one sentence each.
function budget.traded(run)
  local o, s, list = run.o, run.settings, {}
  local function add(text, ...) list[#list + 1] = text:format(...) end
  local function by(field) return o[field] == nil and "chosen for the budget" or "as the recipe says" end
  if s.precision ~= "f32" then add("%s storage of activations and frozen weights (%s)", s.precision, by "precision") end
  if s.base_precision ~= s.precision then add("%s storage of the U-Net's frozen matrices and kernels (%s)", s.base_precision, by "base_precision") end
  if s.checkpoint then add("blocks are computed again in the backward pass, about a third more time (%s)", by "checkpoint") end
  local phases = residency.phases(run)
  for _, component in ipairs(run.model:components()) do
    local before, after = phases[1].present[component], phases[2].present[component]
    if component ~= run.model.unet and before and not after then
      add("%s: results are cached, then it leaves the device", component.name)
    elseif component == run.model.unet and not before then
      add "unet: comes to the device once everything is cached"
    end
  end
  return list
end

-- The first settings with which the run fits, by preparing it with each in turn: prepare(settings, previous run) -> run.
function budget.choose(o, bytes, prepare)
  local run, total
  for _, settings in ipairs(candidates(o)) do
    local data = run and { data = run.data, missing_prior = run.missing_prior, reported = run.reported }
    run = nil
    o.method:forget()
    collectgarbage()  -- the variables of the attempt before leave the plan
    collectgarbage()
    run = prepare(settings, data)
    local phases, largest = residency.memory(run)
    total = phases[largest].memory.total
    if total <= bytes then return run end
    run.too_large = phases[largest]
  end
  options.fail("budget: %s are needed %s, which is more than %s%s", gib(total), run.too_large.name, gib(bytes),
    o.sample and "; without samples it is less, since the VAE leaves the device" or "")
end

return budget
