-- SPDX-License-Identifier: MIT
-- walk_test.lua - everything that a recipe can reach: its globals, what their functions return, what callbacks are
-- given, and so on, through fields, metatables and calls. None of it is a way to io, os, debug, bytecode, the core, a
-- finalizer, or a table of the library's that accepts a write. From the repository root, with a device that computes or
-- without one:
--   burin run --trust --output SCRATCH tests/cli/walk_test.lua
--   burin plan --trust --device null tests/cli/walk_test.lua
local core = require "burin.core"
local T = dofile "tests/check.lua"
local paths = require "burin.base.paths"

local planned = not pcall(core.device)  -- burin plan opens a device after its recipe
if planned then core.open_device { name = "null" } end
local place = T.folder()
paths.begin(place .. "/run", false)
T.checkf(core.exists(place .. "/run") == nil, "a run's folder is made when something is written")
core.log_threshold "error"
require("burin.base.progress").quiet = true

-- ---- what must not be met -------------------------------------------------------------------------------------------

local forbidden = {}
local function forbid(value, name)
  local kind = type(value)
  if kind == "function" or kind == "table" or kind == "userdata" then forbidden[value] = forbidden[value] or name end
end

local harmless = {}  -- functions of the standard library that recipes have as they are
for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "pcall", "rawequal", "rawlen", "select",
  "tonumber", "tostring", "type" } do
  harmless[_G[name]] = true
end
for _, library in ipairs { "coroutine", "math", "string", "table", "utf8" } do
  for name, f in pairs(_G[library]) do harmless[f] = library .. "." .. name ~= "string.dump" end
end
for name, library in pairs(package.loaded) do
  forbid(library, "the module " .. name)
  if type(library) == "table" and not name:find "^burin" then
    for field, f in pairs(library) do
      if not harmless[f] then forbid(f, name .. "." .. field) end
    end
  end
end
for name, f in pairs(core) do
  if name ~= "tensor" then forbid(f, "core." .. name) end
end
forbid(debug.getregistry(), "the registry")
forbid(getmetatable "", "the metatable of strings")
forbid(package.searchers, "package.searchers")

-- The hidden parts of objects: forbidden as soon as an object is met.
local function hide(object)
  local meta = debug.getmetatable(object)
  if not meta or forbidden[meta] then return end
  local hidden = rawget(meta, "__metatable") ~= nil
  if not hidden then return end
  forbid(meta, "the metatable of " .. tostring(rawget(meta, "__name")))
  for event, f in pairs(meta) do
    if type(event) == "string" and event:match "^__" then
      forbid(f, tostring(rawget(meta, "__name")) .. "'s " .. event)
    end
  end
end

-- The names of methods, which a recipe knows from the documentation.
local function methods_of(object)
  local meta = debug.getmetatable(object)
  local index, names = meta and rawget(meta, "__index"), {}
  if type(index) == "function" then index = select(2, debug.getupvalue(index, 1)) end
  for name in next, type(index) == "table" and index or {} do
    if type(name) == "string" then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

-- ---- the walk -------------------------------------------------------------------------------------------------------

local CANARY = "canary"
local fields = { "__gc", "__close", "__index", "__newindex", "__metatable", "dump", "new", "files", "core", "trainer",
  "map", "config", "shape", "dtype", "graph", "name", "members", "adapter", "method", "definition", "component",
  "order", "vars", "options", "value", 0, 1, 2 }
local seed = 1
local function random(n)  -- an LCG (Knuth): the walk is the same each time
  seed = (seed * 6364136223846793005 + 1442695040888963407)
  return (seed >> 33) % n + 1
end

