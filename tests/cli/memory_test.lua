-- SPDX-License-Identifier: MIT
-- memory_test.lua - the host runs out of memory at any allocation of Burin's, Lua's, jansson's and the C library's
-- (nth_alloc.c), once and for good: exit code 71 and a sentence, or the right result; nothing half written, nothing
-- left.
--   lua5.4 tests/cli/memory_test.lua BURIN SCRATCH NTH_ALLOC.so [EVERY]
-- A sample of the allocations; with EVERY each so many-th of them, which 1 makes all: some hundred thousand runs. A
-- training is among those, and never in the sample: a driver of the processor's compiles for seconds.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
local every = tonumber(arg[4])

local place = T.scratch .. "/place"
local MODEL = "tests/golden/tiny_sd1/model_ldm.safetensors"
local PICTURES = T.folder "pictures"
T.shell(("cp examples/sks-cat/*/1-grass.png %s/"):format(T.quote(PICTURES)))
local recipe = T.recipe("one", { steps = "1", batch = "1", sample = "nil", base = ("burin.model %q"):format(MODEL),
  concepts = ("{ { images = %q, prompt = 'a cat' } }"):format(PICTURES) })

local kinds = {
  { name = "inspect", line = "inspect --values " .. MODEL, sample = 5 },
  { name = "plan", line = "plan --device null " .. T.quote(recipe), sample = 4 },
  { name = "convert", line = ("convert %s %s/a.safetensors --dtype f16"):format(MODEL, place), sample = 5 },
  { name = "a folder", line = ("convert %s %s/a --to diffusers"):format(MODEL, place), sample = 4 },
  { name = "train", line = ("train --quiet %s --output %s"):format(T.quote(recipe), place), computes = true, sample = 0,
    dates = true },
}

-- What is in the folder, as one text; dates: leave out what differs between two equal runs.
local function files(dates)
  local _, out = T.shell(("cd %s && find . -type f %s -exec sha256sum {} + | sort -k 2"):format(T.quote(place),
    dates and "! -name run.json ! -name .lock" or ""))
  return out
end

-- The exit code, what was printed, what was said, what is left.
local function run(kind, n, times)
  T.folder "place"
  local code, out = T.run(("%s 2>%s/said"):format(kind.line, T.scratch),
    ("env LD_PRELOAD=%s ALLOC='%d %d' ALLOC_LIBC=%d ALLOC_COUNT=%s/count"):format(T.quote(arg[3]), n, times,
      kind.computes and 0 or 1, T.quote(T.scratch)))
  out = out:gsub("%([%d.]+ %a+ free%)", "")  -- of the disk, which others use too
  return code, out, T.read(T.scratch .. "/said"), files(kind.dates)
end

-- Half of the sample lies in the beginning, where every allocation is another one.
local function chosen(kind, total)
  local list = {}
  if every then
    for n = 1, total, every do list[#list + 1] = n end
    return list
  end
  for i = 1, kind.sample do
    list[#list + 1] = math.floor(3000 ^ (i / kind.sample))
    list[#list + 1] = math.floor(total * i / (kind.sample + 1))
  end
  return list
end

for _, kind in ipairs(kinds) do
  local _, right, count, whole
  if every or kind.sample > 0 then
    _, right, _, whole = run(kind, 0, 0)
    count = tonumber(T.read(T.scratch .. "/count"))
    T.check(count > 2000, "%s: only %s allocations are counted", kind.name, count)
  end
  local failed = 0
  for _, n in ipairs(count and chosen(kind, count) or {}) do
    for times = 0, 1 do
      local code, out, said, left = run(kind, n, times)
      local what = ("%s, allocation %d of %d, %s: exit code %d: %s%s"):format(kind.name, n, count,
        times == 1 and "once" or "for good", code, out:sub(1, 500), said)
      failed = failed + (code == 71 and 1 or 0)
      if code ~= 0 then
        T.check(code == 71 and said:find "out of memory", "%s", what)
        T.check(left == "" or left == whole or kind.dates, "%s: there is a part of it: %s", what, left)
      else
        T.check(times == 1 and (out == right or kind.dates) and left == whole, "%s: another result: %s", what, left)
      end
      T.check(not left:find "%.tmp%-", "%s: it left %s", what, left)
    end
  end
  T.check(not count or failed > 5, "%s: only %d runs failed", kind.name, failed)
end
T.finish()
