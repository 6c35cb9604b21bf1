-- SPDX-License-Identifier: MIT
-- noise.lua - the noise process of a model: how latents and noise are mixed at each timestep, and what the network says
-- of the mixture. A model has one (model.noise), from its family's record and its own files; training, sampling, losses
-- and metadata all ask it, so that they cannot disagree. A process of any kind has
--
--   kind, steps, prediction ("epsilon" or "v"), zero_terminal_snr
--   signal(t), deviation(t)        x = signal * latents + deviation * noise, at timesteps 0 to steps - 1
--   snr(t)                         (signal / deviation)^2
--   draw(control, b)               timesteps of a training batch, a node (B)
--   noisy, target                  what the network sees and what it should say, of nodes
--   tables(loss)                   all of this on the device, for a training graph
--   point(t), at_sigma(t, sigma)   places in a sampler's words
--   read(x, out, point)            the latents and the noise that an output stands for, of host tensors
--   with(changes), describe()      another process; this one in words
--
-- Rectified flow would be a second kind beside this one, with the same functions.
local class = require "burin.base.class"
local core = require "burin.core"
local errors = require "burin.base.errors"
local options = require "burin.base.options"
local noise, kinds = {}, {}

local sqrt = math.sqrt

-- ---- diffusion (Ho et al. 2020) -----------------------------------------------------------------------------------

local Diffusion, new_diffusion = class("noise process",
  { "kind", "settings", "steps", "prediction", "zero_terminal_snr", "alpha_bar" })

local schema = {
  kind = { "string", one_of = { "diffusion" }, help = "how noise is added" },
  beta_start = { "number", default = 0.00085, help = "Stable Diffusion's" },
  beta_end = { "number", default = 0.012, help = "Stable Diffusion's" },
  steps = { "integer", default = 1000, min = 2, help = "timesteps" },
  prediction = { "string", default = "epsilon", one_of = { "epsilon", "v" }, help = "what the network says" },
  zero_terminal_snr = { "boolean", default = false, help = "the last timestep has no signal at all" },
}

-- betas = linspace(sqrt(beta_start), sqrt(beta_end), steps)^2, alpha_bar = cumulative product of 1 - beta, from [0] on.
-- zero_terminal_snr: sqrt(alpha_bar) is shifted and scaled so that the last one is 0 and the first one stays (Lin et
-- al. 2023, algorithm 1).
local function alpha_bar(o)
  local list, product = {}, 1
  local a, b = sqrt(o.beta_start), sqrt(o.beta_end)
  for t = 0, o.steps - 1 do
    product = product * (1 - (a + (b - a) * t / (o.steps - 1)) ^ 2)
    list[t] = product
  end
  local first, last = sqrt(list[0]), sqrt(product)
  for t = 0, o.zero_terminal_snr and o.steps - 1 or -1 do
    list[t] = ((sqrt(list[t]) - last) * first / (first - last)) ^ 2
  end
  return list
end

function kinds.diffusion(o)
  o = options.check("noise", o, schema)
  return new_diffusion { kind = "diffusion", settings = o, steps = o.steps, prediction = o.prediction,
    zero_terminal_snr = o.zero_terminal_snr, alpha_bar = alpha_bar(o) }
end

function Diffusion:signal(t) return sqrt(self.alpha_bar[t]) end
function Diffusion:deviation(t) return sqrt(1 - self.alpha_bar[t]) end
function Diffusion:snr(t) return self.alpha_bar[t] / (1 - self.alpha_bar[t]) end

-- This process with some settings changed: { zero_terminal_snr = true }.
function Diffusion:with(changes)
  local o, same = {}, true
  for name, value in pairs(self.settings) do o[name] = value end
  for name, value in pairs(changes) do
    same = same and o[name] == value
    o[name] = value
  end
  return same and self or kinds.diffusion(o)
end

function Diffusion:describe()
  return ("predicts %s, %d timesteps%s"):format(self.prediction, self.steps,
    self.zero_terminal_snr and ", the last one without signal (zero terminal SNR)" or "")
end

