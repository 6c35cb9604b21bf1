-- SPDX-License-Identifier: MIT
-- diffusion.lua - the noise schedule, and losses. Formulas: Ho et al. 2020 (DDPM), Salimans & Ho 2022 (v-prediction),
-- Hang et al. 2023 (min-SNR). A loss is { name =, weight = function(snr, prediction) -> number } (a table over
-- timesteps, looked up on the device) and, for a loss of one's own, per_sample = function(s) -> node (B).
local core = require "burin.core"
local options = require "burin.options"
local diffusion = {}

-- Stable Diffusion's schedule: betas = linspace(sqrt(0.00085), sqrt(0.012), 1000)^2.
-- Returns { steps =, alpha_bar = { [0] = ... } }, alpha_bar = cumulative product of 1 - beta. zero_terminal_snr: sqrt(alpha_bar)
-- is shifted and scaled so that the last one is 0 and the first one stays (Lin et al. 2023, algorithm 1).
function diffusion.schedule(o)
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
function diffusion.tables(schedule, loss, prediction)
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

-- Mean squared error per sample: (B).
function diffusion.mse(a, b)
  local shape, n = a.shape, 1
  for i = 2, #shape do n = n * shape[i] end
  local sum = (a:cast "f32" - b):square():sum_to { shape[1], 1, 1, 1 }
  return (sum * (1 / n)):reshape { shape[1] }
end

-- The training objective of one batch. latents (B, h, w, c); predict(noisy, t) -> node; sample_weight (B) or nil.
-- Returns the scalar loss.
function diffusion.objective(o)
  local graph, shape = o.latents.graph, o.latents.shape
  local b = shape[1]
  local function look_up(name, t) return graph:leaf(o.tables[name].var):embedding(t):reshape { b, 1, 1, 1 } end
  local t = o.t or o.control:randint({ b }, { use = 1, low = o.min_timestep or 0, high = o.max_timestep or o.steps or 1000 })
  local noise = o.noise or o.control:randn(shape, { use = 2 })
  local signal, sigma = look_up("signal", t), look_up("noise", t)
  local noisy = o.latents * signal + noise * sigma
  local target = o.prediction == "v" and noise * signal - o.latents * sigma or noise
  local pred = o.predict(noisy, t)
  local s = { pred = pred, target = target, noisy = noisy, latents = o.latents, noise = noise, t = t,
    snr = look_up("snr", t), weight = look_up("weight", t):reshape { b }, graph = graph }
  local loss = o.loss.per_sample and o.loss.per_sample(s) or diffusion.mse(pred, target) * s.weight
  if o.sample_weight then loss = loss * o.sample_weight end
  return (loss:sum_to { 1 } * (1 / b)):reshape {}, s
end

diffusion.losses = {}
function diffusion.losses.mse() return { name = "mse", weight = function() return 1 end } end

function diffusion.losses.min_snr(o)
  o = options.check("min_snr", o or {}, {
    gamma = { "number", default = 5, min = 0, help = "signal-to-noise ratio from which weights fall" } })
  return { name = "min_snr", gamma = o.gamma, weight = function(snr, prediction)
    return math.min(snr, o.gamma) / (prediction == "v" and snr + 1 or snr)
  end }
end

-- burin.loss { name =, per_sample = function(s) ... end }: s holds the nodes pred, target, noisy, latents, noise,
-- t, snr, weight; returns one value per sample.
function diffusion.losses.custom(o)
  o = options.check("loss", o, {
    name = { "string", required = true, help = "for messages" },
    per_sample = { "function", help = "function(s) -> one value per sample (B); default the weighted MSE" },
    weight = { "function", default = function() return 1 end, help = "function(snr, prediction) -> number, a table over timesteps" },
  })
  return o
end

return diffusion
