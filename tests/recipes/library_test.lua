-- SPDX-License-Identifier: MIT
-- The library by itself: accumulation, moving averages, optimizers, buckets, the order of an epoch.
-- Runs as `burin run --trust tests/recipes/library_test.lua` from the repository root.
local encode = require "burin.text.encode"
local loops = require "burin.graph.loops"
local core = require "burin.core"
local dataset = require "burin.train.data"
local models = require "burin.models.model"
local optim = require "burin.graph.optimizers"

local T = dofile "tests/check.lua"
local check = T.checkf

local relative = T.relative

-- ---- accumulation ---------------------------------------------------------------------------------------------------

local N, IN, OUT = 8, 6, 5
local function random(shape, stream) return core.tensor(shape, "f32"):fill_normal(11, stream, 1) end
local X, Y, W0 = random({ N, IN }, 1), random({ N, OUT }, 2), random({ IN, OUT }, 3)

-- A linear regression: step(batch), its weights, its trainer.
local function regression(batch, o)
  local w = core.var("w", { IN, OUT }, "f32", "param")
  o.inputs = { x = { { batch, IN } }, y = { { batch, OUT } } }
  o.loss = function(x, graph)
    return ((x.x:matmul(graph:leaf(w)) - x.y):square():sum_to { 1, 1 } * (1 / (batch * OUT))):reshape {}
  end
  o.params = function() return { { name = "w", var = w, group = 0 } } end
  local step = loops.compile(o)
  core.commit()
  w:write(W0)
  return step, w
end

