-- SPDX-License-Identifier: MIT
-- One seed, one result; another seed, another. Storage in f16 and bf16 against f32. The plan against what is allocated.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
T.in_one_process()

-- run: T.process, for what a process by itself is compared with
local function train(name, fields, run)
  local recipe, folder = T.recipe("recipe", fields), T.folder(name)
  local code, out = (run or T.run)(("train %s --json --output %s"):format(T.quote(recipe), T.quote(folder)))
  T.check(code == 0, "%s ends with %d: %s", name, code, out)
  return folder .. "/tiny", out, recipe
end

-- ---- seeds ----------------------------------------------------------------------------------------------------------

local small = { sample = '{ steps = 2, prompts = { "a photo of sks cat" } }', steps = "3",
  method = "burin.lora { rank = 2 }" }
local function with(more)
  local fields = {}
  for k, v in pairs(small) do fields[k] = v end
  for k, v in pairs(more) do fields[k] = v end
  return fields
end
local first, out, recipe = train("first", small, T.process)
T.shell("rm -rf " .. T.quote(T.burin_cache))
local second = train("second", small, T.process)  -- with nothing cached
local third = train("third", small)  -- with everything cached; in a process with others from here on
T.check(T.difference(first, second) == "", "the same seed: %s", T.difference(first, second))
T.check(T.difference(first, third) == "", "the same seed, cached: %s", T.difference(first, third))
local _, plan = T.run(("plan %s --json"):format(T.quote(recipe)))
local other = train("other", with { seed = "8" })
for _, name in ipairs { "tiny.safetensors", "metrics.jsonl" } do
  T.check(T.read(first .. "/" .. name) ~= T.read(other .. "/" .. name), "another seed: the same %s", name)
end

-- ---- the plan -------------------------------------------------------------------------------------------------------

local planned, held = tonumber(plan:match '"total": ?(%d+), "weights"'), tonumber(out:match '"allocated_bytes": ?(%d+)')
T.check(planned and held and math.abs(held / planned - 1) < 0.02, "planned %s bytes, allocated %s", planned, held)
print(("planned %s bytes, allocated %s"):format(planned, held))

-- ---- a budget -------------------------------------------------------------------------------------------------------

-- The settings that a budget chooses decide under which name class images lie: those that are drawn are those that are
-- found.
do
  local folder, text = train("budget", { steps = "2", budget = '"22 MiB"', precision = "",
    concepts = '{ { images = "examples/sks-cat", prior = { prompt = "a photo of a cat", count = 3, steps = 1 } } }' })
  local _, found = T.shell(("ls %s/prior-*/*.png | wc -l; ls -d %s/prior-* | wc -l"):format(folder, folder))
  T.check(found:match "^3%s+1%s*$" and not text:find "left out", "class images under a budget: %s %s", found, text)
end

-- ---- precision ------------------------------------------------------------------------------------------------------

-- The same noise and order in each type, so the curves can be compared step by step; averages over 10 steps.
local function curve(precision)
  local loss = T.metrics(train(precision, { precision = ('"%s"'):format(precision), steps = "30" }), "loss")
  local smooth = {}
  for i = 10, #loss do
    local sum = 0
    for k = i - 9, i do sum = sum + loss[k] end
    smooth[#smooth + 1] = sum / 10
  end
  T.check(#smooth == 21, "%s: %d steps in the metrics", precision, #loss)
  return smooth
end

local exact = curve "f32"
for precision, tolerance in pairs { f16 = 0.02, bf16 = 0.03 } do
  local worst = 0
  for i, loss in ipairs(curve(precision)) do worst = math.max(worst, math.abs(loss / exact[i] - 1)) end
  print(("%s: loss within %.3f %% of f32"):format(precision, 100 * worst))
  T.check(worst < tolerance, "%s: the smoothed loss is off by %.2f %%", precision, 100 * worst)
end
T.finish()
