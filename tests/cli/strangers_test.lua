-- SPDX-License-Identifier: MIT
-- strangers_test.lua - recipes that would not end, would take all memory, or look for a way out: each ends with an
-- error for people, within ten seconds of the processor and 512 MiB. Single calls that do not return are among them.
--   lua5.4 tests/cli/strangers_test.lua BURIN SCRATCH USAGE
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()

local SECONDS, MIB = 10, 512
local place = T.folder "place"

-- Runs a recipe of this text; says: what is said, a plain text or several.
local function ends(name, text, want, says, options)
  local path = T.write(place .. "/evil.lua", text)
  local _, out = T.shell(("timeout 100 %s %s plan --device null %s %s"):format(T.quote(arg[3]), T.quote(T.burin),
    options or "--recipe-time 0.1", T.quote(path)))
  local code, seconds, mib = out:match "usage: (%d+) (%S+) (%d+)\n$"
  T.check(tonumber(code) == want, "%s: exit code %s, not %d: %s", name, code, want, out:sub(1, 2000))
  T.check(tonumber(seconds or 1000) <= SECONDS and tonumber(mib or 1000) <= MIB, "%s: took %s s and %s MiB", name,
    seconds, mib)
  for _, each in ipairs(type(says) == "table" and says or { says }) do
    T.check(out:find(each, 1, true), "%s: '%s' does not say '%s'", name, out:sub(1, 2000), each)
  end
end

local TIME = "s of processor time; --recipe-time allows more"
local MEMORY = "out of memory: Lua may take"
local NOTHING = "a recipe ends with: return burin.train"

-- ---- loops, memory, ways out ----------------------------------------------------------------------------------------

for _, probe in ipairs {
  { "a loop", "while true do end", 78, TIME },
  { "a loop that catches", "while true do pcall(function() while true do end end) end", 78, TIME },
  { "a coroutine", "coroutine.wrap(function() while true do end end)()", 78, TIME },
  { "a variable to close", "local x <close> = setmetatable({}, { __close = function() while true do end end })", 78,
    TIME },
  { "a finalizer", "setmetatable({}, { __gc = function() while true do end end }) while true do local t = {} end", 78,
    "no finalizers" },
  { "string.rep", "local s = ('x'):rep(1 << 40)", 78, "string too large" },
  { "concatenation", "local s = 'x' while true do s = s .. s end", 71, MEMORY, "" },
  { "tables", "local t = {} for i = 1, 1e12 do t[i] = { i } end", 71, MEMORY, "" },
  { "recursion", "local function f() return 1 + f() end f()", 78, "stack overflow", "" },
  { "parentheses", "return " .. ("("):rep(200000) .. "1" .. (")"):rep(200000), 78, "overflow" },
  { "gsub in gsub", "local function f() return (('x'):gsub('x', f)) end f()", 78, "stack overflow" },
  { "bytecode", "\27Lua", 78, "compiled Lua" },
  { "load", "load(string.dump(function() end))()", 78, "unknown name 'load'" },
  { "string.dump", "string.dump(print)", 78, "nil value" },
  { "os", "os.execute 'true'", 78, "unknown name 'os'" },
  { "io", "io.popen 'true'", 78, "unknown name 'io'" },
  { "package", "package.loadlib('libc.so.6', '*')", 78, "unknown name 'package'" },
  { "debug", "debug.getregistry()", 78, "unknown name 'debug'" },
  { "a path", "require '../../x'", 78, "a recipe cannot require '../../x'" },
  { "cpath", "package.cpath = '/tmp/?.so'", 78, "unknown name 'package'" },
  { "the globals' metatable", "setmetatable(_G, nil)", 78, "unknown name '_G'" },
  { "pairs", "pairs = function() while true do end end return require('burin').train {}", 78, "burin.train" },
  { "the strings' metatable", "getmetatable('').__index = nil", 78, "nil value" },
  { "an error that turns itself into a text",
    "error(setmetatable({}, { __tostring = function() while true do end end }))", 78, "an error that is a table" },
  { "a thread that waits", "X = coroutine.wrap(function() coroutine.yield() end) X()", 78, NOTHING },
  { "datasets", "local c = {} for i = 1, 1e6 do c[i] = { images = 'examples/sks-cat' } end\n"
    .. "local b = require 'burin' return b.train { name = 'x', base = b.model 'models/tiny-sd.safetensors', "
    .. "concepts = c }", 78, "evil.lua:1:" },
  { "a function", "return function() end", 78, NOTHING },
  { "os.exit", "os.exit(0)", 78, "unknown name 'os'" },
} do ends(table.unpack(probe)) end

