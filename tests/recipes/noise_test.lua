-- SPDX-License-Identifier: MIT
-- The noise process of a base: one that is marked as ending without signal (zero terminal SNR) is trained on the
-- process that it is sampled with, however it is marked; any other base has Stable Diffusion's.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
T.in_one_process()

local function burin(line, ...)
  local code, out = T.run(line:format(...))
  T.check(code == 0, "%s: %d %s", line, code, out)
  return out
end

-- ---- bases that are marked, in every way there is -----------------------------------------------------------------

local function marked_text(path) return (T.read(path):gsub("{", '{ "rescale_betas_zero_snr": true,', 1)) end

local plain = "models/tiny-sd.safetensors"  -- predicts v
local place = T.folder "bases"
burin("convert %s %s/folder --to diffusers", plain, place)
local scheduler = place .. "/folder/scheduler/scheduler_config.json"
T.write(scheduler, marked_text(scheduler))
burin("convert %s/folder %s/own.safetensors --to single", place, place)
-- The key that other trainers write: an empty tensor.
T.write(place .. "/key.lua", ([[
local core = require "burin.core"
local file = core.load "%s"
local list = { { "ztsnr", core.tensor({ 0 }, "f32") } }
for _, name in ipairs(file:names()) do list[#list + 1] = { name, file:read(name) } end
core.export("%s/key.safetensors", "safetensors", list, file:meta())
]]):format(plain, place))
burin("run --trust %s/key.lua", place)
local golden = "tests/golden/tiny_sd2/"
T.shell(("mkdir %s/beside && cp %smodel_ldm.safetensors %s/beside/"):format(place, golden, place))
T.write(place .. "/beside/config.json", marked_text(golden .. "config.json"))
local marked = { "folder", "own.safetensors", "key.safetensors", "beside/model_ldm.safetensors" }

-- ---- what a loss is told in training, and what a picture says -----------------------------------------------------

-- Stops at the first timestep without signal.
local spy = [[(function()
  local t = -1
  return burin.loss { name = "spy", weight = function(snr)
    t = t + 1
    if snr == 0 then error("nothing is left at timestep " .. t, 0) end
    return 1
  end }
end)()]]

local function plan(base, fields)
  fields.base = ("burin.model %q"):format(base)
  return T.run("plan " .. T.quote(T.recipe("plan", fields)))
end

for _, name in ipairs(marked) do
  local code, out = plan(place .. "/" .. name, { loss = spy })
  T.check(code ~= 0 and out:find "nothing is left at timestep 999", "%s is trained with: %d %s", name, code, out)
end
for _, base in ipairs { plain, "tests/golden/tiny_sd1/model_ldm.safetensors" } do
  local code, out = plan(base, { loss = spy })
  T.check(code == 0 and not out:find "zero terminal", "%s has a signal everywhere: %d %s", base, code, out)
end
burin("sample %s/key.safetensors --prompt cat --steps 2 --out %s/out", place, place)
T.check(burin("inspect %s/out/00001.png", place):find "Noise Schedule: Zero Terminal SNR", "a picture does not say it")

local code, out = plan(place .. "/key.safetensors", {})
T.check(code == 0 and out:find "base [^\n]*predicts v, 1000 timesteps, the last one without", "plan: %d %s", code, out)
code, out = plan(place .. "/key.safetensors", { prediction = '"epsilon"' })
T.check(code == 78 and out:find "zero terminal SNR.*needs a model that predicts v", "epsilon: %d %s", code, out)

-- A weight that is no number is an error, not a loss of NaN.
local steep = 'burin.loss { name = "steep", weight = function(snr) return 1 / snr end }'
code, out = plan(place .. "/folder", { loss = steep })
T.check(code == 78 and out:find "plan.lua:%d+: loss 'steep': weight must give a finite number",
  "a weight of infinity: %d %s", code, out)

-- ---- the tables themselves ----------------------------------------------------------------------------------------

T.write(place .. "/tables.lua", ([[
local losses = require "burin.train.losses"
local models = require "burin.models.model"
local plan = require "burin.train.plan"
local recipe = require "burin.train.recipe"
local sample = require "burin.sample.sampler"
local samplers = require "burin.sample.samplers"
for _, path in ipairs { "%s" } do
  local model = models.open(path)
  local tables = model.noise:tables(losses.min_snr {})
  local sampler = sample.new(model, { width = 64, height = 64 })
  for t = 0, 999 do
    local p, w = sampler.noise:point(t), tables.weight.values:get(t + 1)
    assert(math.abs(tables.signal.values:get(t + 1) - p.alpha) <= 6e-8, t)
    assert(math.abs(tables.noise.values:get(t + 1) - p.noise) <= 6e-8, t)
    assert(w == w and w >= 0 and w < 1, t)
  end
  local first = samplers.points(sampler.noise, "ddim", 10, {})[1]
  print(("%%s: %%g %%d %%g"):format(path:match "[^/]*$", tables.signal.values:get(1000), first.t, first.alpha))
end
]]):format(table.concat({ plain, place .. "/folder", place .. "/own.safetensors", place .. "/key.safetensors",
  place .. "/beside/model_ldm.safetensors" }, '", "')))
out = burin("run --trust %s/tables.lua", place)
T.check(out:find "tiny%-sd.safetensors: 0.0682649 901 0.118342\n", "an unmarked base: %s", out)
T.check(select(2, out:gsub(": 0 999 0\n", "")) == #marked, "signals at the last step, trained and sampled: %s", out)

-- ---- a run --------------------------------------------------------------------------------------------------------

local output = T.folder "run"
burin("train %s --quiet --output %s", T.recipe("run", { base = ("burin.model %q"):format(place .. "/folder"),
  loss = "burin.min_snr { gamma = 5 }" }), output)
local values = T.metrics(output .. "/tiny", "loss")
T.check(#values == 4 and values[4] == values[4] and values[4] < 10, "losses %s", table.concat(values, ", "))
T.check(burin("inspect --summary %s/tiny/tiny.safetensors", output):find "ss_zero_terminal_snr = True",
  "the LoRA does not say it")

T.finish()
