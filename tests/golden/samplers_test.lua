-- SPDX-License-Identifier: MIT
-- Samplers and schedules against recorded numbers. samplers.safetensors is from k-diffusion and diffusers 0.25,
-- samplers_more.safetensors from diffusers 0.31 (tests/oracle/samplers.py). The network is a function of (x, t), whose
-- value is taken as noise or as velocity; fresh noise is part of the record.
-- Runs as `burin run --trust tests/golden/samplers_test.lua` from the repository root.
local core = require "burin.core"
local losses = require "burin.train.losses"
local noise = require "burin.models.noise"
local samplers = require "burin.sample.samplers"

local TOLERANCE = 1e-5
local T = dofile "tests/check.lua"
local check = T.checkf
local worst = 0

-- |ours - reference| / |reference|
local function compare(name, ours, reference)
  if not reference then return check(false, "%s: nothing is recorded", name) end
  local distance, norm = ours:distance(reference)
  worst = math.max(worst, distance / norm)
  check(distance / norm <= TOLERANCE, "%s: differs by %.3g", name, distance / norm)
end

local function tanh(x) return 1 - 2 / (math.exp(2 * x) + 1) end
local function model(x, t)
  local out, offset = core.tensor(x.shape, "f32"), 0.05 * math.cos(0.01 * t)
  for i = 1, x.count do out:set(i, 0.6 * tanh(x:get(i)) + 0.3 * x:get(i) + offset) end
  return out
end

local record, more = core.load "tests/golden/samplers.safetensors", core.load "tests/golden/samplers_more.safetensors"
local unit, fresh, seen = record:read "x_T_unit", record:read "step_noises", {}
local schedules = { [false] = noise.new {}, [true] = noise.new { zero_terminal_snr = true } }

-- o: prediction, spacing, sigmas, final, zero (terminal SNR), steps (8), first, at, start
local function draw(name, o)
  local schedule = schedules[o.zero or false]:with { prediction = o.prediction }
  local at = o.at or samplers.points(schedule, name, o.steps or 8, o)
  local x = core.mix(o.start or at.start, unit)
  if o.first then x = core.mix(at[o.first].alpha, more:read "latents", at[o.first].noise, unit) end
  return samplers.run(name, { noise = schedule, at = at, x = x, first = o.first, model = model,
    fresh = function(i) return fresh:rows((i - 1) % 8 + 1) end })
end

local function follow(file, key, name, o, predictions)
  for prediction, suffix in pairs(predictions or { epsilon = ".eps", v = ".v" }) do
    o.prediction = prediction
    compare(key .. suffix, draw(name, o), file:read(key .. suffix))
    seen[key .. suffix] = true
  end
end
local EPSILON, V = { epsilon = ".eps" }, { v = ".v" }

-- ---- k-diffusion ----------------------------------------------------------------------------------------------------

for name, key in pairs { euler = "euler", euler_a = "euler_a", heun = "heun", dpmpp_2m = "dpmpp_2m",
  dpmpp_2m_sde = "dpmpp_sde_2m" } do
  follow(record, key .. ".default", name, {})
  follow(record, key .. ".karras", name, { sigmas = "karras" })
end