-- ---- one call that does not return ----------------------------------------------------------------------------------

for name, call in pairs {
  ["a pattern"] = "s:find(('.-'):rep(12) .. 'b')", ["gsub"] = "s:gsub(('.-'):rep(12) .. 'b', '')",
  ["gmatch"] = "s:gmatch(('a*'):rep(12) .. 'b')()", ["rep"] = "string.rep('', 1 << 62)",
  ["move"] = "table.move({}, 1, 1 << 62, 2)", ["insert"] = "table.insert(long, 1, 1)",
  ["remove"] = "table.remove(long, 1)",
  ["concat"] = "table.concat(setmetatable({}, { __index = table.concat }), '', 1, 1 << 60)",
  ["caught"] = "pcall(string.find, s, ('.-'):rep(12) .. 'b')",
  ["in a thread"] = "coroutine.wrap(function() s:find(('.-'):rep(12) .. 'b') end)()",
} do
  ends(name, "local s = ('a'):rep(30000)\nlocal long = setmetatable({}, { __len = function() return 1 << 62 end })\n"
    .. call, 78, { "evil.lua:3: the recipe took more than 0.1 s", TIME })
end
-- Many that are long, but not without an end; what a function of the recipe does, after its file.
for name, text in pairs {
  ["comparing"] = "local a, b = ('x'):rep(9e7), ('x'):rep(9e7) .. 'y' while true do local x = a .. '' == b end",
  ["next"] = "local t = {} for i = 1, 2e6 do t[-i] = 1 end for k in pairs(t) do t[k] = nil end "
    .. "while true do next(t) end",
} do ends(name, text, 78, { "evil.lua:1: the recipe took more than", TIME }) end
local LATER = 'local burin = require "burin"\nreturn burin.train { name = "x", base = burin.model '
  .. '"tests/golden/tiny_sd1/model_ldm.safetensors", concepts = { { images = "examples/sks-cat" } }, resolution = 64, '
  .. "steps = 1, method = burin.lora { rank = 2, text_encoder = false }, loss = burin.loss { name = 'l', "
  .. "weight = function()\n%s\nend } }"
ends("a function's call", LATER:format("return #('a'):rep(30000):gsub(('.-'):rep(12) .. 'b', '')"), 78,
  { "evil.lua:3: the recipe took more than 0.1 s" })
ends("a function's loop, call by call", LATER:format("for i = 1, 2e6 do end return 1"), 78, { "evil.lua:3: ", TIME })
ends("a function's memory", LATER:format("local t = {} for i = 1, 1e9 do t[i] = { i } end"), 71, MEMORY,
  "--recipe-time 3 --recipe-memory 60MB")

-- ---- what is said without an option; other numbers ------------------------------------------------------------------

ends("the usual limit", "('a'):rep(30000):find(('.-'):rep(12) .. 'b')", 78, "evil.lua:1: the recipe took more than 3 s",
  "")
ends("no limit", "for i = 1, 3e7 do end", 78, NOTHING, "--recipe-time 0")
ends("more memory", "local s = ('x'):rep(4e8)", 71, "Lua may take 0.279 GiB", "--recipe-memory 300MB")
ends("a number that is none", "", 2, "--recipe-time", "--recipe-time -1")
local code, out = T.run("run --recipe-time 0.2 " .. T.quote(T.write(place .. "/evil.lua", "while true do end")))
T.check(code == 78 and out:find(TIME, 1, true), "run with a limit: %d %s", code, out)
T.finish()
