-- SPDX-License-Identifier: MIT
-- schedules.lua - learning-rate schedules: a factor in [0, 1] for each step. A schedule is
-- { name =, factor = function(step, steps) }, steps counted from 0; a new one is one more function here or in a recipe.
local errors = require "burin.base.errors"
local kinds = require "burin.base.kinds"
local options = require "burin.base.options"
local place = require "burin.base.place"
local schedules = {}

local ramp = {
  warmup = { "number", default = 0, min = 0, help = "share of all steps (< 1) or number of steps" },
  floor = { "number", default = 0, min = 0, max = 1, help = "smallest factor" },
}

-- after(x, o): the factor once the warmup is over, x running from 0 to 1; more: options beside the common two.
local function with_warmup(name, o, after, more)
  local schema = { warmup = ramp.warmup, floor = ramp.floor }
  for option, rule in pairs(more or {}) do schema[option] = rule end
  o = options.check(name, o or {}, schema)
  return kinds.new("schedule", {
    name = name, options = o,
    factor = function(step, steps)
      local warm = o.warmup < 1 and o.warmup * steps or o.warmup
      if step < warm then return math.min(1, (step + 1) / warm) end
      local left = math.max(1, steps - warm)
      return o.floor + (1 - o.floor) * after(math.min(1, (step - warm) / left), o)
    end,
  })
end

function schedules.constant(o) return with_warmup("constant", o, function() return 1 end) end
function schedules.linear(o) return with_warmup("linear", o, function(x) return 1 - x end) end
function schedules.cosine(o)
  return with_warmup("cosine", o, function(x, c)
    local fall = c.cycles * x
    if x == 1 then fall = 1 end  -- the last step is a fall's end, not the next one's beginning
    return 0.5 * (1 + math.cos(math.pi * (fall > 1 and fall % 1 or fall)))
  end, { cycles = { "number", default = 1, min = 0.01, help = "how many times it falls" } })
end

-- A schedule of one's own: burin.schedule("step", function(step, steps) return step < steps / 2 and 1 or 0.1 end)
function schedules.schedule(name, factor)
  if type(name) ~= "string" or type(factor) ~= "function" then
    options.fail('burin.schedule takes a name and a function, as '
      .. 'burin.schedule("name", function(step, steps) ... end), '
      .. "not %s and %s", kinds.describe(name), kinds.describe(factor))
  end
  local at, call = place.of(factor), errors.callback(factor)
  return kinds.new("schedule", { name = name, factor = function(step, steps)
    local f = call(step, steps)
    if not options.finite(f) then
      options.fail_at(at, "schedule '%s': its function must give a finite number, not %s (step %d)", name,
        kinds.describe(f), step)
    end
    return f
  end })
end

for name, f in pairs(schedules) do kinds.constructor("schedule", name, f) end

return schedules
