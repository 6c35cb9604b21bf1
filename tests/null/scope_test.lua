-- SPDX-License-Identifier: MIT
-- scope_test.lua - device memory has a scope: what it closes, in any order, whatever Lua still holds; what it leaves.
-- The collector stands still, so that nothing here depends on it. Runs as `burin run --trust` from the root.
local core = require "burin.core"
local T = dofile "tests/check.lua"
local check = T.check

collectgarbage "stop"

local function total() return core.planned_memory().total end

local function fails(label, text, f, ...)
  local ok, e = pcall(f, ...)
  local said = ok and "no error" or type(e) == "table" and e.message or tostring(e)
  check(not ok and said:find(text, 1, true), label, said)
end

-- A network of one product that is trained, as compile.lua packs it: n x n weights.
local function attempt(n)
  local w = core.var("w", { n, n }, "f32", "param")
  local x = core.var("x", { n, n }, "f32", "input")
  local y = core.var("y", { n, n }, "f32", "input")
  local params = core.pack("params", { w }, "param")
  local grads, views = core.pack_like("grads", params, "grad")
  local graph = core.graph()
  local node = graph:leaf(x):matmul(graph:leaf(w))
  graph:assign(y, node)
  graph:assign(views[1], graph:backward(node:sum_to {}, { graph:leaf(w) })[1])
  return { w = w, x = x, y = y, params = params, grads = grads, views = views, graph = graph, node = node,
    session = core.session(graph, "attempt") }
end

local kept = core.var("kept", { 64 }, "f32", "weight")
kept:write(3)
local before = total()

-- The loop of a budget: each attempt is held, and its memory is gone all the same. The one that fits stays.
local held, winner, scope = {}, nil, nil
for i, n in ipairs { 512, 256, 128, 64 } do
  local s <close> = core.scope()
  held[i] = attempt(n)
  local bytes = total() - before
  check(bytes >= 4 * 4 * n * n, "attempt", n, bytes)
  if bytes < 1 << 20 then
    s:leave()
    winner, scope = held[i], s
    break
  end
end
check(winner == held[3], "the first attempt that fits")
check(total() - before < 1 << 20, "attempts before it leave the plan", total() - before)

-- It computes, and what was made outside of scopes is as it was.
core.commit()
winner.w:write(2)
winner.x:write(1)
winner.session:run()
check(winner.y:read():get(1) == 2 * 128, "the winner runs", winner.y:read():get(1))
check(winner.views[1]:read():get(1) == 128, "and trains", winner.views[1]:read():get(1))
check(kept:read():get(64) == 3, "kept")

-- A closed object says so, each in its own words.
local dead = held[1]
for name, f in pairs {
  read = function() return dead.w:read() end, write = function() dead.x:write(0) end,
  upload = function() dead.w:upload(core.tensor({ 512, 512 }, "f32", 0), 512, 512, 1) end,
  absent = function() dead.w:absent(true) end, name = function() return dead.w.name end,
  shape = function() return dead.w.shape end, members = function() return dead.params.members end,
  view = function() return dead.views[1]:read() end,
  pack = function() return core.pack("again", { dead.w }, "param") end,
  pack_like = function() return core.pack_like("again", dead.params, "grad") end,
  leaf = function() return core.graph():leaf(dead.w) end,
  assign = function() return core.graph():assign(dead.w, winner.node) end,
} do fails(name, "this variable is closed", f) end
for name, f in pairs {
  leaf = function() return dead.graph:leaf(kept) end, count = function() return dead.graph:count() end,
  checkpoint = function() return dead.graph:checkpoint(print) end,
  backward = function() return dead.graph:backward(dead.node, {}) end,
  session = function() return core.session(dead.graph, "again") end,
} do fails(name, "this graph is closed", f) end
for name, f in pairs {
  op = function() return dead.node:silu() end, operator = function() return dead.node + 1 end,
  shape = function() return dead.node.shape end, count = function() return dead.node:count() end,
  text = function() return tostring(dead.node) end, second = function() return winner.node + dead.node end,
  assign = function() return winner.graph:assign(winner.y, dead.node) end,
} do fails(name, "the graph of this node is closed", f) end
for _, name in ipairs { "run", "info", "profile" } do
  fails(name, "this session is closed", function() return dead.session[name](dead.session) end)
end

-- The winner's scope was left: it closes later, by itself, twice if need be.
scope:close()
scope:close()
check(total() == before, "closed after it was left", total())
fails("a closed scope", "this scope is closed", scope.enter, scope)
fails("a closed scope", "this scope is closed", scope.leave, scope)
fails("the winner", "this session is closed", winner.session.run, winner.session)

-- What is made outside stays, also if it refers to what is inside: then it cannot run.
do
  local outside = core.graph()
  local result = core.var("result", { 64 }, "f32", "input")
  local s = core.scope()
  local inner = core.var("inner", { 64 }, "f32", "weight")
  inner:write(1)
  outside:assign(result, outside:leaf(kept) + outside:leaf(inner))
  s:leave()
  local session = core.session(outside, "outside")
  session:run()
  check(result:read():get(1) == 4, "a session over both", result:read():get(1))
  s:close()
  check(outside:count() == 4, "a graph from outside")
  fails("a session over a closed variable", "variable inner is gone", session.run, session)
  fails("another one", "variable inner is gone", function() core.session(outside, "late"):run() end)
  check(result:read():get(1) == 4 and kept:read():get(1) == 3, "variables from outside")
  local packed = core.scope()
  local member = core.var("member", { 64 }, "f32", "input")
  packed:leave()
  packed:enter()
  fails("entered twice", "this scope is current already", packed.enter, packed)
  core.pack("pack", { result, member }, "input")
  packed:close()
  check(result.name == "result" and pcall(result.write, result, 5) and result:read():get(1) == 5,
    "a member from outside")
end

-- Scopes nest: the innermost is current, and the outer one closes those within, also one that was left and dropped.
do
  local base = total()
  local outer = core.scope()
  local a = core.var("a", { 64 }, "f32", "weight")
  local inner = core.scope()
  local b = core.var("b", { 64 }, "f32", "weight")
  fails("the outer one", "a scope within this one is current", outer.leave, outer)
  inner:close()
  fails("closed", "this variable is closed", function() b:read() end)
  check(a.name == "a", "the outer one's variable")
  local c
  do
    local second <close> = core.scope()
    c = core.var("c", { 64 }, "f32", "weight")
    second:leave()
  end
  core.scope()  -- closed with the outer one, though nobody holds it
  local d = core.var("d", { 64 }, "f32", "weight")
  outer:close()
  for _, v in ipairs { a, c, d } do fails("closed with the outer one", "this variable is closed",
    function() v:read() end) end
  check(total() == base, "nested scopes", total())
  local free = core.var("free", { 64 }, "f32", "weight")
  check(free.name == "free" and total() > base, "no scope is current")
end

-- An error closes it, and a checkpoint survives the end of its graph.
do
  local base = total()
  fails("an error inside", "on purpose", function()
    local s <close> = core.scope()
    attempt(64)
    error("on purpose", 0)
  end)
  check(total() == base, "after an error", total())
  local s = core.scope()
  local graph = core.graph()
  graph:checkpoint(function() s:close() end)
  fails("closed in a checkpoint", "this graph is closed", graph.count, graph)
end

-- With a scope or without one the collector still takes what nobody holds.
do
  local base = total()
  local s = core.scope()
  for _ = 1, 8 do attempt(64) end
  check(total() > base, "before the collector")
  collectgarbage()
  collectgarbage()
  check(total() <= base, "after it", total() - base)
  s:close()
end

T.finish()
