-- SPDX-License-Identifier: MIT
-- sandbox_test.lua - recipes of strangers: they reach nothing of the machine, write only into their run's folder, end
-- when they take too much, and cannot make a failure look like a success. Nothing here computes for long.
--   lua5.4 tests/cli/sandbox_test.lua BURIN SCRATCH
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()

local place = T.folder "place"
-- What a limit of time does is in strangers_test.lua: sanitizers would meet it before the others.
local PLAN, RUN = "plan --device null --recipe-time 0", "run --output " .. T.quote(place .. "/run")
local function write(text) return T.write(place .. "/evil.lua", text) end

-- burin with a recipe of this text: the exit code, and all of these (plain texts) are said.
local function ends(how, text, want, ...)
  local code, out = T.run(("%s %s"):format(how, T.quote(write(text))), "timeout 300")
  T.check(code == want, "%s of %s: exit code %d, not %d: %s", how, text, code, want, out)
  for _, says in ipairs { ... } do
    T.check(out:find(says, 1, true), "%s of %s: '%s' does not say '%s'", how, text, out, says)
  end
  T.check(not out:find "%f[%w/]burin/[%w_/]+%.lua:" and not out:find "Sanitizer", "%s of %s: an internal error: %s",
    how, text, out)
end
local function refused(text, ...)  -- while a recipe is read, and as a program of its own
  ends(PLAN, text, 78, ...)
  local code, out = T.run(("%s %s"):format(RUN, T.quote(write(text))), "timeout 300")
  T.check(code ~= 0 and not out:find "Sanitizer", "run of %s: exit code %d: %s", text, code, out)
end
local B = 'local burin = require "burin"\n'
local function train(fields)
  return B .. ('return burin.train { name = "x", base = burin.model "tests/golden/tiny_sd1/model_ldm.safetensors", '
    .. 'concepts = { { images = "examples/sks-cat" } }, method = burin.lora { rank = 2, text_encoder = false }, '
    .. 'resolution = 64, steps = 1, %s }'):format(fields or "")
end

-- ---- out of the sandbox ---------------------------------------------------------------------------------------------

-- A recipe that asks the library to run it again, with trust.
refused([[
local ok, os_ = pcall(function() return os end)
if ok and os_ then os_.execute "touch PWNED" return end
local self = select(2, pcall(function() error("x") end)):match("^(.-):%d+:")
require("burin.train.recipe").load(self, true)
]], "evil.lua:4: a recipe cannot require 'burin.train.recipe'; what is public is in require \"burin\"")
T.check(not T.read "PWNED", "a recipe ran a command")

for text, says in pairs {
  ["require 'burin.core'"] = "cannot require 'burin.core'", ["require 'burin.cli.main'"] = "cannot require",
  ["require '../evil'"] = "cannot require", ["require '/etc/passwd'"] = "cannot require",
  ["require 'a..b'"] = "cannot require", ["require ''"] = "cannot require", ["require 'evil'"] = "requires itself",
  ["rawset(require 'burin', 'adamw', 1)"] = "this table is protected",
  ["rawget(require 'burin', 'adamw')"] = "this table is protected",
  ["require('burin').adamw = 1"] = "burin cannot be changed",
  ["require('burin').nn.component = 1"] = "cannot be changed",
  ["setmetatable(require 'burin', {})"] = "protected metatable",
  ["setmetatable({}, { __gc = print })"] = "no finalizers",
  ["print(string.dump(print))"] = "a nil value", ["print((''):dump())"] = "a nil value",
  ["local t = {} t[1] = t require('burin').tensor({ 1 }, 'f32', t)"] = "nest deeper",
  ["require('burin').save('x', { 1 })"] = "cannot write before its run begins",
} do
  local code, out = T.run(("%s %s"):format(PLAN, T.quote(write(text))))
  T.check(code == 78 and out:find(says, 1, true), "%s: %d %s", text, code, out)
end

