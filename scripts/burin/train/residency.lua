-- SPDX-License-Identifier: MIT
-- residency.lua - which parts of a model are on the device when. A run has two phases: before training class images are
-- made and pictures, captions and the prompts of samples encoded; then it trains. What a phase does not use takes no memory while it lasts.
local core = require "burin.core"
local residency = {}

-- { { name =, present = { component = true } } ... } of a prepared run; settled once, before class images are made.
function residency.phases(run)
  if run.phases then return run.phases end
  local before, training = { name = "before training", present = {} }, { name = "training", present = {} }
  for _, component in ipairs(run.model:components()) do
    local unet, vae = component == run.model.unet, component == run.model.vae
    local trained = component.role == "param"
    local live = not unet and not vae and run.text.live
    before.present[component] = not unet or trained or #run.missing_prior > 0
    training.present[component] = unet or trained or live or vae and run.o.sample ~= nil
  end
  run.phases = { before, training }
  return run.phases
end

local function set(run, phase)
  for _, component in ipairs(run.model:components()) do component:set_absent(not phase.present[component]) end
end

-- The device memory of each phase: { { name =, memory = as core.planned_memory } ... }, and the number of the largest.
function residency.memory(run)
  local list, largest = {}, 1
  for i, phase in ipairs(residency.phases(run)) do
    set(run, phase)
    list[i] = { name = phase.name, memory = core.planned_memory() }
    if list[i].memory.total > list[largest].memory.total then largest = i end
  end
  return list, largest
end

-- Brings the device into phase i: takes memory, and loads what has not been there in the phase before. When something
-- leaves, all frozen parts do, since they share blocks of memory, and what stays is loaded again.
function residency.enter(run, i)
  local phases, components = residency.phases(run), run.model:components()
  local now, before, here, leaves = phases[i].present, i > 1 and phases[i - 1].present or {}, {}, false
  for _, component in ipairs(components) do leaves = leaves or before[component] and not now[component] end
  for _, component in ipairs(components) do
    here[component] = before[component] and (component.role == "param" or not leaves)
    if not here[component] then component:set_absent(true) end
  end
  set(run, phases[i])
  core.commit(i == #phases)
  local load = {}
  for _, component in ipairs(components) do
    if now[component] and not here[component] then load[#load + 1] = component end
  end
  run.model:load(load)
end

return residency
