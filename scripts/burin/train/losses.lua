-- SPDX-License-Identifier: MIT
-- losses.lua - the training objective and its losses; what is learnt is the noise process's (models/noise.lua).
-- min-SNR: Hang et al. 2023. A loss is { name =, weight = function(snr, prediction) -> number } (a table over
-- timesteps, looked up on the device) and, for a loss of one's own, per_sample = function(s) -> node (B).
local errors = require "burin.base.errors"
local kinds = require "burin.base.kinds"
local nn = require "burin.graph.nn"
local options = require "burin.base.options"
local place = require "burin.base.place"
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
  if kinds.of(o.loss) ~= "loss" then
    options.fail("the objective needs a loss such as burin.mse {}, not %s", kinds.describe(o.loss))
  end
  local graph, shape, process = o.latents.graph, o.latents.shape, o.process
  local b = shape[1]
  local function look_up(name, t) return graph:leaf(o.tables[name].var):embedding(t):reshape { b, 1, 1, 1 } end
  graph:label "the noise"
  local t = o.t or process:draw(o.control, b, o.min_timestep, o.max_timestep)
  local noise = o.noise or o.control:randn(shape, { use = 2 })
  local signal, sigma = look_up("signal", t), look_up("noise", t)
  local noisy = process:noisy(o.latents, noise, signal, sigma)
  local target = process:target(o.latents, noise, signal, sigma)
  local pred = o.predict(noisy, t)
  graph:label "the loss"
  local s = { pred = pred, target = target, noisy = noisy, latents = o.latents, noise = noise, t = t,
    snr = look_up("snr", t), weight = look_up("weight", t):reshape { b }, graph = graph }
  local loss = o.loss.per_sample and o.loss.per_sample(s) or losses.squared_error(pred, target) * s.weight
  if o.sample_weight then loss = loss * o.sample_weight end
  return (loss:sum_to { 1 } * (1 / b)):reshape {}, s
end

local constructors = {}

function constructors.mse(o)
  options.check("mse", o or {}, {})
  return kinds.new("loss", { name = "mse", weight = function() return 1 end })
end

function constructors.min_snr(o)
  o = options.check("min_snr", o or {}, {
    gamma = { "number", default = 5, min = 0, help = "signal-to-noise ratio from which weights fall" } })
  return kinds.new("loss", { name = "min_snr", gamma = o.gamma, weight = function(snr, prediction)
    return math.min(snr, o.gamma) / (prediction == "v" and snr + 1 or snr)
  end })
end

-- A recipe's per_sample, whose result must be a node (B).
local function checked_values(o)
  local at, call = place.of(o.per_sample), errors.callback(o.per_sample)
  return function(s)
    local b, graph = s.pred.shape[1], s.pred.graph
    local values = call(s)
    if not nn.is_node(values, { b }, graph) then
      options.fail_at(at, "loss '%s': per_sample must give one value per sample, a node (%d), not %s", o.name, b,
        nn.describe(values, graph))
    end
    return values
  end
end

-- A recipe's weight, whose result must be a number from 0 on.
local function checked_weight(o)
  local at, call = place.of(o.weight), errors.callback(o.weight)
  return function(snr, prediction)
    local weight = call(snr, prediction)
    if not options.finite(weight) or weight < 0 then
      options.fail_at(at, "loss '%s': weight must give a finite number from 0 on, not %s (snr %g)", o.name,
        type(weight) == "number" and tostring(weight) or kinds.describe(weight), snr)
    end
    return weight
  end
end

-- burin.loss { name =, per_sample = function(s) ... end }: s holds the nodes pred, target, noisy, latents, noise,
-- t, snr, weight; returns one value per sample.
function constructors.loss(o)
  o = options.check("loss", o, {
    name = { "string", required = true, help = "for messages" },
    per_sample = { "function", help = "function(s) -> one value per sample (B); default the weighted MSE" },
    weight = { "function", default = function() return 1 end,
      help = "function(snr, prediction) -> number, a table over timesteps" },
  })
  o.per_sample, o.weight = o.per_sample and checked_values(o), checked_weight(o)
  return kinds.new("loss", o, place.here "loss")
end

for name, f in pairs(constructors) do losses[name] = kinds.constructor("loss", name, f) end

return losses
