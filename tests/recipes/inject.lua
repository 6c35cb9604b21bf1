-- SPDX-License-Identifier: MIT
-- A real training in which a NaN is put into a random layer at 20 random steps: into a frozen weight or bias, or into a
-- trained parameter. Each time the update is skipped, the layer is named, and the run goes back and on; so in the end it
-- is the run without any of it. For nonfinite_test.lua: RECIPE=file OUTPUT=folder burin run --trust inject.lua
local core = require "burin.core"
local loop = require "burin.train.loop"
local plans = require "burin.train.plan"
local recipes = require "burin.train.recipe"

local recipe = recipes.load(core.env "RECIPE", true)
recipe.output, recipe.on_nonfinite, recipe.max_nonfinite = core.env "OUTPUT", "back", 1
core.make_dirs(recipe.output)
local plan = plans.prepare(recipe)
local training = loop.new(plan)

math.randomseed(977)
local layers, steps = {}, {}  -- what can be hit; step -> whether it is
for _, component in ipairs { plan.model.unet, plan.model.text[1], plan.method.component } do
  for _, e in ipairs(component.order) do
    if e.kind ~= "table" then
      local name = e.layer and e.name or component.name .. "." .. e.name:gsub("%.weight$", ""):gsub("%.bias$", "")
      layers[#layers + 1] = { entry = e, name = name }
    end
  end
end
while recipe.steps - #steps > 0 do steps[#steps + 1] = #steps end
for i = #steps, 2, -1 do
  local k = math.random(i)
  steps[i], steps[k] = steps[k], steps[i]
end
local hit = {}
for i = 1, 20 do hit[steps[i]] = true end

-- An element that every picture reaches: of a kernel one of its middle tap.
local function position(e)
  local s, n = e.shape, 1
  for _, d in ipairs(s) do n = n * d end
  if e.kind ~= "conv" then return math.random(n) end
  local middle = (s[1] // 2 * s[2] + s[2] // 2) * s[3] * s[4]
  return middle + math.random(s[3] * s[4])
end

local poisoned  -- { layer, before }
local trainer, right, wrong = plan.trainer, 0, 0
local run, log = trainer.run, core.log

function trainer.run(self, session, step, lr)
  if hit[step] then
    hit[step] = nil
    local layer = layers[math.random(#layers)]
    poisoned = { layer = layer, before = layer.entry.var:read() }
    local t = layer.entry.var:read()
    t:set(position(layer.entry), 0 / 0)
    layer.entry.var:write(t)
  end
  return run(self, session, step, lr)
end

function core.log(level, text)
  if text:find "every value looked at" then
    local said = text:match "is that of '[%w_]+' in ([^%s:]+)" or text
    if said == poisoned.layer.name then right = right + 1 else wrong = wrong + 1 end
    if said ~= poisoned.layer.name then print(("WRONG %s: %s"):format(poisoned.layer.name, text)) end
    poisoned.layer.entry.var:write(poisoned.before)
  elseif text:find "^back to the state" then
    training.backs = 0  -- it may go back three times only, each time with half the rate
  else
    log(level, text)
  end
end

training:execute {}
print(("%d right, %d wrong"):format(right, wrong))