-- Where no signal is left, naming the noise says nothing about the latents.
function Diffusion:check_end()
  if self.prediction == "v" or self.alpha_bar[self.steps - 1] > 0 then return end
  errors.raise("recipe", "a schedule without signal at its end (zero terminal SNR) needs a model that predicts v; "
    .. "this one predicts " .. self.prediction)
end

-- ---- training -----------------------------------------------------------------------------------------------------

function Diffusion:draw(control, b, low, high)
  return control:randint({ b }, { use = 1, low = low or 0, high = high or self.steps })
end

function Diffusion:noisy(latents, added, signal, deviation) return latents * signal + added * deviation end

-- Ho et al. 2020; Salimans & Ho 2022
function Diffusion:target(latents, added, signal, deviation)
  return self.prediction == "v" and added * signal - latents * deviation or added
end

-- A table over the timesteps on the device.
local function table_var(name, steps, f)
  local values = {}
  for t = 0, steps - 1 do values[t + 1] = f(t) end
  local var = core.var(name, { steps, 1 }, "f32", "input")
  return { var = var, values = core.tensor({ steps, 1 }, "f32", values) }
end

-- { signal, noise, snr, weight }, each { var =, values = }. weight: of the loss. upload() must be called once memory is
-- committed.
function Diffusion:tables(loss)
  self:check_end()
  local function weight(t)
    local snr = self:snr(t)
    local w = loss.weight(snr, self.prediction)
    if type(w) ~= "number" or w ~= w or math.abs(w) == math.huge then
      errors.raise("recipe", "the loss '%s' has the weight %s at timestep %d, where the signal-to-noise ratio is %g",
        loss.name or "of the recipe", w, t, snr)
    end
    return w
  end
  local tables = {
    signal = table_var("schedule.signal", self.steps, function(t) return self:signal(t) end),
    noise = table_var("schedule.noise", self.steps, function(t) return self:deviation(t) end),
    snr = table_var("schedule.snr", self.steps, function(t) return self:snr(t) end),
    weight = table_var("schedule.weight", self.steps, weight),
  }
  function tables.upload()
    for _, name in ipairs { "signal", "noise", "snr", "weight" } do tables[name].var:write(tables[name].values) end
  end
  return tables
end

-- ---- sampling -----------------------------------------------------------------------------------------------------

-- A place between latents and noise: timestep t and alpha_bar = alpha^2.
function noise.point(t, alpha_bar_at)
  local alpha, deviation = sqrt(alpha_bar_at), sqrt(1 - alpha_bar_at)
  return { t = t, alpha = alpha, noise = deviation, sigma = deviation / alpha, lambda = math.log(alpha / deviation) }
end

function Diffusion:at_sigma(t, sigma) return noise.point(t, 1 / (1 + sigma * sigma)) end

-- floor: the least alpha_bar, for samplers that need a sigma everywhere.
function Diffusion:log_sigma(t, floor)
  local function whole(k)
    local ac = math.max(self.alpha_bar[k], floor)
    return 0.5 * math.log((1 - ac) / ac)
  end
  local low = math.min(math.floor(t), self.steps - 2)
  return whole(low) + (t - low) * (whole(low + 1) - whole(low))
end

-- Between whole timesteps log sigma is linear, as in k-diffusion.
function Diffusion:point(t, floor)
  floor = floor or 0
  if t == math.floor(t) then return noise.point(t, math.max(self.alpha_bar[math.tointeger(t)], floor)) end
  return self:at_sigma(t, math.exp(self:log_sigma(t, floor)))
end

function Diffusion:read(x, out, p)
  if self.prediction == "v" then
    return core.mix(p.alpha, x, -p.noise, out), core.mix(p.alpha, out, p.noise, x)
  end
  return core.mix(1 / p.alpha, x, -p.sigma, out), out
end

-- ---- of any kind --------------------------------------------------------------------------------------------------

-- o: kind ("diffusion"), and what that kind takes.
function noise.new(o)
  o = o or {}
  return (kinds[o.kind or "diffusion"] or kinds.diffusion)(o)
end

return noise
