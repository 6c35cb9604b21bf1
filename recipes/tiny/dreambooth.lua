-- SPDX-License-Identifier: MIT
-- One measured Dreambooth run on the tiny model: every few steps 32 pictures of the subject and 32 of an ordinary cat
-- are drawn and read by the world's recogniser. Prints a JSON line per measurement.
--   METHOD=lora|full PRIOR=1|0 SEED=1 burin run --trust recipes/tiny/dreambooth.lua >> docs/data/dreambooth.jsonl
local burin = require "burin"
local core = require "burin.core"
local loop = require "burin.train.loop"
local plans = require "burin.train.plan"
local world = require "world"

local method, prior, seed = core.env "METHOD" or "lora", core.env "PRIOR" ~= "0", math.tointeger(core.env "SEED" or 1)
local full = method == "full"
local steps = math.tointeger(core.env "STEPS" or (full and 500 or 400))
local prompts = {}
for i = 1, 32 do prompts[i] = "a photo of sks cat on " .. world.backgrounds[(i - 1) % #world.backgrounds + 1] end
for i = 33, 64 do prompts[i] = "a photo of a cat" end

local r = burin.train {
  name = ("%s-%s-%d"):format(method, prior and "prior" or "none", seed), output = "runs/dreambooth",
  base = burin.model "models/tiny-sd.safetensors",
  concepts = { { images = "examples/sks-cat",
    prior = prior and { prompt = "a photo of a cat", count = 48, steps = 20, guidance = 3,
      sampler = "euler_a" } or nil } },
  method = full and burin.full { text_encoder = true } or burin.lora { rank = 8, conv_rank = 8, text_encoder = true },
  resolution = 64, batch = 8, steps = steps, seed = seed,
  optimizer = burin.adamw { lr = tonumber(core.env "LR") or (full and 1.5e-3 or 2e-3) },
  schedule = burin.cosine { warmup = 0.05 },
  sample = { every = math.tointeger(core.env "EVERY" or steps // 4), steps = 20, guidance = 2.5, sampler = "euler_a",
    seed = 5000 + 100 * seed, batch = 8, prompts = prompts },
  state = { every = steps },
}
local run = loop.new(plans.prepare(r))

function run:draw(step)
  local jobs, seen = {}, { subject = 0, background = 0, plain = 0 }
  for i, prompt in ipairs(prompts) do jobs[i] = { prompt = prompt, seed = r.sample.seed + i } end
  self.plan.sampler:run(jobs, { steps = r.sample.steps, guidance = r.sample.guidance, sampler = r.sample.sampler },
    function(i, image)
    local s = world.recognise(image:bytes())
    if i <= 32 then
      if s.subject then seen.subject = seen.subject + 1 end
      if s.background == prompts[i]:match "on (%a+)$" then seen.background = seen.background + 1 end
    elseif s.class == "cat" and not s.subject then
      seen.plain = seen.plain + 1
    end
  end)
  core.write_stdout(core.json_encode { method = method, prior = prior, seed = seed, step = step,
    subject = seen.subject / 32, background = seen.background / 32, plain = seen.plain / 32 } .. "\n")
  return {}
end
run:execute {}
