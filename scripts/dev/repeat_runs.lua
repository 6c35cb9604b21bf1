-- SPDX-License-Identifier: MIT
-- repeat_runs.lua - one training again and again, each time in a process of its own, every second one with nothing kept
-- of pictures and captions; then the hash of all that each has written. One seed has one result, so there is one hash.
-- Takes some minutes on a processor.
local USAGE = "usage: repeat_runs.lua BURIN SCRATCH [RUNS] [STEPS]"
assert(arg[1] and arg[2], USAGE)
local runs, steps = math.tointeger(tonumber(arg[3] or 20)), math.tointeger(tonumber(arg[4] or 100))
assert(runs and steps and runs > 0 and steps > 0, USAGE)
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()

local recipe = T.recipe("repeat", { steps = tostring(steps), method = "burin.lora { rank = 4 }",
  concepts = '{ { images = "examples/sks-cat", prior = { prompt = "a photo of a cat", count = 4, steps = 2 } } }',
  sample = ('{ every = "%d steps", steps = 2, prompts = { "a photo of sks cat" } }'):format((steps + 1) // 2) })

-- One hash of the names and bytes of every file, but for what says when it was.
local function hash_of(folder)
  local _, sum = T.shell(("cd %s && find . -type f ! -name run.json ! -name .lock -print0 | LC_ALL=C sort -z "
    .. "| xargs -0 sha256sum | sha256sum"):format(T.quote(folder)))
  return assert(sum:match "^%x+", sum)
end

local found, distinct = {}, 0
for i = 1, runs do
  if i % 2 == 1 then T.shell("rm -rf " .. T.quote(T.burin_cache)) end
  local folder = T.folder "run"
  local code, out = T.run(("train %s --quiet --output %s"):format(T.quote(recipe), T.quote(folder)))
  T.check(code == 0, "run %d ends with %d: %s", i, code, out)
  local hash = hash_of(folder .. "/tiny")
  if not found[hash] then distinct = distinct + 1 end
  found[hash] = (found[hash] or 0) + 1
  print(("run %d of %d, %d steps: %s"):format(i, runs, steps, hash))
end
T.check(distinct == 1, "%d runs have %d different results", runs, distinct)
T.finish()
