-- SPDX-License-Identifier: MIT
-- samplers.lua - a sampler turns a schedule into a list of steps, each a linear update that runs on the device:
--     e  = model(c_in * x, t)            guided: uncond + guidance * (cond - uncond)
--     x' = a * x + b * e
-- samplers.NAME(schedule, n, prediction) -> { init = scale of the starting noise, { c_in, t, a, b }, ... }.
local samplers = {}

-- DDIM, eta 0 (Song et al. 2020), timesteps "leading" with offset 1 as Stable Diffusion is published with.
function samplers.ddim(schedule, n, prediction)
  local steps, stride = { init = 1 }, schedule.steps // n
  for i = n - 1, 0, -1 do
    local t = math.min(i * stride + 1, schedule.steps - 1)
    local ac = schedule.alpha_bar[t]
    local prev = t - stride >= 0 and schedule.alpha_bar[t - stride] or schedule.alpha_bar[0]
    local s, n1, sp, np = math.sqrt(ac), math.sqrt(1 - ac), math.sqrt(prev), math.sqrt(1 - prev)
    if prediction == "v" then
      table.insert(steps, { c_in = 1, t = t, a = sp * s + np * n1, b = np * s - sp * n1 })
    else
      table.insert(steps, { c_in = 1, t = t, a = sp / s, b = np - sp * n1 / s })
    end
  end
  return steps
end

-- sigma = sqrt((1 - ac) / ac) at a fractional timestep: linear in log sigma between whole ones (k-diffusion).
local function sigma_at(schedule, t)
  local function log_sigma(k) return 0.5 * math.log((1 - schedule.alpha_bar[k]) / schedule.alpha_bar[k]) end
  local low = math.min(math.floor(t), schedule.steps - 2)
  return math.exp(log_sigma(low) + (t - low) * (log_sigma(low + 1) - log_sigma(low)))
end

-- Euler on the probability-flow ODE in sigma space (Karras et al. 2022, as k-diffusion's sample_euler).
function samplers.euler(schedule, n, prediction)
  local t, sigma = {}, {}
  for i = 1, n do
    t[i] = n > 1 and (schedule.steps - 1) * (1 - (i - 1) / (n - 1)) or schedule.steps - 1
    sigma[i] = sigma_at(schedule, t[i])
  end
  sigma[n + 1] = 0
  local steps = { init = sigma[1] }
  for i = 1, n do
    local s, h = sigma[i], sigma[i + 1] - sigma[i]
    local c = 1 / math.sqrt(s * s + 1)
    if prediction == "v" then  -- d = (x - denoised) / s, denoised = x c^2 - v s c
      table.insert(steps, { c_in = c, t = t[i], a = 1 + h * (1 - c * c) / s, b = h * c })
    else
      table.insert(steps, { c_in = c, t = t[i], a = 1, b = h })
    end
  end
  return steps
end

return samplers