local function walker(env, second)
  local met, queue, pool, own = {}, {}, {}, {}
  local count, calls = 0, 0

  local function meet(value, path)
    local kind = type(value)
    if kind ~= "table" and kind ~= "function" and kind ~= "userdata" and kind ~= "thread" then return end
    if met[value] then return end
    met[value] = path
    count = count + 1
    if kind ~= "function" then hide(value) end
    if forbidden[value] then T.check(false, ("%s is %s"):format(path, forbidden[value])) end
    queue[#queue + 1] = { value, path }
    if #pool < 200 then pool[#pool + 1] = value end
  end

  -- What a field gives, as the recipe would ask for it.
  local function as_recipe(text) return assert(load("local t, k, v = ... " .. text, "=walk", "t", env)) end
  local ask, put = as_recipe "return t[k]", as_recipe "t[k] = v"
  local walk_pairs = as_recipe "for a, b in pairs(t) do k(a, b) end"
  local walk_next = as_recipe "local a, b = next(t) while a ~= nil do k(a, b) a, b = next(t, a) end"
  local walk_ipairs = as_recipe "for i, b in ipairs(t) do if i > 50 then break end k(i, b) end"

  local function look(value, path)
    local function found(k, v)
      if k == CANARY and second then T.check(false, path .. " kept what an earlier recipe wrote into it") end
      meet(k, path .. " key")
      meet(v, ("%s.%s"):format(path, tostring(k)))
    end
    local names = methods_of(value)
    table.move(fields, 1, #fields, #names + 1, names)
    names[#names + 1] = CANARY
    for _, name in ipairs(names) do
      local ok, v = pcall(ask, value, name)
      if ok and v ~= nil then
        found(name, v)
        if type(name) == "string" and name:find "^__" then T.check(false, path .. "." .. name .. " can be reached") end
      end
    end
    if type(value) == "table" then
      pcall(walk_pairs, value, found)
      pcall(walk_next, value, found)
      pcall(walk_ipairs, value, found)
    end
    local ok, meta = pcall(env.getmetatable, value)
    if ok then meet(meta, path .. " metatable") end
  end

  -- Every table is written into, in each way there is. Who reads it afterwards is the second walk.
  local function write(value, path)
    if own[value] then return end
    local direct, raw = pcall(put, value, CANARY, {}), pcall(env.rawset, value, CANARY .. " raw", {})
    if forbidden[value] then T.check(not direct and not raw, path .. " accepts a write") end
    pcall(env.table.insert, value, 1, nil)
    pcall(env.setmetatable, value, {})
    pcall(env.rawget, value, CANARY)
  end

  local plain = { 1, 2, 0, -1, 64, 1 << 53, math.huge, 0.5, "x", "f32", "../x", "", "a.safetensors", true }
  local function argument(self)
    local r = random(10)
    if r == 1 then return self end
    if r == 2 then return { 2, 2 } end
    if r == 3 then return {} end
    if r == 4 then return nil end
    if r <= 7 then return pool[random(#pool)] end
    return plain[random(#plain)]
  end

  -- Calls a function with arguments of all sorts; what it returns is walked as well.
  local called = {}
  local function call(f, path, self)
    called[f] = (called[f] or 0) + 4
    for i = 1, called[f] <= 60 and 4 or 0 do
      local arguments, n = {}, random(5) - 1
      for k = 1, n do arguments[k] = argument(self) end
      if i > 2 and self ~= nil or i == 1 then arguments[1] = self end
      calls = calls + 1
      local results = table.pack(pcall(f, table.unpack(arguments, 1, 5)))
      for k = 2, results.n do meet(results[k], ("%s() %d"):format(path, k - 1)) end
    end
  end

  local skip = {}  -- what would take this test with it, or its time
  for _, f in ipairs { env.print, env.xpcall, env.coroutine.create, env.coroutine.wrap } do skip[f] = true end
  for name, value in pairs(env) do
    own[value] = type(value) == "table" or nil
    skip[value] = harmless[value] or skip[value]
  end
  own[env] = true

  local function run()
    local at = 1
    while at <= #queue and at <= 5000 do
      local value, path = table.unpack(queue[at])
      local kind = type(value)
      if kind == "function" then
        if not skip[value] and not harmless[value] and not forbidden[value] then call(value, path, nil) end
      elseif kind == "table" or kind == "userdata" then
        look(value, path)
        for _, name in ipairs(methods_of(value)) do
          local ok, f = pcall(ask, value, name)
          if ok and type(f) == "function" and not forbidden[f] then call(f, path .. ":" .. name, value) end
        end
        if kind == "table" and not second then write(value, path) end
      end
      at = at + 1
      if at % 500 == 0 then collectgarbage() end
    end
    return count, calls
  end
  return meet, run
end

-- ---- a recipe that uses all that there is, and shows it to the walk -------------------------------------------------

local recipe = [[
local show = ...
local burin = require "burin"
show(_ENV, "_ENV")
show(burin, "burin")
for name, value in pairs(burin) do show(value, "burin." .. name) end
local function try(name, f, ...)
  local results = table.pack(pcall(f, ...))
  for i = 2, results.n do show(results[i], name .. " result") end
  return table.unpack(results, 2, results.n)
end
for _, name in ipairs { "adamw", "sgd", "mse", "min_snr", "constant", "linear", "cosine", "lora", "locon", "full" } do
  try("burin." .. name, burin[name], {})
end
local schedule = try("schedule", burin.schedule, "own", function(step, steps) return 1 end)
local tensor = try("tensor", burin.tensor, { 2, 2 }, "f32", { 1, 2, 3, 4 })
try("save", burin.save, "a.safetensors", { { "x", tensor } })
local file = try("read", burin.read, "a.safetensors")
if file then try("file:read", file.read, file, "x") end
try("rng", burin.rng, 1, 2)
try("progress", burin.progress, "title", 10)
local data = try("dataset", burin.dataset, { batch = 1, seed = 1, resolution = 64, granularity = 16 })
if data then
  try("dataset:add", data.add, data, "examples/sks-cat", { prompt = "a" }, {})
  try("dataset:epoch", data.epoch, data, 0)
  local next = try("dataset:batches", data.batches, data, {})
  if next then try("a batch", next) end
end
local method = try("method", burin.method, { name = "mine", options = { text_encoder = false },
  params = function(o, layer)
    show(o, "options") show(layer, "layer")
    return { s = layer:param("s", { layer.outputs }, "zeros") }
  end,
  forward = function(o, layer, p, x, y) show(p, "p") show(x, "x") show(y, "y") return y + y * p.s end })
local instance = method and try("an instance", method, {})
local loss = try("loss", burin.loss, { name = "own", per_sample = function(s)
  show(s, "s")
  for name, node in pairs(s) do show(node, "s." .. name) end
  return s.weight
end, weight = function(snr, prediction) return 1 end })
local net = burin.nn.component { name = "net", role = "param" }
show(net, "net")
local step = try("compile", burin.compile, {
  inputs = { x = { { 4, 2 } } },
  loss = function(batch, graph, control)
    show(batch, "batch") show(graph, "graph") show(control, "control")
    local s = net:trace(graph)
    show(s, "scope")
    local h = s:linear(batch.x, "first", 4)
    show(h, "node")
    return h:square():sum_to { 1, 1 }:reshape {}
  end,
  params = function()
    local list = {}
    for i, e in ipairs(net.order) do list[i] = { name = e.name, var = e.var, group = 0 } end
    show(list, "params")
    return list
  end,
  optimizer = burin.adamw { lr = 1e-2 }, schedule = burin.cosine {}, steps = 4,
})
if step then
  try("net:init", net.init, net, 1)
  try("step", step, { x = burin.tensor({ 4, 2 }, "f32", 1) })
  try("step:save", step.save, step, "state")
  try("step:resume", step.resume, step, "state")
end
try("session", burin.session, "s", { x = { { 2 } } }, function(x, graph) show(x, "inputs") return { y = x.x + 1 } end)
local model = try("model", burin.model, "tests/golden/tiny_sd1/model_ldm.safetensors")
local open = model and try("model.open", function() return model:open {} end)
local new = try("new_model", burin.new_model, { family = "sd1", sample_size = 64,
  unet = { in_channels = 4, out_channels = 4, channels = { 32, 32 }, depth = { 1, 0 }, mid_depth = 1, layers = 1,
    groups = 4, heads = { 1, 1 }, context = 32, linear_projection = false, time_ids_width = 256 },
  vae = { channels = { 16, 16 }, layers = 1, groups = 2, latent_channels = 4 },
  text = { { vocab = 49408, width = 32, tokens = 77, layers = 1, heads = 2, mlp = 64, act = "quick_gelu" } } },
  { role = "param" })
for name, m in pairs { open = open, new = new } do
  if instance and name == "open" then try(name .. ":adapt", m.adapt, m, instance) end
  try(name .. ":declare", m.declare, m)
  try(name .. ":tokenize", m.tokenize, m, "a cat")
  try(name .. ":reader", m.reader, m, "unet")
end
local d = burin.diffusion
local process = try("diffusion.process", d.process, {})
local tables = process and try("process:tables", process.tables, process, loss)
local other = burin.nn.component { name = "other", role = "param" }
if tables then
  try("a diffusion step", burin.compile, {
    inputs = { latents = { { 1, 8, 8, 4 } } },
    loss = function(batch, graph, control)
      return (d.objective { latents = batch.latents, process = process, tables = tables, control = control, loss = loss,
        predict = function(noisy) return other:trace(graph):conv(noisy, "c", 4) end })
    end,
    params = function() return { { name = "c", var = other.order[1].var, group = 0 } } end, optimizer = burin.sgd {},
  })
end
try("train", burin.train, { name = "x", base = model, concepts = { { images = "examples/sks-cat" } },
  method = burin.lora {}, resolution = 64, steps = 1, loss = loss, schedule = schedule })
for _, e in ipairs { { pcall(error, {}) }, { pcall(burin.lora, { rnk = 1 }) }, { pcall(burin.save) } } do
  show(e[2], "an error")
end
]]

local total, calls = 0, 0
for round = 1, 2 do
  local env = core.sandbox ""
  local meet, run = walker(env, round == 2)
  local chunk = assert(load(recipe, "@recipe", "t", env))
  local seen = {}
  local ok, why = pcall(chunk, function(value, path)
    seen[path] = true
    meet(value, path)
  end)
  T.check(ok, "the recipe fails", why)
  for _, path in ipairs { "layer", "scope", "control", "graph", "s.pred", "read result", "step result",
    "an instance result", "a batch result", "session result", "open:reader result", "train result",
    "a diffusion step result", "an error" } do
    T.check(seen[path], "the recipe got no " .. path)
  end
  local met, called = run()
  total, calls = total + met, calls + called
  T.checkf(met > 3000, "only %d things were met", met)
end

-- ---- what it left behind --------------------------------------------------------------------------------------------

for _, name in ipairs(core.list(place)) do T.check(name == "run", "a recipe wrote " .. name) end
for _, path in ipairs { "../x", "x", "a.safetensors" } do
  T.check(core.exists(path) == nil, "a recipe wrote beside its run's folder: " .. path)
end
os.execute(("rm -rf '%s'"):format(place))
print(("%d things met, %d calls"):format(total, calls))
print(("%d passed, %d failed"):format(T.passed, T.failed))
os.exit(T.failed == 0 and 0 or 1)
