-- SPDX-License-Identifier: MIT
-- noise.lua - the noise schedule of diffusion models and its tables on the device (Ho et al. 2020).
local core = require "burin.core"
local options = require "burin.base.options"
local noise = {}

-- Stable Diffusion's schedule: betas = linspace(sqrt(0.00085), sqrt(0.012), 1000)^2.
-- Returns { steps =, alpha_bar = { [0] = ... } }, alpha_bar = cumulative product of 1 - beta. zero_terminal_snr: sqrt(alpha_bar)
-- is shifted and scaled so that the last one is 0 and the first one stays (Lin et al. 2023, algorithm 1).
function noise.schedule(o)
  o = options.check("schedule", o or {}, {
    beta_start = { "number", default = 0.00085 }, beta_end = { "number", default = 0.012 },
    steps = { "integer", default = 1000, min = 2 }, zero_terminal_snr = { "boolean", default = false },
  })
  local s, product = { steps = o.steps, alpha_bar = {} }, 1
  local a, b = math.sqrt(o.beta_start), math.sqrt(o.beta_end)
  for t = 0, o.steps - 1 do
    product = product * (1 - (a + (b - a) * t / (o.steps - 1)) ^ 2)
    s.alpha_bar[t] = product
  end
  local first, last = math.sqrt(s.alpha_bar[0]), math.sqrt(product)
  for t = 0, o.zero_terminal_snr and o.steps - 1 or -1 do
    s.alpha_bar[t] = ((math.sqrt(s.alpha_bar[t]) - last) * first / (first - last)) ^ 2
  end
  return s
end

local function table_var(name, steps, f)
  local values = {}
  for t = 0, steps - 1 do values[t + 1] = f(t) end
  local var = core.var(name, { steps, 1 }, "f32", "input")
  return { var = var, values = core.tensor({ steps, 1 }, "f32", values) }
end

-- Device tables of a schedule for one loss: sqrt(alpha_bar), sqrt(1 - alpha_bar), snr, loss weight.
-- upload() must be called once memory is committed.
function noise.tables(schedule, loss, prediction)
  local function snr(t) return schedule.alpha_bar[t] / (1 - schedule.alpha_bar[t]) end
  local tables = {
    signal = table_var("schedule.signal", schedule.steps, function(t) return math.sqrt(schedule.alpha_bar[t]) end),
    noise = table_var("schedule.noise", schedule.steps, function(t) return math.sqrt(1 - schedule.alpha_bar[t]) end),
    snr = table_var("schedule.snr", schedule.steps, snr),
    weight = table_var("schedule.weight", schedule.steps, function(t) return loss.weight(snr(t), prediction) end),
  }
  function tables.upload()
    for _, name in ipairs { "signal", "noise", "snr", "weight" } do tables[name].var:write(tables[name].values) end
  end
  return tables
end

return noise