-- What lies beside a recipe is run once; what a link puts there from elsewhere is not run.
T.write(place .. "/helper.lua", "return { n = 1 }")
T.folder "elsewhere"
T.write(T.scratch .. "/elsewhere/secret.lua", "return { 'secret' }")
T.shell(("cd %s && ln -sf ../elsewhere/secret.lua secret.lua; ln -sfn ../elsewhere away"):format(T.quote(place)))
ends(RUN, "assert(require 'helper' == require 'helper') assert(require('helper').n == 1)", 0)
ends(PLAN, "require 'secret'", 78, "outside the recipe's folder")
ends(PLAN, "require 'away.secret'", 78, "outside the recipe's folder")
ends(RUN .. " --trust", "assert(require('secret')[1] == 'secret') os.execute 'true'", 0)

-- ---- finalizers, closed things, sizes -------------------------------------------------------------------------------

-- The line is that of what a loss does with its nodes.
local function in_loss(text, want, ...)
  local recipe = train(("loss = burin.loss { name = 'own', per_sample = function(s)\n%s\n"
    .. "return s.pred:square():sum_to { 1, 1, 1, 1 }:reshape { 1 } end }"):format(text))
  local code, out = T.run(("%s %s"):format(PLAN, T.quote(write(recipe))), "timeout 300")
  T.check((code ~= 0) == (want ~= nil) and not out:find "Sanitizer", "%s: exit code %d: %s", text, code, out)
  for _, says in ipairs { want, ... } do
    T.check(out:find(says, 1, true), "%s: '%s' does not say '%s'", text, out, says)
  end
end
in_loss "if getmetatable(s.graph) ~= nil then error 'a metatable' end"
in_loss("s.graph.__gc(s.graph)", "evil.lua:3:")
in_loss("s.pred.__index(s.pred, 'x')", "evil.lua:3:", "there is no op '__index'")
in_loss("s.graph:checkpoint()", "evil.lua:3:")
in_loss("local x = s.pred while true do x = x + 1 end", "evil.lua:3:", "nodes in one graph")

refused(B .. "burin.tensor({ 1 << 40, 1 << 21 }, 'f64', { 1.5, 2.5, 3.5 })", "evil.lua:2: tensor too large")
refused(B .. "burin.tensor({ 1 << 40 }, 'f32')", "evil.lua:2: tensor too large: 4096.0 GiB", "--recipe-memory")
refused(B .. "burin.tensor({ 4 }, 'f32'):reshape { 1 << 40, 1 << 24, 1 << 2 }", "evil.lua:2: tensor too large")
refused(B .. "burin.tensor({ 4 }, 'f32'):reshape { 1 << 32, 1 << 32, 4 }", "evil.lua:2: tensor too large")
ends(RUN, B .. "burin.nn.component { name = 'n' }:declare('w', 'table', { 1 << 40, 1 << 40 })", 1, "tensor too large")

-- ---- what is written ------------------------------------------------------------------------------------------------

local SAVE = B .. "local t = { { 'x', burin.tensor({ 1 }, 'u8', 7) } }\n"
local function outside(path, code, says)
  ends(PLAN, SAVE .. ("burin.save(%q, t)"):format(path), 78, "evil.lua:3:")
  ends(RUN, SAVE .. ("burin.save(%q, t)"):format(path), code, says)
end
ends(RUN, SAVE .. "burin.save('a/b.safetensors', t) assert(burin.read('a/b.safetensors'):read('x'):get(1) == 7)", 0)
T.check(T.read(place .. "/run/a/b.safetensors"), "a recipe's file is in its run's folder")
outside("../outside/.profile", 78, "a recipe writes into its run's folder")
outside(place .. "/outside.safetensors", 78, "a recipe writes into its run's folder")
outside("a/../../outside.safetensors", 78, "a recipe writes into its run's folder")
outside("", 78, "a recipe writes into its run's folder")
-- Links in the run's folder: to a folder, to a file, to what is not there.
T.shell(("cd %s/run && ln -s ../../elsewhere away && ln -s ../../elsewhere/f file.safetensors && ln -s /nowhere gone")
  :format(T.quote(place)))
for _, path in ipairs { "away/x.safetensors", "away/a/b.safetensors", "file.safetensors", "gone/x", "gone" } do
  outside(path, 1, "a recipe writes into its run's folder only")
