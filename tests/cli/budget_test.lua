-- SPDX-License-Identifier: MIT
-- Memory of full-size models, planned on the null device from files that have the published tensors but no contents: a
-- LoRA of rank 16 for SD 1.5 in 3 GiB, for SDXL in 7.5 GiB and with 8-bit weights in 5 GiB. What a recipe sets stays.
-- From the repository's root: lua5.4 tests/cli/budget_test.lua BURIN SCRATCH-FOLDER
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
local GIB = 1 << 30

local function checkpoint(model)
  local path = ("%s/%s.safetensors"):format(T.scratch, model)
  assert(loadfile "scripts/dev/random_checkpoint.lua")(model, path, "--sparse")
  return path
end

local sd15, sdxl = checkpoint "sd15", checkpoint "sdxl_base"

local function plan(name, base, resolution, budget, fields)
  local f = { base = ("burin.model %q"):format(base), resolution = tostring(resolution), batch = "1",
    method = "burin.lora { rank = 16, text_encoder = false }", budget = budget and ("%q"):format(budget) or "" }
  for k, v in pairs(fields or {}) do f[k] = v end
  return T.run("plan --device null --json " .. T.quote(T.recipe(name, f)))
end

local function fits(name, base, resolution, budget, want, fields)
  local code, out = plan(name, base, resolution, budget, fields)
  if not T.check(code == 0, "%s: %s", name, out) then return end
  local most = tonumber(budget:match "[%d.]+") * GIB
  local total, phases = 0, 0
  for bytes in out:match('"phases": ?%[(.-)%], ?"sessions"'):gmatch '"total": ?(%d+)' do
    total, phases = math.max(total, tonumber(bytes)), phases + 1
  end
  T.check(phases == 2 and total <= most and total > most / 4, "%s: %.2f GiB", name, total / GIB)
  for _, text in ipairs(want) do T.check(out:find(text, 1, true), "%s: '%s' is not in %s", name, text, out) end
  print(("%-34s %.2f GiB of %s"):format(name, total / GIB, budget))
end

fits("SD 1.5", sd15, 512, "3.0 GiB", { '"precision": "f16"', "f16 storage", "text_encoder: results are cached" })
fits("SD 1.5, text encoder too", sd15, 512, "3.0 GiB", { '"precision": "f16"' },
  { method = "burin.lora { rank = 16, text_encoder = true }" })
fits("SD 1.5, tight", sd15, 512, "2.0 GiB", { '"checkpoint": true', '"base_precision": "f16"' })
fits("SDXL", sdxl, 1024, "7.5 GiB", { '"precision": "f16"', '"base_precision": "f16"',
  "text_encoder_2: results are cached" })
fits("SDXL, with samples", sdxl, 1024, "7.5 GiB", { "text_encoder_2: results are cached" },
  { sample = '{ every = 1, prompts = { "a photo" } }' })
fits("SDXL, 8 bits", sdxl, 1024, "5.0 GiB", { '"base_precision": "int8"', '"checkpoint": true', "int8 storage" })
-- a wide budget gives nothing up, and what the recipe sets stays as it is
fits("SD 1.5, wide", sd15, 512, "8 GiB", { '"precision": "f32"', '"checkpoint": false' })
fits("SD 1.5, bf16", sd15, 512, "2.0 GiB", { '"precision": "bf16"', '"checkpoint": true' }, { precision = '"bf16"' })

local code, out = plan("none", sd15, 512, "1 GiB")
T.check(code == 78 and out:find("GiB are needed", 1, true), "too small a budget: %d %s", code, out)
code, out = plan("none", sd15, 512, "2 GiB", { checkpoint = "false", precision = '"f32"', base_precision = '"f32"' })
T.check(code == 78, "fields that the recipe sets are not changed: %d %s", code, out)
code, out = plan("none", sd15, 512, "much")
T.check(code == 78 and out:find("none.lua:%d+: .*budget"), "an amount that is none: %d %s", code, out)

-- What SD 2.x predicts is guessed aloud unless a file or the recipe says it.
local sd21 = checkpoint "sd21"
local warning = "does not say what it predicts"
code, out = plan("guessed", sd21, 768)
T.check(code == 0 and out:find(warning, 1, true) and out:find("'v'", 1, true), "a guess in silence: %d %s", code, out)
code, out = plan("told", sd21, 512, nil, { prediction = '"epsilon"' })
T.check(code == 0 and not out:find(warning, 1, true), "told: %d %s", code, out)
local folder = T.scratch .. "/sd21"
assert(loadfile "scripts/dev/random_checkpoint.lua")("sd21", folder, "--sparse", "--layout", "diffusers")
code, out = plan("config", folder, 768)
T.check(code == 0 and not out:find(warning, 1, true), "said by its configuration: %d %s", code, out)
code, out = plan("against", folder, 768, nil, { prediction = '"epsilon"' })
T.check(code == 0 and out:find("taken for epsilon as told", 1, true), "against its configuration: %d %s", code, out)
T.finish()
