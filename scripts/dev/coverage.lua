-- SPDX-License-Identifier: MIT
-- coverage.lua - which lines and branches of the parsers run in their tests (null_*, fuzz_*), by gcov:
--   lua5.4 scripts/dev/coverage.lua [FILE ...]       from the repository root; with files: what of them does not run
-- Builds the coverage preset, runs the tests, and fails when a parser is below 95 % of its lines or 90 % of its
-- branches. A branch is a way that a conditional jump may take, as gcc -O0 makes it: each side of each && and ||
-- counts, and nothing is left out. KEEP=1 reads the counters that are there, without building and running. What is
-- parsed in Lua: lua_coverage.lua.
local LINES, BRANCHES = 95, 90
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
  must(("ctest --test-dir %s -R '^(null|fuzz)_' -E 'house|gpu' >%s-tests.log 2>&1"):format(BUILD, BUILD))
end

-- What gcov says of one program's copy of a source goes into seen, { [line] = whether it has run }, and ways,
-- { ["line:number of the branch"] = whether it was taken }.
local function read(object, source, seen, ways)
  local out = assert(io.popen(("gcov --stdout --branch-probabilities --branch-counts '%s' 2>/dev/null"):format(object)))
  local inside, number = false, nil
  for line in out:lines() do
    local count, at, text = line:match "^%s*([^:]+):%s*(%d+):(.*)$"
    local branch, taken = line:match "^branch%s+(%d+) (.*)$"
    if at == "0" and text:find "^Source:" then inside = text:sub(-#source) == source end
    number = at and tonumber(at) or number
    if inside and at and number > 0 and not count:find "^%-" then
      seen[number] = seen[number] or not count:find "^[#=]"
    elseif inside and branch then
      local way = number .. ":" .. branch
      ways[way] = ways[way] or tonumber(taken:match "^taken (%d+)" or 0) > 0
    end
  end
  out:close()
end

-- Of a source in whichever program: each has counters of its own.
local function coverage(source)
  local seen, ways = {}, {}
  local objects = assert(io.popen(("find %s -path '*%s.gcda'"):format(BUILD, source)))
  for object in objects:lines() do read(object, source, seen, ways) end
  objects:close()
  return seen, ways
end

-- How many of a table's values are true in percent, and the keys of the others in the order of their lines.
local function share(ran)
  local all, run, missing = 0, 0, {}
  for key, yes in pairs(ran) do
    all, run = all + 1, run + (yes and 1 or 0)
    if not yes then missing[#missing + 1] = tostring(key) end
  end
  table.sort(missing, function(a, b)
    local x, y = tonumber(a:match "^%d+"), tonumber(b:match "^%d+")
    return x < y or x == y and a < b
  end)
  return all, all > 0 and 100 * run / all or 0, missing
end

local function report(source, show)
  local seen, ways = coverage(source)
  local lines, of_lines, no_lines = share(seen)
  local branches, of_branches, no_branches = share(ways)
  local enough = of_lines >= LINES and of_branches >= BRANCHES
  print(("%-34s %4d lines %6.2f %%  %4d branches %6.2f %%%s"):format(source, lines, of_lines, branches, of_branches,
    enough and "" or "  too few"))
  if show then
    print("  lines: " .. table.concat(no_lines, " "))
    print("  branches (line:number): " .. table.concat(no_branches, " "))
  end
  return enough
end

if not os.getenv "KEEP" then run_tests() end
local bad = 0
for _, source in ipairs(#arg > 0 and arg or parsers) do
  if not report(source, #arg > 0) then bad = bad + 1 end
end
print(("%d files below %d %% of lines or %d %% of branches"):format(bad, LINES, BRANCHES))
os.exit(bad == 0)