end
local _, there = T.shell("ls " .. T.quote(T.scratch .. "/elsewhere"))
T.check(there == "secret.lua\n", "a link led out of a run's folder: %s", there)
ends(RUN .. " --trust", SAVE .. ("burin.save(%q, t)"):format(place .. "/trusted.safetensors"), 0)
T.check(T.read(place .. "/trusted.safetensors"), "a trusted recipe writes where it likes")
-- The state of a step and a model go the same way.
local STEP = B .. [[
local net = burin.nn.component { name = "net", role = "param" }
local step = burin.compile { inputs = { x = { { 4, 2 } } }, optimizer = burin.sgd {},
  loss = function(b, graph) return net:trace(graph):linear(b.x, "l", 1):square():sum_to { 1, 1 }:reshape {} end,
  params = function() return { { name = "l", var = net.order[1].var, group = 0 } } end }
net:init(1)
step { x = burin.tensor({ 4, 2 }, "f32", 1) }
]]
ends(RUN, STEP .. "step:save 'state' assert(step:resume 'state' == 1)", 0)
ends(RUN, STEP .. "step:save '../state'", 78, "a recipe writes into its run's folder")
ends(RUN, B .. "local m = burin.model('tests/golden/tiny_sd1/model_ldm.safetensors') m = m.open and m:open {}\n"
  .. "if m then m:save '/tmp/x.safetensors' else burin.save('/tmp/x', {}) end", 78, "writes into its run's folder")

ends(PLAN, train "output = '/tmp/elsewhere'", 78, "output '/tmp/elsewhere'", "--output")
ends(PLAN, train "output = 'a/../../b'", 78, "--output")
ends(PLAN, "local r = (function() " .. train() .. " end)() r.name = '../../x' return r", 78, "cannot be changed")
ends(PLAN, "return setmetatable({ is_train_recipe = true, name = 'x', output = '/tmp' }, {})", 78, "a recipe ends with")
ends(PLAN, train("output = 'a'"):gsub('"x"', '".."', 1), 78, "begins with a letter")

-- ---- trust ----------------------------------------------------------------------------------------------------------

local run = T.folder "place/runs/x"
T.write(run .. "/recipe.lua", "os.execute 'touch PWNED'\n" .. train())
T.write(run .. "/run.json", ('{"folder": ".", "output": "/", "recipe": "r.lua", "trust": true}'))
local code, out = T.run("resume " .. T.quote(run))
T.check(code == 78 and out:find("resume " .. run .. " --trust", 1, true), "resume of a trusted run: %d %s", code, out)
T.write(run .. "/run.json", '{"folder": ".", "output": "/", "recipe": "r.lua", "trust": false}')
code, out = T.run("resume " .. T.quote(run))
T.check(code == 78 and out:find("unknown name 'os'", 1, true), "resume without trust: %d %s", code, out)
T.check(not T.read "PWNED", "a run's folder ran a command")
T.write(run .. "/recipe.lua", train("seed = 1"):gsub('"x"', '"other"', 1))
code, out = T.run("resume " .. T.quote(run))
T.check(code == 65 and out:find "a run named 'other'", "resume in another's folder: %d %s", code, out)

-- ---- errors that are no texts ---------------------------------------------------------------------------------------

for _, e in ipairs { "{ exit = 0, message = 'fine' }", "{ kind = 'stopped', code = 0 }", "nil", "print",
  "setmetatable({}, { __tostring = function() return {} end })",
  "setmetatable({}, { __tostring = function() error 'x' end })",
  "setmetatable({ kind = 'x' }, { __index = function() return 0 end })",
  "select(2, pcall(require('burin').lora, { rnk = 1 }))" } do
  refused("error(" .. e .. ")")
end

-- What recipes have of xpcall and coroutines behaves as Lua's own does.
ends(RUN, [[
assert(select("#", xpcall(function(...) return ... end, print, 1, nil, 3)) == 4)
local ok, e = xpcall(error, function(e) return e .. "!" end, "x")
assert(ok == false and e == "x!")
local co = coroutine.wrap(function(a, b)
  assert(a == 1 and b == 2)
  local ok, c = xpcall(function() return coroutine.yield(3) end, print)
  assert(ok and c == 4)
  return 5, 6
end)
assert(co(1, 2) == 3)
local x, y = co(4)
assert(x == 5 and y == 6)
local dead = coroutine.create(function() error "gone" end)
local ok, e = coroutine.resume(dead)
assert(not ok and e:find "gone" and coroutine.status(dead) == "dead")
]], 0)

