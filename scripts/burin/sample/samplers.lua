-- SPDX-License-Identifier: MIT
-- samplers.lua - from noise to latents. Latents are x = alpha x0 + noise n with alpha^2 + noise^2 = 1, as the network
-- takes them; sigma = noise / alpha and lambda = -log sigma are the same place in other words. A network's output is
-- read as x0 and as noise by the model's noise process (models/noise.lua), so samplers know neither epsilon nor v.
--
-- A sampler is one entry of `samplers.list`:
--   label   what A1111 calls it
--   spacing where its timesteps lie (`timesteps`, below)
--   unit    whether it starts from noise of deviation 1, and not `noise` of the first point (1 but for 0.002)
--   final   "first": ends at the noise of timestep 0; else at none
--   exact   takes a first timestep without any signal as it is
--   step    function(s, x, i) -> x at s.at[i + 1], from x at s.at[i] = { t, alpha, noise, sigma, lambda }.
--           s:predict(x, i) -> x0, noise; s:fresh(i) -> new noise; s.old: a table of its own, empty at the start;
--           s.first, s.last: the numbers of its steps
local class = require "burin.base.class"
local core = require "burin.core"
local errors = require "burin.base.errors"
local point = require("burin.models.noise").point
local samplers = { list = {} }
local list, mix, exp, sqrt = samplers.list, core.mix, math.exp, math.sqrt

-- DDIM (Song et al. 2020) without noise of its own. In terms of sigma it is Euler's step, on another schedule.
local function euler(s, x, i)
  local x0, noise = s:predict(x, i)
  local b = s.at[i + 1]
  return mix(b.alpha, x0, b.noise, noise)
end

-- Part of the noise is fresh: DDPM's posterior (Ho et al. 2020), k-diffusion's "ancestral" step.
local function ancestral(s, x, i)
  local a, b = s.at[i], s.at[i + 1]
  local x0, noise = s:predict(x, i)
  local up = b.noise * sqrt(1 - (b.sigma / a.sigma) ^ 2)
  return mix(b.alpha, x0, sqrt(b.noise ^ 2 - up ^ 2), noise, up, s:fresh(i))
end

-- The mean slope of both ends (Karras et al. 2022, algorithm 1): dx / dsigma is the noise.
local function heun(s, x, i)
  local a, b = s.at[i], s.at[i + 1]
  local x0, noise = s:predict(x, i)
  local y = mix(b.alpha, x0, b.noise, noise)
  if b.noise == 0 then return y end
  local _, after = s:predict(y, i + 1)
  return mix(b.alpha, x0, b.alpha * (a.sigma + b.sigma) / 2, noise, b.alpha * (b.sigma - a.sigma) / 2, after)
end

