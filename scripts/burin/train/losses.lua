-- SPDX-License-Identifier: MIT
-- losses.lua - the training objective and its losses; what is learnt is the noise process's (models/noise.lua).
-- min-SNR: Hang et al. 2023. A loss is { name =, weight = function(snr, prediction) -> number } (a table over
-- timesteps, looked up on the device) and, for a loss of one's own, per_sample = function(s) -> node (B).
local options = require "burin.base.options"
local losses = {}

-- Mean squared error per sample: (B).
function losses.squared_error(a, b)
  local shape, n = a.shape, 1
  for i = 2, #shape do n = n * shape[i] end
  local sum = (a:cast "f32" - b):square():sum_to { shape[1], 1, 1, 1 }
  return (sum * (1 / n)):reshape { shape[1] }
end

-- The training objective of one batch. process: model.noise; tables: its tables of the loss; latents (B, h, w, c);
-- predict(noisy, t) -> node; sample_weight (B) or nil. Returns the scalar loss.
function losses.objective(o)
  local graph, shape, process = o.latents.graph, o.latents.shape, o.process
  local b = shape[1]
  local function look_up(name, t) return graph:leaf(o.tables[name].var):embedding(t):reshape { b, 1, 1, 1 } end
  local t = o.t or process:draw(o.control, b, o.min_timestep, o.max_timestep)
  local noise = o.noise or o.control:randn(shape, { use = 2 })
  local signal, sigma = look_up("signal", t), look_up("noise", t)
  local noisy = process:noisy(o.latents, noise, signal, sigma)
  local target = process:target(o.latents, noise, signal, sigma)
  local pred = o.predict(noisy, t)
  local s = { pred = pred, target = target, noisy = noisy, latents = o.latents, noise = noise, t = t,
    snr = look_up("snr", t), weight = look_up("weight", t):reshape { b }, graph = graph }
  local loss = o.loss.per_sample and o.loss.per_sample(s) or losses.squared_error(pred, target) * s.weight
  if o.sample_weight then loss = loss * o.sample_weight end
  return (loss:sum_to { 1 } * (1 / b)):reshape {}, s
end

function losses.mse() return { name = "mse", weight = function() return 1 end } end

function losses.min_snr(o)
  o = options.check("min_snr", o or {}, {
    gamma = { "number", default = 5, min = 0, help = "signal-to-noise ratio from which weights fall" } })
  return { name = "min_snr", gamma = o.gamma, weight = function(snr, prediction)
    return math.min(snr, o.gamma) / (prediction == "v" and snr + 1 or snr)
  end }
end

-- burin.loss { name =, per_sample = function(s) ... end }: s holds the nodes pred, target, noisy, latents, noise,
-- t, snr, weight; returns one value per sample.
function losses.custom(o)
  o = options.check("loss", o, {
    name = { "string", required = true, help = "for messages" },
    per_sample = { "function", help = "function(s) -> one value per sample (B); default the weighted MSE" },
    weight = { "function", default = function() return 1 end, help = "function(snr, prediction) -> number, a table over timesteps" },
  })
  return o
end

return losses
