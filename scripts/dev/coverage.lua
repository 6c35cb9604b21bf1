-- SPDX-License-Identifier: MIT
-- coverage.lua - which lines of the parsers run in their tests (null_*, fuzz_*), by gcov:
--   lua5.4 scripts/dev/coverage.lua [FILE ...]       from the repository root; with files: their lines that do not run
-- Builds the coverage preset, runs the tests, and fails when a parser is below 95 % of its lines. The settings of
-- models are parsed in Lua, which gcov does not see.
local WANTED = 95
local parsers = { "plugins/safetensors/header.c", "plugins/safetensors/json.c", "plugins/safetensors/loader.c",
  "plugins/safetensors/dtype.c", "plugins/torch/zip.c", "plugins/torch/pickle.c", "plugins/torch/build.c",
  "plugins/torch/state.c", "plugins/torch/loader.c", "plugins/folder/folder.c", "plugins/stb_image/codec.c",
  "plugins/stb_image/png.c", "plugins/stb_image/jpeg.c", "plugins/stb_image/bmp.c", "core/data/image.c",
  "core/data/caption.c", "core/data/text.c", "core/data/tokenizer.c", "core/data/chunks.c", "core/data/clean.c",
  "core/data/html.c" }

local BUILD = "build/coverage"
local function must(line) assert(os.execute(line), line) end

local function run_tests()
  must(("mkdir -p build && cmake --preset coverage >%s.log 2>&1"):format(BUILD))
  must(("cmake --build --preset coverage >>%s.log 2>&1"):format(BUILD))
  must(("find %s -name '*.gcda' -delete"):format(BUILD))
  must(("ctest --test-dir %s -R '^(null|fuzz)_' -E house >%s-tests.log 2>&1"):format(BUILD, BUILD))
end

-- { [line] = whether it has run } of a source, in whichever program: each has counters of its own.
local function lines_of(source)
  local seen = {}
  local objects = assert(io.popen(("find %s -path '*%s.gcda'"):format(BUILD, source)))
  for object in objects:lines() do
    local out = assert(io.popen(("gcov --stdout '%s' 2>/dev/null"):format(object)))
    local inside = false
    for line in out:lines() do
      local count, number, text = line:match "^%s*([^:]+):%s*(%d+):(.*)$"
      if number == "0" and text:find "^Source:" then inside = text:sub(-#source) == source end
      number = tonumber(number)
      if inside and number and number > 0 and not count:find "^%-" then
        seen[number] = seen[number] or not count:find "^[#=]"
      end
    end
    out:close()
  end
  objects:close()
  return seen
end

local function report(source, show)
  local all, run, missing = 0, 0, {}
  for number, ran in pairs(lines_of(source)) do
    all, run = all + 1, run + (ran and 1 or 0)
    if not ran then missing[#missing + 1] = number end
  end
  local percent = all > 0 and 100 * run / all or 0
  print(("%-34s %4d lines  %6.2f %%%s"):format(source, all, percent, percent < WANTED and "  too few" or ""))
  if show then
    table.sort(missing)
    print("  " .. table.concat(missing, " "))
  end
  return percent >= WANTED
end

run_tests()
local bad = 0
for _, source in ipairs(#arg > 0 and arg or parsers) do
  if not report(source, #arg > 0) then bad = bad + 1 end
end
print(("%d files below %d %%"):format(bad, WANTED))
os.exit(bad == 0)