-- Adams-Bashforth of order 4 on the uneven grid of sigmas: the slopes' polynomial, integrated exactly (two Gauss
-- points).
local function lms(s, x, i)
  local a, b, slopes = s.at[i], s.at[i + 1], s.old
  local x0, noise = s:predict(x, i)
  table.insert(slopes, 1, noise)
  slopes[5] = nil
  local terms, middle, half = { b.alpha, x0, b.alpha * a.sigma, noise }, (a.sigma + b.sigma) / 2,
    (b.sigma - a.sigma) / 2
  for j = 1, #slopes do
    local c, at = 0, s.at[i + 1 - j].sigma
    for side = -1, 1, 2 do
      local basis = half
      for k = 1, #slopes do
        local other = s.at[i + 1 - k].sigma
        if k ~= j then basis = basis * (middle + side * half / sqrt(3) - other) / (at - other) end
      end
      c = c + basis
    end
    terms[#terms + 1], terms[#terms + 2] = b.alpha * c, slopes[j]
  end
  return mix(table.unpack(terms))
end

-- x0 drawn on along a line through the step before, to the middle of this one; and h, this step's length in lambda.
local function middle_x0(s, x, i)
  local x0, h, old = s:predict(x, i), s.at[i + 1].lambda - s.at[i].lambda, s.old
  local far = old.x0 and h / old.h / 2
  s.old = { x0 = x0, h = h }
  if not far or i == s.last and (h == math.huge or s.last < 15) then return x0, h end
  return mix(1 + far, x0, -far, old.x0), h
end

-- DPM-Solver++ of second order (Lu et al. 2022, algorithm 2): x0 is integrated over lambda.
local function dpmpp_2m(s, x, i)
  local a, b, x0, h = s.at[i], s.at[i + 1], middle_x0(s, x, i)
  return mix(b.noise / a.noise, x, b.alpha * (1 - exp(-h)), x0)
end

-- The same for the stochastic equation (k-diffusion's sample_dpmpp_2m_sde, eta 1, midpoint).
local function dpmpp_2m_sde(s, x, i)
  local a, b, x0, h = s.at[i], s.at[i + 1], middle_x0(s, x, i)
  return mix(b.noise / a.noise * exp(-h), x, b.alpha * (1 - exp(-2 * h)), x0, b.noise * sqrt(1 - exp(-2 * h)),
    s:fresh(i))
end

-- UniPC's B2 from x at a to b (Zhao et al. 2023): x0 at a; before = { lambda, x0 } of the point before, which makes it
-- second order; after = x0 at b, to correct the step with.
local function unipc_step(a, b, x, x0, before, after)
  local h = b.lambda - a.lambda
  local phi, w_before, w_after = exp(-h) - 1, 0, after and 0.5 or 0
  if before then
    local r = (before.lambda - a.lambda) / h
    w_before = 0.5 / r
    if after then
      local phi2 = -phi / h - 1
      local b1, b2 = phi2 / phi, -(2 * phi2 / h + 1) / phi
      w_before, w_after = (b1 - b2) / (1 - r) / r, b1 - (b1 - b2) / (1 - r)
    end
  end
  local c = -b.alpha * phi
  return mix(b.noise / a.noise, x, c * (1 - w_before - w_after), x0,
    c * w_before, before and before.x0 or x0, c * w_after, after or x0)
end

local function unipc(s, x, i)
  local a, b, old = s.at[i], s.at[i + 1], s.old
  local x0 = s:predict(x, i)
  if old.a then x = unipc_step(old.a, a, old.x, old.x0, old.before, x0) end
  local before = old.a and i < s.last and { lambda = old.a.lambda, x0 = old.x0 } or nil
  s.old = { a = a, x = x, x0 = x0, before = before }
  return unipc_step(a, b, x, x0, before)
end

list.ddim = { label = "DDIM", spacing = "leading", unit = true, final = "first", exact = true, step = euler }
list.ddpm = { label = "DDPM", spacing = "leading", unit = true, exact = true, step = ancestral }
list.euler = { label = "Euler", spacing = "linspace", step = euler }
list.euler_a = { label = "Euler a", spacing = "linspace", step = ancestral }
list.heun = { label = "Heun", spacing = "linspace", step = heun }
list.lms = { label = "LMS", spacing = "linspace", step = lms }
list.dpmpp_2m = { label = "DPM++ 2M", spacing = "linspace", step = dpmpp_2m }
list.dpmpp_2m_sde = { label = "DPM++ 2M SDE", spacing = "linspace", step = dpmpp_2m_sde }
list.unipc = { label = "UniPC", spacing = "whole", unit = true, step = unipc }

samplers.names = {}
for name in pairs(list) do samplers.names[#samplers.names + 1] = name end
table.sort(samplers.names)

-- ---- where the steps lie --------------------------------------------------------------------------------------------

local function round(x)  -- half to even, as numpy does
  local low = math.floor(x)
  if x - low ~= 0.5 then return math.floor(x + 0.5) end
  return low % 2 == 0 and low or low + 1
end

-- The i-th of n timesteps out of 0 .. steps - 1, descending.
local timesteps = {
  -- k-diffusion
  linspace = function(i, n, steps) return n > 1 and (steps - 1) * (1 - (i - 1) / (n - 1)) or steps - 1 end,
  -- with the offset 1 that Stable Diffusion was published with, where there is room for it
  leading = function(i, n, steps)
    local stride = steps // n
    return (n - i) * stride + math.min(1, steps - 1 - (n - 1) * stride)
  end,
  trailing = function(i, n, steps) return round(steps - (i - 1) * steps / n) - 1 end,
  whole = function(i, n, steps) return round((steps - 1) * (1 - (i - 1) / n)) end,  -- diffusers' multistep solvers
}
samplers.spacings = { "leading", "linspace", "trailing", "whole" }
samplers.sigmas = { "normal", "karras" }

-- Karras et al. 2022, equation 5, rho = 7, over the process's own range.
local function karras(process, i, n, floor)
  local last = process.steps - 1
  local low, high = exp(process:log_sigma(0, floor) / 7), exp(process:log_sigma(last, floor) / 7)
  local sigma = (n > 1 and high + (i - 1) / (n - 1) * (low - high) or high) ^ 7
  local a, b, wanted = 0, last, math.log(sigma)
  while b - a > 1 do  -- the whole timesteps around it
    local m = (a + b) // 2
    if process:log_sigma(m, floor) <= wanted then a = m else b = m end
  end
  local below, above = process:log_sigma(a, floor), process:log_sigma(b, floor)
  return process:at_sigma(math.max(0, math.min(last, a + (wanted - below) / (above - below))), sigma)
end

-- The n + 1 points of a sampler. o: spacing, sigmas ("normal" or "karras"), final; what is nil is the sampler's own.
-- A process that ends without any signal has no sigma there: 2^-24 stands for alpha_bar = 0, as in diffusers, but for
-- samplers that can do without (`exact`); and its end is what "trailing" is for.
function samplers.points(process, name, n, o)
  local entry, last, at = list[name], process.steps - 1, {}
  local floor = entry.exact and 0 or 2 ^ -24
  local to_the_end = process:signal(last) == 0 and entry.spacing == "leading"
  local spacing = o.spacing or to_the_end and "trailing" or entry.spacing
  for i = 1, n do
    local t = timesteps[spacing](i, n, process.steps)
    at[i] = o.sigmas == "karras" and karras(process, i, n, 2 ^ -24) or process:point(t, floor)
    if i > 1 and at[i].lambda <= at[i - 1].lambda then
      errors.raise("recipe", ("%d steps are too many for %s: two would begin at timestep %d"):format(n, entry.label, t))
    end
  end
  at[n + 1] = (o.final or entry.final) == "first" and process:point(0) or point(0, 1)
  at.start = (entry.unit or spacing == "leading" or spacing == "whole") and 1 or at[1].noise
  return at
end

-- ---- running one ----------------------------------------------------------------------------------------------------

local State, new_state = class "sampler state"

function State:predict(x, i)
  return self.noise:read(x, self.model(x, self.at[i].t), self.at[i])
end

-- Follows the points `at` from x at point `first` (1). o: noise (the process), at, x, first, model = function(x, t) ->
-- the network's output, fresh = function(i) -> noise of deviation 1, progress = function(i). Returns the latents.
function samplers.run(name, o)
  local s = new_state { noise = o.noise, at = o.at, model = o.model, old = {}, first = o.first or 1,
    last = #o.at - 1, fresh = function(_, i) return o.fresh(i) end }
  if s.at[s.first].alpha == 0 then o.noise:check_end() end
  local x = o.x
  for i = s.first, s.last do
    x = list[name].step(s, x, i)
    if o.progress then o.progress(i) end
  end
  return x
end

return samplers