-- ---- loops that catch what would end them ---------------------------------------------------------------------------

local STEPS = " --recipe-steps 1000000"
local CLOSES = "local x <close> = setmetatable({}, { __close = function() while true do end end })"
for _, loop in ipairs {
  "while true do end",
  "while true do pcall(function() while true do end end) end",
  "local function f() pcall(f) pcall(f) return f() end f()",
  "while true do xpcall(function() while true do end end, function() while true do end end) end",
  "while true do coroutine.wrap(function() for i = 1, 9000 do end end)() end",
  "while true do pcall(coroutine.wrap(function() while true do pcall(function() while true do end end) end end)) end",
  "local function f() local x <close> = setmetatable({}, { __close = function() f() end }) while true do end end "
    .. "while true do pcall(f) end",
  "local t = setmetatable({}, { __index = function() while true do end end }) "
    .. "while true do pcall(function() return t.x end) end",
  "while true do pcall(coroutine.wrap(function() " .. CLOSES .. " while true do end end)) end",
  "local co = coroutine.create(function() " .. CLOSES .. " while true do end end) "
    .. "while true do pcall(coroutine.resume, co) pcall(coroutine.close, co) end",
  "while true do xpcall(function() error 'x' end, function() while true do end end) end",
  "while true do pcall(string.gsub, 'x', 'x', function() while true do end end) end",
  "while true do pcall(require('burin').rng(1), 5) end",
} do
  ends(PLAN .. STEPS, loop, 78, "took more than 1000000 steps of Lua", "--recipe-steps", "evil.lua:")
end
ends(PLAN .. STEPS, train("loss = burin.loss { name = 'l', "
  .. "weight = function() while true do pcall(function() while true do end end) end end }"), 78, "took more than")
ends(RUN .. STEPS, "for i = 1, 1e9 do end", 78, "took more than")
ends(RUN, "for i = 1, 3e7 do end", 0)
ends("plan --recipe-steps -1", "", 2, "--recipe-steps")

-- ---- memory ---------------------------------------------------------------------------------------------------------

local MEMORY = " --recipe-memory 200MB"
for _, bomb in ipairs {
  "local s = 'x' while true do s = s .. s end",
  "local s = ('x'):rep(1 << 30)",
  "local t = {} for i = 1, 1e12 do t[i] = { i } end",
  "local t = {} for i = 1, 1e12 do t[i] = require('burin').tensor({ 1 << 20 }, 'f32') end",
  "local t = {} for i = 1, 1e9 do t[i] = coroutine.wrap(function() return t end) end",
  "print(('x'):rep(150000000), ('y'):rep(150000000))",
} do
  ends(PLAN .. MEMORY, bomb, 71, "out of memory: Lua may take 0.186 GiB (--recipe-memory)")
end
ends(RUN .. MEMORY, "pcall(string.rep, 'x', 1 << 30) local t = {} for i = 1, 1e12 do t[i] = { i } end", 71,
  "out of memory")
ends(RUN .. MEMORY, "for i = 1, 500 do require('burin').tensor({ 1 << 20 }, 'f32') end", 0)  -- garbage is no memory
ends("plan --recipe-memory lots", "", 2, "--recipe-memory needs an amount")
-- A file that needs too much is named: its tensor is copied, since it is not aligned.
local header = '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
  .. '"b":{"dtype":"F32","shape":[4194304],"data_offsets":[1,16777217]}}'
header = header .. (" "):rep(-#header % 8)
local large = T.write(place .. "/large.safetensors", ("<I8"):pack(#header) .. header .. ("\0"):rep(16777217))
ends(RUN .. " --recipe-memory 17MB", ("require('burin').read(%q):read 'b'"):format(large), 71,
  large .. ": out of memory: Lua may take")
ends(RUN .. " --recipe-memory 12MB", ("require('burin').read(%q):read 'b'"):format(large), 1,
  large .. ": tensor too large")
ends(RUN .. " --recipe-memory 64MB", ("require('burin').read(%q):read 'b'"):format(large), 0)
os.remove(large)

T.finish()
