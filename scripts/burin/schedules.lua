-- SPDX-License-Identifier: MIT
-- schedules.lua - learning-rate schedules: a factor in [0, 1] for each step. A schedule is a table
-- { name =, factor = function(step, steps) }, steps counted from 0; a new one is one more function here or in a recipe.
local options = require "burin.options"
local schedules = {}

-- warmup: a share of all steps below 1, else a number of steps.
local function with_warmup(name, o, after)
  o = options.check(name, o or {}, {
    warmup = { "number", default = 0, min = 0, help = "share of all steps (< 1) or number of steps" },
    floor = { "number", default = 0, min = 0, max = 1, help = "smallest factor" },
    cycles = { "number", default = 1, min = 0.01, help = "cosine: how many times it falls" },
  })
  return {
    name = name,
    factor = function(step, steps)
      local warm = o.warmup < 1 and o.warmup * steps or o.warmup
      if step < warm then return math.min(1, (step + 1) / warm) end
      local left = math.max(1, steps - warm)
      return o.floor + (1 - o.floor) * after(math.min(1, (step - warm) / left), o)
    end,
  }
end

function schedules.constant(o) return with_warmup("constant", o, function() return 1 end) end
function schedules.linear(o) return with_warmup("linear", o, function(x) return 1 - x end) end
function schedules.cosine(o)
  return with_warmup("cosine", o, function(x, c) return 0.5 * (1 + math.cos(math.pi * ((c.cycles * x) % 1.0000001))) end)
end

-- A schedule of one's own: burin.schedule("step", function(step, steps) return step < steps / 2 and 1 or 0.1 end)
function schedules.custom(name, factor) return { name = name, factor = factor } end

return schedules
