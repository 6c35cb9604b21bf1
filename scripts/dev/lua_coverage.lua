-- SPDX-License-Identifier: MIT
-- lua_coverage.lua - which lines of what parses in Lua run in its tests, by a hook:
--   lua5.4 scripts/dev/lua_coverage.lua [FILE ...]   from the repository root; with files: their lines that do not run
-- Needs a built build/release and luac5.4, which says what lines there are. The last return of a function is no line:
-- Lua adds one behind each, and most are never reached. Runs tests that run inside the binary, and each seed of the
-- fuzz targets that are Lua, without their mutations; what only commands reach (tests/cli) is not seen, so that this
-- says where to look and fails for nothing but a test. The hook makes it slow: minutes of a core.
local BURIN = "build/release/burin"
local ROOM = "scripts/burin/"
local files = { "models/io/detect.lua", "models/io/files.lua", "models/io/folder.lua", "models/io/scaled.lua",
  "models/io/settings.lua", "adapters/file.lua", "adapters/keys.lua", "adapters/peft.lua", "text/embeddings.lua",
  "base/sums.lua" }
local tests = { "tests/null/limits_test.lua", "tests/golden/folder_test.lua", "tests/golden/lora_test.lua",
  "tests/golden/spellings_test.lua", "tests/golden/words_test.lua" }
local fuzzed = { "config", "lora" }

local scratch = os.tmpname()
local out = scratch .. ".lines"

-- Before and behind what is run: the hook, and what it saw as "file:line" lines.
local BEFORE = [[
local seen = {}
local function note(_, line)
  local source = debug.getinfo(2, "S").source
  local of = seen[source] or {}
  seen[source], of[line] = of, true
end
debug.sethook(note, "l")
local create = coroutine.create
function coroutine.create(f)
  local thread = create(f)
  debug.sethook(thread, note, "l")
  return thread
end
local function results(ok, ...)
  if not ok then error(..., 0) end
  return ...
end
function coroutine.wrap(f)
  local thread = coroutine.create(f)
  return function(...) return results(coroutine.resume(thread, ...)) end
end
]]
local BEHIND = [[
debug.sethook()
local file = assert(io.open(%q, "a"))
for source, lines in pairs(seen) do
  local name = source:match "^=burin/(.*)$"
  for line in pairs(lines) do if name then file:write(name, ":", line, "\n") end end
end
file:close()
]]

local function quiet(line) return os.execute(line .. " >/dev/null 2>&1") end

-- A test may end by an error; what ran before counts all the same, and it is said.
local function run(what, body)
  local f = assert(io.open(scratch, "w"))
  f:write(BEFORE, "local ok, why = pcall(function()\n", body, "\nend)\n", BEHIND:format(out),
    "if not ok then error(why, 0) end\n")
  f:close()
  local ok = quiet(("BURIN_PLUGINS=build/release/tests/liar %s run --trust %s"):format(BURIN, scratch))
  if not ok then print(what .. " failed") end
  return ok
end

local function run_all()
  local good = true
  for _, path in ipairs(tests) do good = run(path, ("dofile %q"):format(path)) and good end
  for _, name in ipairs(fuzzed) do
    good = run("fuzz " .. name, ([[
local target = dofile "tests/fuzz/%s.lua"
for path in io.popen("ls tests/fuzz/seeds/%s/*"):lines() do
  local f = io.open(path, "rb")
  target(f:read "a")
  f:close()
end]]):format(name, name)) and good
  end
  return good
end

-- The lines that have code.
local function lines_of(path)
  local lines, last = {}, nil
  local listing = assert(io.popen("luac5.4 -l -l -p " .. path))
  for text in listing:lines() do
    local line, op = text:match "^%s+%d+%s+%[(%d+)%]%s+(%u%w*)"
    if line then
      if last then lines[last] = true end
      last = tonumber(line)
      if op == "VARARGPREP" then last = nil end
    elseif text:match "^%S" or text == "" then
      last = nil  -- the last instruction of a function
    end
  end
  listing:close()
  return lines
end

local function ran()
  local seen = {}
  for text in io.lines(out) do seen[text] = true end
  return seen
end

local good = run_all()
local seen = ran()
for _, name in ipairs(#arg > 0 and arg or files) do
  name = name:gsub("^" .. ROOM, "")
  local all, run_too, missing = 0, 0, {}
  for line in pairs(lines_of(ROOM .. name)) do
    all = all + 1
    if seen[name .. ":" .. line] then run_too = run_too + 1 else missing[#missing + 1] = line end
  end
  local percent = all > 0 and 100 * run_too / all or 0
  print(("%-34s %4d lines %6.2f %%"):format(name, all, percent))
  table.sort(missing)
  if #arg > 0 then print("  " .. table.concat(missing, " ")) end
end
os.remove(scratch)
os.remove(out)
os.exit(good)
