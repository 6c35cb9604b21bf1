-- SPDX-License-Identifier: MIT
-- Training SDXL on its small reference model. What the cached text gives equals what the live encoders give, byte for
-- byte where storage is f32; a run continued from its state equals the uninterrupted one; 8-bit base weights train as
-- 16-bit ones do.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
T.in_one_process()

local function base(name) return ('burin.model "tests/golden/%s/model_ldm.safetensors"'):format(name) end
local function train(name, output, fields)
  fields.name = '"tiny"'
  local recipe = T.recipe(name, fields)
  local code, out = T.run(("train %s --quiet --output %s"):format(T.quote(recipe), T.quote(output)))
  return T.check(code == 0, "%s: %d %s", name, code, out)
end
local function losses(output) return T.metrics(output .. "/tiny", "loss") end

-- Two pictures a batch of different captions and sizes, so that a mixed-up row would show.
local function fields(text_encoder)
  return { base = base "tiny_sdxl", steps = "4", batch = "2", state = '{ every = "2 steps" }',
    method = ("burin.lora { rank = 4, text_encoder = %s }"):format(text_encoder) }
end

local cached, live = T.folder "cached", T.folder "live"
train("cached", cached, fields(false))
train("live", live, fields(true))
local a, b = losses(cached), losses(live)
T.check(#a == 4 and #b == 4, "losses of 4 steps: %d, %d", #a, #b)
-- Before the first update both are the same network; later the text encoders learn in one of them.
local apart = math.abs(a[1] / b[1] - 1)
T.check(apart < 1e-5, "the first loss: %.8g cached, %.8g live", a[1], b[1])
T.check(a[4] ~= b[4], "the text encoders learn nothing")
print(("first loss: %.7f cached, %.7f live; last: %.4f, %.4f"):format(a[1], b[1], a[4], b[4]))

-- A second run with warm caches, and one that goes on from the state of step 2.
local again = T.folder "again"
train("cached", again, fields(false))
T.check(T.difference(cached .. "/tiny", again .. "/tiny") == "", "warm caches change the run")
for _, folder in ipairs { cached, live } do
  local reference, run = T.folder "reference", folder .. "/tiny"
  T.shell(("cp -r %s %s"):format(T.quote(run), T.quote(reference)))
  T.check(T.read(run .. "/state/step-00000002.safetensors"), "no state of step 2 in %s", run)
  T.shell(("rm %s/state/step-00000004.safetensors %s/tiny.safetensors"):format(T.quote(run), T.quote(run)))
  T.write(run .. "/state/latest.json", '{"file": "step-00000002.safetensors", "step": 2}\n')
  local code, out = T.run("resume --quiet " .. T.quote(run))
  T.check(code == 0, "resume: %d %s", code, out)
  local wrong = T.difference(reference .. "/tiny", run)
  T.check(wrong == "", "resumed: %s", wrong)
end

-- Weights in 8 bits.
local curves = {}
for _, storage in ipairs { "f16", "int8" } do
  local output = T.folder(storage)
  train(storage, output, { base = base "tiny_sdxl", steps = "8", precision = '"f16"',
    base_precision = ("%q"):format(storage) })
  curves[storage] = losses(output)
end
local worst = 0
for i, loss in ipairs(curves.f16) do worst = math.max(worst, math.abs((curves.int8[i] or 1 / 0) / loss - 1)) end
T.check(#curves.f16 == 8 and worst < 0.02, "losses in 8 bits are up to %.2f %% off", 100 * worst)
T.check(curves.int8[1] ~= curves.f16[1], "8 bits change nothing")
print(("losses in 8 bits within %.3f %% of f16's"):format(100 * worst))

-- Where class images are made first, the U-Net is there in both phases; what left the device is gone from it.
local prior = T.recipe("prior", { base = base "tiny_sd1", steps = "1", batch = "1",
  concepts = '{ { images = "examples/sks-cat", prior = { prompt = "a cat", count = 1, steps = 1 } } }' })
local _, said = T.process(("train %s --json --output %s"):format(T.quote(prior), T.quote(T.folder "prior")))
local planned, held = tonumber(said:match '"planned_bytes": ?(%d+)'), tonumber(said:match '"allocated_bytes": ?(%d+)')
T.check(planned and held and math.abs(held / planned - 1) < 0.02, "planned %s bytes, allocated %s: %s", planned, held,
  said)

-- A checkpoint has all its parts, although the text encoder and the VAE have left the device.
local whole = T.folder "whole"
train("whole", whole, { base = base "tiny_sd1", method = "burin.full {}", steps = "1", batch = "1" })
local _, all = T.run("inspect tests/golden/tiny_sd1/model_ldm.safetensors")
local _, saved = T.run(("inspect %s/tiny/tiny.safetensors"):format(T.quote(whole)))
local lost = 0
for name in all:gmatch "([%w_.]+)\n" do
  if not name:find "^[%w_]+$" and not name:find "position_ids" and not saved:find(name, 1,
    true) then lost = lost + 1 end
end
T.check(lost == 0 and saved:find("first_stage_model.decoder", 1, true), "%d tensors are not saved", lost)
T.finish()
