-- SPDX-License-Identifier: MIT
-- residency.lua - which parts of a model are on the device when. A run has two phases: before training class images are
-- made and pictures, captions and the prompts of samples encoded; then it trains. What a phase does not use takes no
-- memory while it lasts.
local core = require "burin.core"
local residency = {}

-- { { name =, present = { component = true } } ... } of a plan.
function residency.phases(plan)
  local before, training = { name = "before training", present = {} }, { name = "training", present = {} }
  for _, component in ipairs(plan.model:components()) do
    local unet, vae = component == plan.model.unet, component == plan.model.vae
    local trained = component.role == "param"
    local live = not unet and not vae and plan.text.live
    before.present[component] = not unet or trained or #plan.missing > 0
    training.present[component] = unet or trained or live or vae and plan.recipe.sample ~= nil
  end
  return { before, training }
end

local function set(plan, phase)
  for _, component in ipairs(plan.model:components()) do component:set_absent(not phase.present[component]) end
end

-- The device memory of each phase: { { name =, memory = as core.planned_memory } ... }, and the number of the largest.
function residency.memory(plan)
  local list, largest = {}, 1
  for i, phase in ipairs(plan.phases) do
    set(plan, phase)
    list[i] = { name = phase.name, memory = core.planned_memory() }
    if list[i].memory.total > list[largest].memory.total then largest = i end
  end
  return list, largest
end

-- Brings the device into phase i: takes memory, and loads what has not been there in the phase before. When something
-- leaves, all frozen parts do, since they share blocks of memory, and what stays is loaded again.
function residency.enter(plan, i)
  local phases, components = plan.phases, plan.model:components()
  local now, before, here, leaves = phases[i].present, i > 1 and phases[i - 1].present or {}, {}, false
  for _, component in ipairs(components) do leaves = leaves or before[component] and not now[component] end
  for _, component in ipairs(components) do
    here[component] = before[component] and (component.role == "param" or not leaves)
    if not here[component] then component:set_absent(true) end
  end
  set(plan, phases[i])
  core.commit(i == #phases)
  local load = {}
  for _, component in ipairs(components) do
    if now[component] and not here[component] then load[#load + 1] = component end
  end
  plan.model:load(load)
end

return residency