local function sigmas_of(name, n, o)
  local list = {}
  for i, p in ipairs(samplers.points(schedules[false], name, n, o)) do list[i] = p.sigma end
  return core.tensor({ #list }, "f32", list)
end
for n, suffix in pairs { [8] = "", [20] = "_20", [30] = "_30" } do
  compare("sigmas" .. suffix, sigmas_of("euler", n, {}), record:read("sigmas.kdiffusion_default" .. suffix))
  compare("karras" .. suffix, sigmas_of("euler", n, { sigmas = "karras" }),
    record:read("sigmas.karras_" .. (n == 8 and "rho7" or n)))
end
local karras = samplers.points(schedules[false], "euler", 8, { sigmas = "karras" })
for i, t in ipairs(record:read "timesteps_of_karras_sigmas":table()) do
  check(math.abs(karras[i].t - t) < 1e-2, "karras: timestep %d is %g, not %g", i, karras[i].t, t)
end

-- ---- diffusers 0.25 -------------------------------------------------------------------------------------------------

follow(record, "diffusers.ddim", "ddim", {})
follow(record, "diffusers.ddim_eta1", "ddpm", { final = "first" }, EPSILON)
follow(record, "diffusers.dpmpp_2m", "dpmpp_2m", { spacing = "whole", final = "first" })
for _, spacing in ipairs { "leading", "trailing" } do follow(record, "diffusers.euler." .. spacing, "euler",
  { spacing = spacing }) end
follow(record, "diffusers.euler.karras", "euler", { sigmas = "karras" })

-- What diffusers interpolates or rounds in its own way is followed with its own points.
local function recorded_points(file, key)
  local at, t = {}, file:read(key .. ".timesteps")
  for i, sigma in ipairs(file:read(key .. ".sigmas"):table()) do
    at[i] = noise.point(i <= t.count and t:get(i) or 0, 1 / (1 + sigma * sigma))
  end
  return at
end
local linear = recorded_points(record, "diffusers.euler.linspace")
follow(record, "diffusers.euler.linspace", "euler", { at = linear, start = linear[1].noise })
follow(record, "diffusers.dpmpp_2m.karras", "dpmpp_2m", { at = recorded_points(record, "diffusers.dpmpp_2m.karras"),
  start = 1 })

for name, key in pairs { ddim = "ddim", dpmpp_2m = "dpmpp_2m" } do
  local at = samplers.points(schedules[false], name, 8, { spacing = name == "dpmpp_2m" and "whole" or nil })
  for i, t in ipairs(record:read("diffusers." .. key .. ".timesteps"):table()) do
    check(at[i].t == t, "%s: timestep %d is %g, not %g", name, i, at[i].t, t)
  end
end

-- ---- diffusers 0.31 -------------------------------------------------------------------------------------------------

for n, tail in pairs { [8] = "", [20] = ".20" } do
  follow(more, "ddpm" .. tail, "ddpm", { steps = n })
  follow(more, "lms.leading" .. tail, "lms", { steps = n, spacing = "leading" })
  follow(more, "dpmpp_2m" .. tail, "dpmpp_2m", { steps = n, spacing = "whole" })
  follow(more, "dpmpp_2m_sde" .. tail, "dpmpp_2m_sde", { steps = n, spacing = "whole" })
  follow(more, "unipc" .. tail, "unipc", { steps = n })
end
linear = recorded_points(more, "lms.linspace")
follow(more, "lms.linspace", "lms", { at = linear, start = linear[1].noise })
follow(more, "lms.karras", "lms", { sigmas = "karras" })
follow(more, "heun.karras", "heun", { sigmas = "karras" })
follow(more, "unipc.karras", "unipc", { at = recorded_points(more, "unipc.karras"), start = 1 })
follow(more, "euler_a.leading", "euler_a", { spacing = "leading" })
for _, name in ipairs { "ddim", "ddpm", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_sde", "unipc" } do
  local spacing = name:match "^euler" and "trailing" or name:match "^dpmpp" and "whole" or nil
  follow(more, "zero." .. name, name, { zero = true, spacing = spacing }, V)
end
for name, spacing in pairs { ddim = "leading", euler_a = "leading", dpmpp_2m = "whole", unipc = "whole" } do
  follow(more, "image." .. name, name, { first = 5, spacing = spacing })
end

-- As many steps as there are timesteps, and more than that.
local all = samplers.points(schedules[false], "ddpm", 1000, {})
check(all[1].t == 999 and all[1000].t == 0 and all[1001].noise == 0, "DDPM in 1000 steps goes from %g to %g", all[1].t,
  all[1000].t)
for _, case in ipairs { { "unipc", 1000 }, { "ddim", 1001 } } do
  local ok, e = pcall(samplers.points, schedules[false], case[1], case[2], {})
  check(not ok and tostring(e.message):find "too many", "%s in %d steps", case[1], case[2])
end

-- Every picture of both records was compared.
for _, file in ipairs { record, more } do
  for _, name in ipairs(file:names()) do
    check(seen[name] or not name:match "%.eps$" and not name:match "%.v$", "%s was not compared", name)
  end
end
check(not pcall(draw, "ddim", { zero = true, prediction = "epsilon" }), "zero terminal SNR without v-prediction")

-- ---- the schedule ---------------------------------------------------------------------------------------------------

local function noised(schedule, prefix)
  local t, x0, noise = record:read "ddpm.t":table(), record:read "ddpm.latents", record:read "ddpm.noise"
  local noisy, velocity = core.tensor(x0.shape, "f32"), core.tensor(x0.shape, "f32")
  for i, k in ipairs(t) do
    local p, first = schedule:point(k), (i - 1) * x0.count // #t + 1
    noisy:copy_into(first, core.mix(p.alpha, x0:rows(i), p.noise, noise:rows(i)))
    velocity:copy_into(first, core.mix(p.alpha, noise:rows(i), -p.noise, x0:rows(i)))
  end
  compare(prefix .. ".noisy", noisy, record:read(prefix .. ".noisy"))
  compare(prefix .. ".velocity", velocity, record:read(prefix .. ".velocity"))
end
noised(schedules[false], "ddpm")
noised(schedules[true], "zero_terminal_snr")

-- tests/data/schedule_table.tsv, all 1,000 rows; the table itself was computed in float32.
local columns, rows = {}, 0
local min_snr = losses.min_snr { gamma = 5 }
for line in core.read_file("tests/data/schedule_table.tsv"):gmatch "[^\n]+" do
  local row = {}
  for field in line:gmatch "[^\t]+" do row[#row + 1] = field end
  if row[1] == "t" then
    for i, name in ipairs(row) do columns[name:match "^[^=]+"] = i end
  else
    rows = rows + 1
    local t = math.tointeger(row[1])
    local ac = schedules[false].alpha_bar[t]
    local tolerance = 1e-5 + 6e-8 / (1 - ac)  -- 1 - alpha_bar in float32
    local function near(name, ours)
      local want = tonumber(row[columns[name]])
      check(math.abs(ours - want) <= tolerance * math.max(math.abs(want), 1e-3), "%s at %d is %.9g, not %.9g", name, t,
        ours, want)
    end
    local snr = ac / (1 - ac)
    near("alpha_cumprod", ac)
    near("sigma_karras", schedules[false]:point(t).sigma)
    near("snr", snr)
    near("min_snr_gamma5_eps", min_snr.weight(snr, "epsilon"))
    near("min_snr_gamma5_v", min_snr.weight(snr, "v"))
    near("zero_terminal_snr_alpha_cumprod", schedules[true].alpha_bar[t])
  end
end
check(rows == 1000, "the schedule's table has %d rows", rows)
check(schedules[true].alpha_bar[999] == 0, "zero terminal SNR ends at %g", schedules[true].alpha_bar[999])

T.finish(("; worst of the pictures %.1e"):format(worst))
