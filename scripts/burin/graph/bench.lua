-- SPDX-License-Identifier: MIT
-- bench.lua - how fast kernels are. A measurement is a small graph of random numbers: compiled, warmed up (the first
-- run builds pipelines), then run with each kernel timed until `seconds` are spent; the median counts.
local core = require "burin.core"
local bench = { seconds = 0.3 }

local MIN_RUNS, MAX_RUNS = 3, 50

function bench.median(list)
  table.sort(list)
  local n = #list
  return n % 2 == 1 and list[(n + 1) // 2] or (list[n // 2] + list[n // 2 + 1]) / 2
end

-- Calls run() -> number repeatedly and returns the median of its results.
function bench.repeated(run, seconds)
  local list, start = {}, core.clock()
  repeat
    list[#list + 1] = run()
  until #list >= MAX_RUNS or (#list >= MIN_RUNS and core.clock() - start > (seconds or bench.seconds))
  return bench.median(list)
end

-- A session over random inputs. inputs: name -> { shape, dtype }; trace(x, graph) -> nodes to compute.
function bench.session(inputs, trace)
  local graph, x, names = core.graph(), {}, {}
  for name in pairs(inputs) do names[#names + 1] = name end
  table.sort(names)
  local vars = {}
  for i, name in ipairs(names) do
    local shape, dtype = table.unpack(inputs[name])
    vars[i] = core.var("bench." .. name, shape, dtype or "f32", "input")
    x[name] = graph:leaf(vars[i])
  end
  for i, node in ipairs { trace(x, graph) } do
    graph:assign(core.var("bench.result" .. i, node.shape, node.dtype, "input"), node)
  end
  local session = core.session(graph, "bench")
  for i, var in ipairs(vars) do var:write(core.tensor(var.shape, "f32"):fill_normal(1, i, 1)) end
  return session
end

-- Seconds that the session's kernels take: all, or per group. groups: label of a kernel's op -> name of its group.
function bench.kernels(session, groups)
  local times = {}
  session:profile()
  local total = bench.repeated(function()
    local sum, of = 0, {}
    for _, row in ipairs(session:profile()) do
      sum = sum + row.seconds
      local group = groups and groups[row.label]
      if group then of[group] = (of[group] or 0) + row.seconds end
    end
    for group, seconds in pairs(of) do
      times[group] = times[group] or {}
      table.insert(times[group], seconds)
    end
    return sum
  end)
  for group, list in pairs(times) do times[group] = bench.median(list) end
  return total, times
end

-- Seconds from submitting the session to its end.
function bench.wall(session, seconds)
  session:run()
  core.wait()
  return bench.repeated(function()
    local start = core.clock()
    session:run()
    core.wait()
    return core.clock() - start
  end, seconds)
end

-- A chain in which each dispatch waits for the one before it, on so little data that only its own cost is seen.
function bench.chain(n)
  return bench.session({ x = { { 1, 8 } } }, function(x)
    local y = x.x
    for _ = 1, n do y = y:softmax() end
    return y
  end)
end

-- For estimates: floating-point operations per second of a plain matrix product, and what a dispatch costs in
-- seconds; nil where nothing is computed. Call it before anything else is declared: running takes the memory of all
-- that is, and afterwards all of it is given back.
function bench.rate()
  local kind = core.device().type
  if kind == "null" then return nil end
  local n, links = kind == "cpu" and 512 or 2048, 256
  local product = bench.session({ x = { { n, n } }, w = { { n, n } } }, function(x) return x.x:matmul(x.w) end)
  local rate = 2 * n ^ 3 / bench.wall(product, 0.1)
  local dispatch = bench.wall(bench.chain(links), 0.05) / links
  product = nil
  collectgarbage()
  collectgarbage()
  return rate, dispatch
end

return bench