for name, make in pairs { sgd = function() return optim.sgd { lr = 0.05, momentum = 0.9, weight_decay = 0.01 } end,
  adamw = function() return optim.adamw { lr = 0.01 } end } do
  local full, w = regression(N, { optimizer = make() })
  local halves, v = regression(N // 2, { optimizer = make(), accumulate = 2 })
  for k = 1, 4 do
    full { x = X, y = Y }
    for h = 0, 1 do
      local first, last = h * N // 2 + 1, (h + 1) * N // 2
      halves { x = X:rows(first, last), y = Y:rows(first, last) }
    end
    local apart = relative(v:read(), w:read())
    check(apart < 1e-5, "%s: two accumulated halves differ by %g after update %d", name, apart, k)
  end
  check(relative(w:read(), W0) > 1e-3, "%s: nothing was learnt", name)
end

-- ---- moving average -------------------------------------------------------------------------------------------------

local decay = 0.9
local step, w = regression(N, { optimizer = optim.sgd { lr = 0.05 }, ema = decay })
local expected = W0:table()
for k = 1, 6 do
  step { x = X, y = Y }
  local now = w:read():table()
  for i = 1, #now do expected[i] = decay * expected[i] + (1 - decay) * now[i] end
  local apart = relative(step.trainer.groups[1].ema:read():rows(1, IN * OUT),
    core.tensor({ IN * OUT }, "f32", expected))
  check(apart < 1e-6, "the moving average differs by %g after step %d", apart, k)
end

-- ---- a loop that was stopped ----------------------------------------------------------------------------------------

local function stoppable()
  return regression(N, { optimizer = optim.adamw { lr = 0.01 }, ema = decay, seed = 3, steps = 6,
    schedule = require("burin.graph.schedules").cosine {} })
end
local folder = (core.env "SCRATCH" or "build") .. "/library"
require("burin.base.state").clear(folder)
local whole, a = stoppable()
check(whole:resume(folder) == 0, "a folder without a state was resumed")
for k = 1, 6 do
  whole { x = X, y = Y }
  if k == 4 then whole:save(folder) end
end
local rest, b = stoppable()
check(rest:resume(folder) == 4, "the loop does not know where it stopped")
for _ = 5, 6 do rest { x = X, y = Y } end
check(a:read():hash() == b:read():hash(), "a resumed loop ends elsewhere")
check(whole.trainer.groups[1].ema:read():hash() == rest.trainer.groups[1].ema:read():hash(),
  "a resumed average ends elsewhere")
rest.trainer.seed = 4
check(not pcall(rest.resume, rest, folder), "a state of another seed was resumed")

-- ---- optimizers -----------------------------------------------------------------------------------------------------

-- A loss whose gradient is the recorded one: sum(p g).
local goldens = core.load "tests/golden/optimizers.safetensors"
local function follow(prefix, optimizer)
  local names, vars, inputs = { "conv", "mat", "vec", "zero" }, {}, {}
  for _, name in ipairs(names) do
    local p0 = goldens:read("p0." .. name)
    vars[name] = core.var(name, p0.shape, "f32", "param")
    inputs[name] = { p0.shape }
  end
  local run = loops.compile { inputs = inputs, optimizer = optimizer, max_grad_norm = 0,
    loss = function(x, graph)
      local total
      for _, name in ipairs(names) do
        local product = graph:leaf(vars[name]) * x[name]
        local ones = {}
        for i = 1, #product.shape do ones[i] = 1 end
        local sum = product:sum_to(ones):reshape {}
        total = total and total + sum or sum
      end
      return total
    end,
    params = function()
      local list = {}
      for i, name in ipairs(names) do list[i] = { name = name, var = vars[name], group = 0 } end
      return list
    end }
  core.commit()
  for _, name in ipairs(names) do vars[name]:write(goldens:read("p0." .. name):cast()) end
  for i = 1, 8 do
    local batch = {}
    for _, name in ipairs(names) do batch[name] = goldens:read(("grad%d.%s"):format(i, name)):cast() end
    run(batch)
    for _, name in ipairs(names) do
      local reference = goldens:read(("%s.step%d.%s"):format(prefix, i, name))
      if reference then
        local apart = relative(vars[name]:read(), reference)
        check(apart < 1e-5, "%s: %s differs by %g after step %d", prefix, name, apart, i)
      end
    end
  end
end
follow("adamw", optim.adamw { lr = 1e-3 })
follow("adamw_wd0.1_b0.9_0.99", optim.adamw { lr = 3e-3, beta2 = 0.99, eps = 1e-6, weight_decay = 0.1 })

-- Gradient descent has no recorded numbers here; its formula is short: m = momentum m + g + decay p, p -= lr m.
do
  local p, g = core.var("p", { 24 }, "f32", "param"), goldens:read "grad1.vec":cast()
  local run = loops.compile { inputs = { g = { { 24 } } }, optimizer = optim.sgd { lr = 0.1, momentum = 0.8,
    weight_decay = 0.02 },
    max_grad_norm = 0, loss = function(x, graph) return (graph:leaf(p) * x.g):sum_to { 1 }:reshape {} end,
    params = function() return { { name = "p", var = p, group = 0 } } end }
  core.commit()
  p:write(goldens:read "p0.vec":cast())
  local want, grad, m = goldens:read "p0.vec":table(), g:table(), {}
  for _ = 1, 5 do
    run { g = g }
    for i = 1, 24 do
      m[i] = 0.8 * (m[i] or 0) + grad[i] + 0.02 * want[i]
      want[i] = want[i] - 0.1 * m[i]
    end
  end
  local apart = relative(p:read(), core.tensor({ 24 }, "f32", want))
  check(apart < 1e-6, "sgd differs by %g", apart)
end

-- ---- buckets --------------------------------------------------------------------------------------------------------

local function sizes(...)
  local list = {}
  for i, b in ipairs(dataset.bucket_sizes(...)) do list[i] = b.w .. "x" .. b.h end
  return table.concat(list, " "), #list
end
check(sizes(512, 256, 1024, 64) == "256x832 256x896 256x960 256x1024 320x704 320x768 384x640 448x576 512x512 576x448 "
  .. "640x384 704x320 768x320 832x256 896x256 960x256 1024x256", "buckets of 512: %s", sizes(512, 256, 1024, 64))
check(sizes(768, 256, 1024, 64) == "256x1024 320x1024 384x1024 448x1024 512x1024 576x960 576x1024 640x896 "
  .. "704x832 768x768 "
  .. "832x704 896x640 960x576 1024x256 1024x320 1024x384 1024x448 1024x512 1024x576", "buckets of 768: %s",
    sizes(768, 256, 1024, 64))
local half = "256x2048 320x2048 384x2048 448x2048 512x1856 512x1920 512x1984 512x2048 576x1664 576x1728 "
  .. "576x1792 640x1536 "
  .. "640x1600 704x1408 704x1472 768x1280 768x1344 832x1216 896x1152 960x1088"
local list, count = sizes(1024, 256, 2048, 64)
check(count == 41 and list:sub(1, #half + 10) == half .. " 1024x1024", "buckets of 1024: %d, %s", count, list)
for w, h in half:gmatch "(%d+)x(%d+)" do
  check((" " .. list .. " "):find((" %sx%s "):format(h, w), 1, true), "buckets of 1024: no %sx%s", h, w)
end
check(select(2, sizes(1024, 256, 1024, 64)) == 25, "buckets of 1024 up to 1024: %d",
  select(2, sizes(1024, 256, 1024, 64)))
check(select(2, sizes(1024, 256, 2048, 32)) == 81, "buckets of 1024 by 32: %d", select(2, sizes(1024, 256, 2048, 32)))
local standard = dataset.new { batch = 1, resolution = 512, buckets = true, granularity = 8 }
check(#standard.sizes == 17, "a dataset of 512 has %d bucket sizes", #standard.sizes)
for size, want in pairs { ["512x512"] = "512x512", ["300x300"] = "512x512", ["1920x1080"] = "640x384",
  ["1080x1920"] = "384x640", ["1024x256"] = "1024x256", ["4000x1000"] = "1024x256" } do
  local w, h = size:match "(%d+)x(%d+)"
  local b = standard:bucket_of(tonumber(w), tonumber(h))
  check(b.w .. "x" .. b.h == want, "an image of %s falls into %dx%d, not %s", size, b.w, b.h, want)
end

-- ---- the order of an epoch ------------------------------------------------------------------------------------------

local function made_up(seed)
  local d = dataset.new { batch = 3, seed = seed, resolution = 512, buckets = true, granularity = 8 }
  for i = 1, 7 do
    table.insert(d.items, { concept = 1, path = "a" .. i, repeats = i % 3 + 1,
      bucket = d:bucket_of(i % 2 == 0 and 512 or 900, 512) })
  end
  for i = 1, 4 do table.insert(d.items, { concept = 1, prior = true, path = "p" .. i, repeats = 1,
    bucket = d:bucket_of(512, 512) }) end
  d:balance_priors()
  return d
end
local function order(d, epoch)
  local words = {}
  for _, batch in ipairs(d:epoch(epoch)) do
    for _, item in ipairs(batch.items) do
      words[#words + 1] = item.path
      check(item.bucket == batch.bucket, "an item in a batch of another size")
    end
  end
  return table.concat(words, " "), #words
end
local a, b = made_up(5), made_up(5)
order(a, 0)
order(a, 1)
check(order(a, 2) == order(b, 2), "an epoch depends on those before it")
check(order(a, 2) ~= order(a, 3), "two epochs have one order")
check(order(a, 2) ~= order(made_up(6), 2), "two seeds have one order")
check(select(2, order(a, 0)) == 3 * a:steps_per_epoch(), "an epoch has %d items in batches of 3, steps %d",
  select(2, order(a, 0)), a:steps_per_epoch())
for _, item in ipairs(a.items) do  -- at least `repeats` times; a short batch is filled up
  local _, times = (" " .. order(a, 4) .. " "):gsub("%f[%w]" .. item.path .. "%f[%W]", "")
  check(times >= item.repeats, "%s is seen %d times, not %d", item.path, times, item.repeats)
end

-- Exact repeats: what weighs something is each picture as often as its repeats say, in every epoch, whatever buckets,
-- batches and accumulation are; the mean of a short batch is over the real ones.
for _, mix in ipairs { { 1, 1, 1 }, { 1, 4, 1 }, { 2, 3, 1 }, { 2, 4, 3 }, { 3, 5, 2 }, { 3, 16, 4 } } do
  local buckets, size, accumulate = table.unpack(mix)
  local d = dataset.new { batch = size, seed = 9, resolution = 512, buckets = true }
  for i = 1, 11 do
    local bucket = d:bucket_of(512 * (1 + i % buckets), 512)
    local item = { path = "p" .. i, repeats = i % 4 + 1, weight = 0.5, bucket = bucket }
    if i % 5 == 0 then
      item.variants = {}
      for k = 1, 3 do item.variants[k] = setmetatable({ caption = "line " .. k }, { __index = item }) end
    end
    table.insert(d.items, item)
  end
  local views, lines, said = {}, {}, ("%d buckets, batch %d x %d"):format(buckets, size, accumulate)
  for epoch = 0, 9 do
    local updates, words = d:updates(epoch, accumulate), {}
    check(#updates == (d:steps_per_epoch() + accumulate - 1) // accumulate, "%s: %d updates", said, #updates)
    for _, update in ipairs(updates) do
      check(#update <= accumulate and #update > 0, "%s: an update of %d batches", said, #update)
      for _, batch in ipairs(update) do
        local sum = 0
        for i, item in ipairs(batch.items) do
          sum = sum + batch.weights[i]
          if batch.weights[i] ~= 0 then
            views[item.path] = (views[item.path] or 0) + 1
            words[#words + 1] = item.path .. (item.caption or "")
            if item.caption then lines[item.caption] = true end
          end
        end
        check(#batch.items == size and math.abs(sum / size - 0.5) < 1e-12, "%s: the weights' mean is %g", said,
          sum / size)
      end
    end
    local again = {}
    for _, update in ipairs(d:updates(epoch, accumulate)) do
      for _, batch in ipairs(update) do
        for i, item in ipairs(batch.items) do
          if batch.weights[i] ~= 0 then again[#again + 1] = item.path .. (item.caption or "") end
        end
      end
    end
    check(table.concat(words) == table.concat(again), "%s: epoch %d is not a function of its number", said, epoch)
  end
  for _, item in ipairs(d.items) do
    check(views[item.path] == 10 * item.repeats, "%s: %s is seen %d times in 10 epochs, not %d", said, item.path,
      views[item.path], 10 * item.repeats)
  end
  check(lines["line 1"] and lines["line 2"] and lines["line 3"], "%s: a line of a caption is never chosen", said)
end

-- As many class images as instance images (14 of them): 4 4 3 3. A surplus is left out.
local repeats = {}
for _, item in ipairs(a.items) do if item.prior then repeats[#repeats + 1] = item.repeats end end
check(table.concat(repeats, " ") == "4 4 3 3", "class images are repeated %s times", table.concat(repeats, " "))
local surplus = dataset.new { batch = 1, seed = 1, resolution = 512, buckets = false, granularity = 8 }
for concept = 1, 70 do
  table.insert(surplus.items, { concept = concept, path = "i", repeats = 2, bucket = surplus.sizes[1] })
  for i = 1, 3 do table.insert(surplus.items, { concept = concept, prior = true, path = "c" .. i, repeats = 1,
    bucket = surplus.sizes[1] }) end
end
surplus:balance_priors()
for i = 1, 70 do
  local at = (i - 1) * 4
  check(surplus.items[at + 2].repeats == 1 and surplus.items[at + 3].repeats == 1
    and surplus.items[at + 4].repeats == 0, "concept %d: a surplus of class images is not left out", i)
end

-- ---- SDXL's six sizes -----------------------------------------------------------------------------------------------

-- A picture of 300 x 200 covers 64 x 64 as 96 x 64, so 16 columns are cut on the left; (height, width) come in this
-- order.
local front = encode.new(models.open "tests/golden/tiny_sdxl/model_ldm.safetensors", { live = true })
for _, case in ipairs {
  { 300, 200, 64, 64, "200 300 0 16 64 64" }, { 200, 300, 64, 64, "300 200 16 0 64 64" },
  { 1024, 768, 1024, 768, "768 1024 0 0 768 1024" }, { 64, 64, 128, 64, "64 64 32 0 64 128" },
} do
  local item = { width = case[1], height = case[2], bucket = { w = case[3], h = case[4] }, caption = "" }
  front:fill(item)
  local sizes = item.sizes:table()
  for i, v in ipairs(sizes) do sizes[i] = math.tointeger(v) end
  check(table.concat(sizes, " ") == case[5], "%d x %d in %d x %d: sizes %s, not %s", case[1], case[2], case[3], case[4],
    table.concat(sizes, " "), case[5])
end

T.finish()
