-- SPDX-License-Identifier: MIT
local bench = require "burin.graph.bench"
local core = require "burin.core"
local errors = require "burin.base.errors"
local recipe = require "burin.train.recipe"
local plans = require "burin.train.plan"

local TOP = 15

-- ---- results ---------------------------------------------------------------------------------------------------

-- Collects rows { what, shape, dtype, ms, gflops or gbytes, share }.
local report = {}

local function show_row(r)
  local rate = r.gflops and ("%9.1f GFLOP/s"):format(r.gflops) or ("%9.1f GB/s   "):format(r.gbytes)
  local share = r.share and ("%5.1f %%"):format(100 * r.share) or ""
  core.write_stdout(("%-22s %-4s %-34s %10.3f %s %s\n"):format(r.what, r.dtype, r.shape, r.ms, rate, share))
end

-- On a CPU shares are known at once; on a GPU, whose peak nobody tells, they refer to the best row of their kind.
local function add(what, dtype, shape, seconds, flops, bytes)
  local row = { what = what, dtype = dtype, shape = shape, ms = seconds * 1e3,
    gflops = flops and flops / seconds / 1e9, gbytes = bytes and bytes / seconds / 1e9 }
  if report.peak then
    row.share = flops and row.gflops * 1e9 / report.peak.flops or row.gbytes * 1e9 / report.peak.bandwidth
    if not report.json then show_row(row) end
  end
  report.rows[#report.rows + 1] = row
  collectgarbage()
end

local function finish_shares()
  if report.peak then return end
  local best = { gflops = 0, gbytes = 0 }
  for _, r in ipairs(report.rows) do
    for kind, value in pairs(best) do best[kind] = math.max(value, r[kind] or 0) end
  end
  for _, r in ipairs(report.rows) do
    r.share = r.gflops and r.gflops / best.gflops or r.gbytes / best.gbytes
    if not report.json then show_row(r) end
  end
end

local function dims(...) return table.concat({ ... }, "x") end

-- ---- kernels ----------------------------------------------------------------------------------------------------

local suites = {}

-- y (M, N) = x w. Weights are stored for NN; NT makes input gradients, TN weight gradients.
function suites.gemm(quick)
  local layouts = { { "NN", 0, 0 }, { "NT", 0, 1 }, { "TN", 1, 0 } }
  local shapes = { { 512, 512, 512 }, { 1024, 320, 320 }, { 4096, 320, 320 }, { 2048, 32, 32 }, { 512, 64, 64 },
    { 2048, 256, 32 } }
  if quick then shapes = { shapes[1], shapes[2], shapes[5] } end
  for _, l in ipairs(layouts) do
    for _, s in ipairs(shapes) do
      for _, dtype in ipairs(report.dtypes) do
        local m, n, k = table.unpack(s)
        local ta, tb = l[2], l[3]
        local session = bench.session({ x = { ta == 1 and { k, m } or { m, k }, dtype },
          w = { tb == 1 and { n, k } or { k, n }, dtype } },
          function(x) return x.x:matmul(x.w, { ta = ta, tb = tb }) end)
        add("matmul " .. l[1], dtype, dims(m, n, k), bench.kernels(session), 2 * m * n * k)
      end
    end
  end
end

-- 3x3, stride 1, padding 1.
function suites.conv(quick)
  local shapes = { { 1, 32, 320, 320 }, { 1, 64, 320, 320 }, { 16, 8, 64, 64 } }
  if quick then shapes = { shapes[3] } end
  for _, s in ipairs(shapes) do
    local b, size, c, o = table.unpack(s)
    local pad = { top = 1, left = 1, bottom = 1, right = 1 }
    local function with(more)
      for k, v in pairs(pad) do more[k] = v end
      return more
    end
    local directions = {
      { "conv 3x3", { b, size, size, c }, { 3, 3, c, o }, function(x) return x.x:conv2d(x.w, pad) end },
      { "conv 3x3 input grad", { b, size, size, o }, { 3, 3, c, o },
        function(x) return x.x:conv2d_dx(x.w, with { height = size, width = size }) end },
      { "conv 3x3 weight grad", { b, size, size, c }, { b, size, size, o },
        function(x) return x.x:conv2d_dw(x.w, with { kh = 3, kw = 3 }) end },
    }
    for _, d in ipairs(directions) do
      for _, dtype in ipairs(report.dtypes) do
        local session = bench.session({ x = { d[2], dtype }, w = { d[3], dtype } }, d[4])
        add(d[1], dtype, ("%dx%dx%d %d to %d"):format(b, size, size, c, o), bench.kernels(session),
          2 * b * size * size * 9 * c * o)
      end
    end
  end
end

-- Operations as usually counted: forward two products, backward five (recomputed scores are not counted).
function suites.attention(quick)
  local shapes = { { 1, 1024, 8, 40 }, { 32, 64, 4, 16 } }
  if quick then shapes = { shapes[2] } end
  local groups = { attention = "forward", attention_delta = "backward", attention_dq = "backward",
    attention_dkv = "backward" }
  for _, s in ipairs(shapes) do
    local b, n, heads, depth = table.unpack(s)
    local shape, o = { b, n, heads * depth }, { heads = heads }
    for _, dtype in ipairs(report.dtypes) do
      local spec = { shape, dtype }
      local session = bench.session({ q = spec, k = spec, v = spec, dy = spec }, function(x)
        local y = x.q:attention(x.k, x.v, o)
        local lse, delta = y:part(1), y:attention_delta(x.dy, o)
        local dkv = x.q:attention_dkv(x.k, x.v, x.dy, lse, delta, o)
        return x.q:attention_dq(x.k, x.v, x.dy, lse, delta, o), dkv, dkv:part(1)
      end)
      local _, times = bench.kernels(session, groups)
      local text = ("%d tokens, %d heads x %d, batch %d"):format(n, heads, depth, b)
      local flops = 4 * b * heads * n * n * depth
      add("attention", dtype, text, times.forward, flops)
      add("attention backward", dtype, text, times.backward, 2.5 * flops)
    end
  end
end

-- Bytes: each tensor counted once, however often a kernel passes over it.
local function norm(name, shape, groups, call)
  local c = shape[#shape]
  local count = 1
  for _, n in ipairs(shape) do count = count * n end
  for _, dtype in ipairs(report.dtypes) do
    local session = bench.session({ x = { shape, dtype }, gamma = { { c } }, beta = { { c } }, dy = { shape, dtype } },
      function(x)
        local y = call(x.x, x.gamma, x.beta)
        local o = groups and { groups = groups }
        local dw = x.x[name .. "_dw"](x.x, x.dy, y:part(1), o)
        return y, x.x[name .. "_dx"](x.x, x.gamma, x.dy, y:part(1), o), dw, dw:part(1)
      end)
    local _, times = bench.kernels(session, { [name] = "forward", [name .. "_dx"] = "dx", [name .. "_dw"] = "dw" })
    local bytes = count * (dtype == "f32" and 4 or 2)
    local text, title = dims(table.unpack(shape)), name:gsub("_", " ")
    add(title, dtype, text, times.forward, nil, 2 * bytes)
    add(title .. " input grad", dtype, text, times.dx, nil, 3 * bytes)
    add(title .. " weight grad", dtype, text, times.dw, nil, 2 * bytes)
  end
end

function suites.norm(quick)
  local n = quick and 16 or 64
  norm("group_norm", { 1, n, n, 320 }, 32, function(x, gamma, beta)
    return x:group_norm(gamma, beta, { groups = 32 })
  end)
  norm("layer_norm", { 1, n * n, 320 }, nil, function(x, gamma, beta) return x:layer_norm(gamma, beta) end)
end

function suites.elementwise(quick)
  local count = quick and 1 << 18 or 1 << 22
  local cases = {
    { "add", 3, function(x) return x.a + x.b end },
    { "silu", 2, function(x) return x.a:silu() end },
    { "a * silu(b) + a", 3, function(x) return x.a * x.b:silu() + x.a end },
    { "transpose", 2, function(x) return x.a:permute { d0 = 1, d1 = 0, d2 = 2, d3 = 3 } end },
    { "sum of squares", 1, function(x) return x.a:sum_squares() end },
  }
  for _, case in ipairs(cases) do
    for _, dtype in ipairs(report.dtypes) do
      local spec = { { 1024, count // 1024 }, dtype }
      local session = bench.session({ a = spec, b = spec }, case[3])
      local bytes = case[2] * count * (dtype == "f32" and 4 or 2)
      add(case[1], dtype, dims(table.unpack(spec[1])), bench.kernels(session), nil, bytes)
    end
  end
end

function suites.dispatch()
  local n = 1000
  local seconds = bench.wall(bench.chain(n))
  report.dispatch = { count = n, microseconds = seconds / n * 1e6 }
  if not report.json then
    core.write_stdout(("%-22s %-4s %-34s %10.3f %9.2f us each\n"):format("dispatch", "", ("chain of %d"):format(n),
      seconds * 1e3, report.dispatch.microseconds))
  end
end

-- ---- a training step ---------------------------------------------------------------------------------------------

-- Random numbers of the right shapes instead of a dataset: nothing is read, generated or cached.
local function fill_batch(inputs)
  local stream = 0
  for _, name in ipairs { "moments", "weight", "context", "ids" } do
    local var = inputs[name]
    if var then
      stream = stream + 1
      local t = core.tensor(var.shape, var.dtype)
      if name == "ids" then for i = 1, t.count do t:set(i, i * 31 % 40000) end
      elseif name == "weight" then t = core.tensor(var.shape, "f32", 1)
      else t:fill_normal(1, stream, 0.5) end
      var:write(t)
    end
  end
end

-- The largest shape's session, ready to run.
local function open_step(args)
  local began = core.clock()
  local r = recipe.load(args.recipe, args.trust)
  local plan = plans.prepare(r)
  local planned = core.clock()
  local planned_bytes = core.planned_memory().total
  core.commit(true)
  plan.model:load()
  plan.tables.upload()
  plan.method:init(r.seed)
  plan.trainer:reset()
  local largest
  for _, t in pairs(plan.batches) do
    if not largest or t.session:info().flops > largest.session:info().flops then largest = t end
  end
  fill_batch(largest.inputs)
  local loaded = core.clock()
  local bytes, allocations = core.allocated_memory()
  local lr, sessions = { [0] = r.optimizer.lr, r.optimizer.lr }, { largest.session, plan.trainer.update_session }
  local function step(i)
    for micro = 0, plan.trainer.accumulate - 1 do
      plan.trainer:run(largest.session, i * plan.trainer.accumulate + micro, lr)
    end
    plan.trainer:read()
  end
  step(0)
  local first = core.clock()
  local now_bytes, now_allocations = core.allocated_memory()
  return { sessions = sessions, step = step, accumulate = plan.trainer.accumulate,
    seconds = { prepare = planned - began,
      load = loaded - planned, first_step = first - loaded }, planned_bytes = planned_bytes, allocated_bytes = bytes,
    grown_bytes = now_bytes - bytes, new_allocations = now_allocations - allocations,
    shape = largest.bucket.w .. "x" .. largest.bucket.h .. " batch " .. r.batch, flops = largest.session:info().flops }
end

-- One profile of every session of a step, added up by op label: { { label, count, seconds, flops, bytes } }, seconds.
local function profile_once(s)
  local labels, list, total = {}, {}, 0
  for i, session in ipairs(s.sessions) do
    local times = i == 1 and s.accumulate or 1
    for _, row in ipairs(session:profile()) do
      local l = labels[row.label]
      if not l then
        l = { label = row.label, count = 0, seconds = 0, flops = 0, bytes = 0 }
        labels[row.label] = l
        list[#list + 1] = l
      end
      l.count = l.count + times
      for _, key in ipairs { "seconds", "flops", "bytes" } do l[key] = l[key] + times * row[key] end
      total = total + times * row.seconds
    end
  end
  table.sort(list, function(a, b) return a.seconds > b.seconds end)
  return { list, total }
end

-- The middle one of three profiles.
local function profile_labels(s)
  local profiles = { profile_once(s), profile_once(s), profile_once(s) }
  table.sort(profiles, function(a, b) return a[2] < b[2] end)
  return table.unpack(profiles[2])
end

local function show_step(r)
  local out = { ("step  %s: %.1f ms, %.2f GFLOP, %.1f GFLOP/s%s"):format(r.shape, r.seconds_per_step * 1e3,
    r.flops / 1e9, r.flops / r.seconds_per_step / 1e9, r.share and (", %.1f %% of peak"):format(100 * r.share) or "") }
  out[#out + 1] = ("      %.1f ms in kernels, %.1f %% of the step outside them"):format(r.kernel_seconds * 1e3,
    100 * r.outside)
  out[#out + 1] = ("start %.2f s to the end of step 1: %.2f s trace and plan, %.2f s memory and weights, "
    .. "%.2f s first step"):format(r.start.prepare + r.start.load + r.start.first_step, r.start.prepare, r.start.load,
      r.start.first_step)
  out[#out + 1] = ("memory planned %d bytes, allocated %d (%+.2f %%), %d allocations after the plan was committed")
    :format(r.planned_bytes, r.allocated_bytes, 100 * (r.allocated_bytes / r.planned_bytes - 1), r.new_allocations)
  out[#out + 1] = ("%-22s %9s %10s %7s %9s %9s"):format("op", "kernels", "ms", "share", "GFLOP/s", "GB/s")
  for i = 1, math.min(TOP, #r.labels) do
    local l = r.labels[i]
    out[#out + 1] = ("%-22s %9d %10.3f %5.1f %% %9.1f %9.1f"):format(l.label, l.count, l.seconds * 1e3,
      100 * l.seconds / r.kernel_seconds, l.flops / l.seconds / 1e9, l.bytes / l.seconds / 1e9)
  end
  core.write_stdout(table.concat(out, "\n") .. "\n")
end

function suites.step(_, args)
  local s, i = open_step(args), 0
  local wall = bench.repeated(function()
    i = i + 1
    local start = core.clock()
    s.step(i)
    return core.clock() - start
  end, 4 * bench.seconds)
  local labels, kernels = profile_labels(s)
  local flops = s.accumulate * s.flops
  report.step = { recipe = args.recipe, shape = s.shape, seconds_per_step = wall, kernel_seconds = kernels,
    outside = math.max(0, 1 - kernels / wall), flops = flops, share = report.peak and flops / wall / report.peak.flops,
    start = s.seconds, planned_bytes = s.planned_bytes, allocated_bytes = s.allocated_bytes,
    new_allocations = s.new_allocations, labels = labels }
  if not report.json then show_step(report.step) end
end

-- ---- the command --------------------------------------------------------------------------------------------------

local order = { "gemm", "conv", "attention", "norm", "elementwise", "dispatch", "step" }

-- The device's first line, and what shares refer to.
local function show_head(device, peak, rows)
  core.write_stdout(("%s, kernels: %s%s\n"):format(device.name, device.tier,
    device.engine ~= "" and " (" .. device.engine .. ")" or ""))
  core.write_stdout(peak and ("peak: %.1f GFLOP/s (%s), %.1f GB/s read, %d cores, both measured now\n"):format(
    peak.flops / 1e9, peak.kind, peak.bandwidth / 1e9, peak.cores)
      or "shares are of the device's own best result of this run\n")
  if peak and peak.available < 0.9 then
    core.write_stdout(("note: other programs leave us %.0f %% of the processor; times suffer, the peak does not\n")
      :format(100 * peak.available))
  end
  if not rows then return end
  core.write_stdout(("%-22s %-4s %-34s %10s %17s %7s\n"):format("what", "type", "shape", "ms", "rate", "of peak"))
end

return {
  summary = "rates of the kernels, against what the machine can do",
  usage = "[gemm|conv|attention|norm|elementwise|dispatch|all|step] [options]",
  options = {
    { "--quick", "flag", "fewer and smaller shapes, shorter measurements" },
    { "--recipe", "file", "for step: the recipe whose training step is profiled, on random data" },
  },
  recipe = { steps = 2000000000 },
  more = "Matrix shapes are MxNxK. Layouts: NN is that of weights, NT and TN occur in gradients.",
  run = function(args)
    local what = args[1] or "all"
    if what ~= "all" and not suites[what] then
      local near = core.nearest(what, order)
      errors.raise("usage", ("burin bench measures all or one of %s, not '%s'%s"):format(table.concat(order, ", "),
        what, near and ("; did you mean '" .. near .. "'?") or ""))
    end
    if what == "step" and not args.recipe then
      errors.raise("usage", "burin bench step needs --recipe FILE")
    end
    args.open_device()
    local device = core.device()
    if device.type == "null" then
      errors.raise("device", "the null device computes nothing to be measured")
    end
    if args.quick then bench.seconds = 0.05 end
    report = { json = args.json, rows = {}, dtypes = device.storage16 and { "f32", "f16" } or { "f32" },
      peak = device.type == "cpu" and core.cpu_peak() or nil }
    if not args.json then show_head(device, report.peak, what ~= "step") end
    for _, name in ipairs(order) do
      if what == name or (what == "all" and name ~= "step") then suites[name](args.quick, args) end
    end
    finish_shares()
    if args.json then
      core.write_stdout(core.json_encode { device = device, peak = report.peak,
        share_of = report.peak and "cpu peak" or "best result", results = what ~= "step" and report.rows or nil,
        dispatch = report.dispatch, step = report.step } .. "\n")
    end
  end,
}
