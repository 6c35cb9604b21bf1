-- SPDX-License-Identifier: MIT
-- train.lua - what burin.train{ ... } describes, prepared and run. prepare() traces and plans everything and takes
-- no device memory, so `burin plan` is the same code; execute() commits the memory, fills it and loops.
local cache = require "burin.cache"
local compile = require "burin.compile"
local core = require "burin.core"
local dataset = require "burin.dataset"
local diffusion = require "burin.diffusion"
local guard = require "burin.guard"
local grid = require "burin.grid"
local options = require "burin.options"
local progress = require "burin.progress"
local sample = require "burin.sample"
local state = require "burin.state"
local train = {}

local schema = {
  name = { "string", required = true, help = "name of the run and of its files" },
  base = { "table", required = true, help = "burin.model 'file.safetensors'" },
  concepts = { "table", required = true, help = "what to learn: { { images = 'folder', prompt = '...' } }" },
  method = { "table", required = true, help = "burin.lora{...} or burin.full{...}" },
  resolution = { "integer", default = 512, min = 8, max = 4096, help = "pixels; the area of a picture is its square" },
  buckets = { "boolean", default = true, help = "group images by aspect ratio instead of cropping to squares" },
  batch = { "integer", default = 1, min = 1, max = 1024, help = "pictures per batch" },
  accumulate = { "integer", default = 1, min = 1, help = "batches per update" },
  epochs = { "number", min = 0, help = "times every image is seen (times its repeats)" },
  steps = { "integer", min = 1, help = "optimizer steps; instead of epochs" },
  seed = { "integer", default = 0, help = "of every random number: order, noise, first values" },
  optimizer = { "table", help = "burin.adamw{...} or burin.sgd{...}; default burin.adamw{}" },
  schedule = { "table", help = "burin.constant{...}, linear, cosine ...; default burin.constant{}" },
  loss = { "table", help = "burin.mse(), burin.min_snr{...} or burin.loss{...}; default burin.mse()" },
  max_grad_norm = { "number", default = 1, min = 0, help = "0 = no clipping" },
  precision = { "string", default = "f32", one_of = { "f32", "f16", "bf16" }, help = "storage of activations and frozen weights" },
  clip_skip = { "integer", min = 1, max = 12, help = "use the text encoder's n-th last layer (SD 1.x, 2.x)" },
  checkpoint = { "boolean", default = false, help = "recompute blocks in the backward pass to save memory" },
  sample = { "table", help = "{ every =, prompts = { ... }, steps =, guidance =, sampler = }" },
  save = { "table", help = "{ every =, format = 'kohya', dtype = 'f32' }" },
  state = { "table", help = "{ every =, keep = }: training state for resume" },
  output = { "string", default = "runs", help = "folder of runs" },
}
local sample_schema = {
  every = { "string|integer", help = "'1 epoch', '100 steps' or a number of steps; absent: before and after training" },
  prompts = { "table", required = true, help = "a list; kohya's --n --s --l --d are understood" },
  steps = { "integer", default = 20, min = 1, help = "denoising steps" },
  guidance = { "number", default = 7.5, help = "classifier-free guidance scale" },
  seed = { "integer", default = 0, help = "of the first picture; the next ones count up" },
  batch = { "integer", default = 1, min = 1, help = "pictures at a time" },
  sampler = { "string", default = "ddim", one_of = { "ddim", "euler" }, help = "how noise becomes a picture" },
  width = { "integer", help = "pixels; default resolution" }, height = { "integer", help = "pixels; default resolution" },
}
local save_schema = {
  every = { "string|integer", help = "as in sample; the result is saved at the end in any case" },
  format = { "string", one_of = { "kohya", "checkpoint" }, help = "kohya for adapters (their default), checkpoint for full training (its default)" },
  dtype = { "string", default = "f32", one_of = { "f32", "f16", "bf16" }, help = "element type in the file" },
}
local state_schema = {
  every = { "string|integer", default = "250 steps", help = "as in sample; also at the end and on Ctrl-C" },
  keep = { "integer", default = 2, min = 1, help = "newest states that stay on disk" },
}

-- "1 epoch", "100 steps" or a number -> steps; nil stays nil.
local function every(value, per_epoch)
  if value == nil then return nil end
  if type(value) == "number" then return math.max(1, value) end
  local n, unit = value:match "^%s*(%d+)%s*(%a+)%s*$"
  if unit == "epoch" or unit == "epochs" then return math.max(1, tonumber(n) * per_epoch) end
  if unit == "step" or unit == "steps" then return math.max(1, tonumber(n)) end
  options.fail("'%s' is not a time such as '1 epoch' or '100 steps'", value)
end

-- Checks a recipe's table; returns a recipe object. Touches neither files nor the device.
function train.recipe(given)
  local o = options.check("burin.train", given, schema)
  if not o.name:match "^[%w._-]+$" then options.fail("name '%s': letters, digits, '.', '_' and '-' only", o.name) end
  if o.epochs and o.steps then options.fail("give either epochs or steps, not both") end
  if not o.epochs and not o.steps then o.epochs = 10 end
  o.concepts = dataset.concepts(o.concepts)
  o.sample = o.sample and options.check("sample", o.sample, sample_schema)
  o.save = options.check("save", o.save or {}, save_schema)
  o.state = options.check("state", o.state or {}, state_schema)
  for _, part in ipairs { o.sample or {}, o.save, o.state } do every(part.every, 1) end
  o.optimizer = o.optimizer or require("burin.optim").adamw {}
  o.schedule = o.schedule or require("burin.schedules").constant {}
  o.loss = o.loss or diffusion.losses.mse()
  local format = o.method.method and o.method.method.whole and "checkpoint" or "kohya"
  if (o.save.format or format) ~= format then
    options.fail("save: %s is written as '%s', not as '%s'", o.method.name or "this method", format, o.save.format)
  end
  o.is_train_recipe = true
  return o
end

local Run = {}
Run.__index = Run

-- ---- preparing ---------------------------------------------------------------------------------------

-- Class images made for a run lie in its folder, under a name of what they depend on: another prompt makes others.
local function prior_folder(run, i, prior)
  local o = run.o
  local key = core.json_encode { prior.prompt, prior.steps, prior.guidance, o.seed, o.resolution, o.precision, o.base.path }
  return ("%s/prior-%d-%s"):format(run.folder, i, core.hash(key):sub(1, 8))
end

local function is_image(name)
  name = name:lower()
  return name:match "%.png$" or name:match "%.jpe?g$" or name:match "%.bmp$"
end

-- What a prior's folder holds and lacks: { folder =, prior =, concept =, have = count, missing = { { index =, path = } } }.
-- The user's own pictures count, and none of them is ever written over.
local function look_at_prior(run, i, prior)
  local p = { folder = prior.images or prior_folder(run, i, prior), prior = prior, concept = i, have = 0, missing = {} }
  local there, own = {}, 0
  for _, name in ipairs(core.exists(p.folder) and core.list(p.folder) or {}) do
    there[name] = true
    if is_image(name) then
      p.have = p.have + 1
      if not name:match "^class%-%d+%.png$" then own = own + 1 end
    end
  end
  for k = 1, prior.count - own do
    local name = ("class-%05d.png"):format(k)
    if not there[name] then p.missing[#p.missing + 1] = { index = k, path = p.folder .. "/" .. name } end
  end
  return p
end

-- Adds the class images that exist, and stand-ins for those to be made, so that the plan knows the number of steps.
local function add_priors(run)
  local square = run.data:bucket_of(run.o.resolution, run.o.resolution)
  run.missing_prior = {}
  for i, c in ipairs(run.o.concepts) do
    local p = c.prior and look_at_prior(run, i, c.prior)
    if p then
      local extra = { weight = c.prior.weight, concept = i, prior = true }
      if p.have > 0 then run.data:add(p.folder, { prompt = c.prior.prompt, repeats = 1 }, extra) end
      for _ = 1, #p.missing do
        table.insert(run.data.items, { concept = i, prior = true, repeats = 1, bucket = square, weight = c.prior.weight })
      end
      if #p.missing > 0 then table.insert(run.missing_prior, p) end
    end
  end
  run.data:balance_priors()
end

local function report_skipped(run)
  for i = (run.reported or 0) + 1, #run.data.skipped do
    local s = run.data.skipped[i]
    core.log("warn", ("%s left out: %s"):format(s.path, s.reason))
  end
  run.reported = #run.data.skipped
end

local function open_dataset(run)
  local o = run.o
  run.data = dataset.new { batch = o.batch, seed = o.seed, resolution = o.resolution, buckets = o.buckets,
    granularity = run.model:downsample() * 2 }
  for i, c in ipairs(o.concepts) do
    if guard(66, run.data.add, run.data, c.images, { prompt = c.prompt, repeats = c.repeats }, { weight = c.weight, concept = i }) == 0 then
      local first = run.data.skipped[1]
      error({ exit = 65, message = ("concept %d: no usable image in '%s'%s"):format(i, c.images,
        first and (" (" .. first.path .. ": " .. first.reason .. ")") or "") }, 0)
    end
  end
  add_priors(run)
  report_skipped(run)
end

local function count_steps(run)
  local o = run.o
  run.per_epoch = (run.data:steps_per_epoch() + o.accumulate - 1) // o.accumulate
  run.steps = o.steps or math.max(1, math.floor(o.epochs * run.per_epoch + 0.5))
end

local function trace_bucket(run, bucket)
  local o, model = run.o, run.model
  local f = model:downsample()
  local b, h, w = o.batch, bucket.h // f, bucket.w // f
  local name = ("%dx%d"):format(bucket.w, bucket.h)
  local inputs = {
    moments = core.var("batch.moments." .. name, { b, h, w, 8 }, "f32", "input"),
    weight = core.var("batch.weight." .. name, { b }, "f32", "input"),
  }
  if run.trains_text then inputs.ids = core.var("batch.ids." .. name, { b, 77 }, "i32", "input")
  else inputs.context = core.var("batch.context." .. name, model:context_shape(b), "f32", "input") end
  local session = run.trainer:session("train." .. name, function(graph, control)
    local moments = graph:leaf(inputs.moments)
    local mean = moments:slice { axis = 3, begin = 0, stop = 4 }
    local std = moments:slice { axis = 3, begin = 4, stop = 8 }
    local latents = (mean + std * control:randn(mean.shape, { use = 3 })) * model.scaling_factor
    local context = inputs.context and graph:leaf(inputs.context)
    if inputs.ids then context = model:encode_text(graph, graph:leaf(inputs.ids), { clip_skip = o.clip_skip }) end
    local loss = diffusion.objective { latents = latents, tables = run.tables, control = control, loss = o.loss,
      prediction = model.prediction, sample_weight = graph:leaf(inputs.weight),
      predict = function(noisy, t) return model:predict(graph, noisy, t, context) end }
    return loss, o.method:params()
  end)
  return { session = session, inputs = inputs, bucket = bucket }
end

local function trace_encoders(run)
  local model, o = run.model, run.o
  run.encode = {}
  for _, b in ipairs(run.data:buckets()) do
    local g, f = core.graph(), model:downsample()
    local e = { pixels = core.var("encode.pixels", { 1, b.h, b.w, 3 }, "f32", "input"),
      moments = core.var("encode.moments", { 1, b.h // f, b.w // f, 8 }, "f32", "input") }
    local _, mean, logvar = model:encode_image(g, g:leaf(e.pixels))
    g:assign(e.moments, mean:concat((logvar * 0.5):exp(), { axis = 3 }):cast "f32")
    e.session = core.session(g, "encode.image")
    run.encode[b.bucket] = e
  end
  if run.trains_text then return end
  local g = core.graph()
  run.text = { ids = core.var("encode.ids", { 1, 77 }, "i32", "input"),
    context = core.var("encode.context", model:context_shape(1), "f32", "input") }
  local states = model:encode_text(g, g:leaf(run.text.ids), { clip_skip = o.clip_skip })
  g:assign(run.text.context, states:cast "f32")
  run.text.session = core.session(g, "encode.text")
end

local function trace_sampler(run)
  local o = run.o
  if not o.sample and #run.missing_prior == 0 then return end
  local s = o.sample or {}
  for _, line in ipairs(s.prompts or {}) do
    local job = sample.parse_prompt(line)
    if (job.width or s.width or o.resolution) ~= (s.width or o.resolution)
      or (job.height or s.height or o.resolution) ~= (s.height or o.resolution) then
      options.fail("sample prompt '%s': all samples of a run have one size; set width and height in sample = { ... }", line)
    end
  end
  local width, height, r = s.width or o.resolution, s.height or o.resolution, o.resolution
  local function new(w, h) return sample.new(run.model, { width = w, height = h, batch = s.batch or 1, clip_skip = o.clip_skip }) end
  run.sampler = new(width, height)
  if #run.missing_prior > 0 then  -- class images are square, whatever size the samples have
    run.prior_sampler = width == r and height == r and run.sampler or new(r, r)
  end
end

-- Traces and plans a recipe. folder: where the run lives.
function train.prepare(recipe)
  local o = recipe
  local run = setmetatable({ o = o, folder = o.output .. "/" .. o.name }, Run)
  run.model = o.base:open { dtype = o.precision, compute = o.precision, checkpoint = o.checkpoint }
  if run.model.config.unet.added then options.fail("training SDXL is not supported yet") end
  run.model:adapt(o.method)
  run.trains_text = o.method.options.text_encoder
  run.schedule = diffusion.schedule {}
  run.tables = diffusion.tables(run.schedule, o.loss, run.model.prediction)
  open_dataset(run)
  run.trainer = compile.trainer { optimizer = o.optimizer, max_norm = o.max_grad_norm, accumulate = o.accumulate,
    seed = o.seed, loss_scale = o.precision == "f16" and 1024 or nil }
  run.train = {}
  for _, b in ipairs(run.data:buckets()) do run.train[b.bucket] = trace_bucket(run, b.bucket) end
  trace_encoders(run)
  trace_sampler(run)
  count_steps(run)
  return run
end

-- ---- filling -------------------------------------------------------------------------------------------

-- Each class image depends on its number alone, so a killed run makes just those that it still lacks.
local function make_priors(run)
  if #run.missing_prior == 0 then return end
  for _, m in ipairs(run.missing_prior) do
    core.make_dirs(m.folder)
    state.sweep(m.folder)
    local jobs = {}
    for i, one in ipairs(m.missing) do jobs[i] = { prompt = m.prior.prompt, seed = run.o.seed * 100003 + one.index } end
    local bar = progress.new("class images", #jobs)
    run.prior_sampler:run(jobs, { steps = m.prior.steps, guidance = m.prior.guidance }, function(i, image)
      guard(74, core.image_save, m.missing[i].path, image)
      bar:update(i)
    end)
  end
  local items = {}
  for _, item in ipairs(run.data.items) do if not item.prior then items[#items + 1] = item end end
  run.data.items = items
  add_priors(run)
  report_skipped(run)
end

-- The distribution of a picture's latents; nil and the reason when the picture cannot be decoded.
local function latents_of(run, item, key)
  local why
  local moments = cache.get("latents", key, function()
    local ok, image = pcall(core.image_load, item.path)
    if not ok then
      why = tostring(image)
      return nil
    end
    local b, e = item.bucket, run.encode[item.bucket]
    e.pixels:write(core.image_cover(image, b.w, b.h):affine(1 / 127.5, -1, "f32"))
    e.session:run()
    return e.moments:read()
  end)
  return moments, why
end

-- Goes on without pictures whose damage only decoding shows. A resumed run leaves out the same ones.
local function leave_out(run, kept)
  local left = {}
  for _, item in ipairs(kept) do if not item.prior then left[item.concept] = true end end
  report_skipped(run)
  for i, c in ipairs(run.o.concepts) do
    if not left[i] then
      error({ exit = 65, message = ("concept %d: no usable image in '%s'"):format(i, c.images) }, 0)
    end
  end
  run.data.items = kept
  run.data:balance_priors()
  count_steps(run)
end

-- Gives every item its latents and its text; run.data_key becomes a hash of all that the items are.
local function fill_caches(run)
  local model, o, device = run.model, run.o, core.device()
  -- Other devices and types compute other bits: a cache that mixed them would make a run depend on earlier ones.
  local how = table.concat({ o.precision, device.name, device.driver, device.tier }, "|")
  local vae_key = model:content_hash "vae" .. how
  local text_key = not run.trains_text and model:content_hash "text" .. (o.clip_skip or 0) .. how
  local bar, texts, kept, facts = progress.new("caching latents", #run.data.items), {}, {}, {}
  for i, item in ipairs(run.data.items) do
    local b = item.bucket
    local read, content = pcall(core.hash_file, item.path)
    local why = not read and content
    if read then item.moments, why = latents_of(run, item, core.hash(content .. vae_key .. b.w .. "x" .. b.h)) end
    if item.moments then
      kept[#kept + 1] = item
      facts[#facts + 1] = ("%s|%s|%dx%d|%s"):format(content, item.caption, b.w, b.h, item.prior or false)
      if run.trains_text then
        item.ids = model:tokenize(item.caption)
      else
        texts[item.caption] = texts[item.caption] or cache.get("text", core.hash(item.caption .. "\0" .. text_key), function()
          run.text.ids:write(model:tokenize(item.caption))
          run.text.session:run()
          return run.text.context:read()
        end)
        item.context = texts[item.caption]
      end
    else
      table.insert(run.data.skipped, { path = item.path, reason = why })
    end
    bar:update(i)
  end
  run.data_key = core.hash(table.concat(facts, "\n"))
  if #kept < #run.data.items then leave_out(run, kept) end
end

local function write_batch(run, batch)
  local t = run.train[batch.bucket]
  local n = #batch.items
  local function gather(var, field)
    local out = core.tensor(var.shape, var.dtype)
    local each = out.count // n
    for i, item in ipairs(batch.items) do out:copy_into((i - 1) * each + 1, item[field]) end
    var:write(out)
  end
  gather(t.inputs.moments, "moments")
  if t.inputs.ids then gather(t.inputs.ids, "ids") else gather(t.inputs.context, "context") end
  local weights = {}
  for i, item in ipairs(batch.items) do weights[i] = item.weight end
  t.inputs.weight:write(core.tensor({ n }, "f32", weights))
  return t.session
end

-- ---- running ---------------------------------------------------------------------------------------------

function Run:path(text, ...) return self.folder .. "/" .. text:format(...) end

function Run:draw_samples(step)
  local s, jobs = self.o.sample, {}
  for i, line in ipairs(s.prompts) do
    local job = sample.parse_prompt(line)
    job.seed = job.seed or s.seed + i - 1
    jobs[i] = job
  end
  core.make_dirs(self:path "samples")
  local images = {}
  self.sampler:run(jobs, { steps = s.steps, guidance = s.guidance, sampler = s.sampler }, function(i, image)
    images[i] = image
    guard(74, core.image_save, self:path("samples/step-%06d-%02d.png", step, i), image, { "prompt", s.prompts[i] })
  end)
  core.image_save(self:path("samples/step-%06d.png", step), grid.labelled(images, jobs, math.min(#images, 4)))
  return images
end

function Run:save_result(name)
  local o = self.o
  local path = self:path("%s.safetensors", name)
  local metadata = { ss_output_name = name, ss_seed = tostring(o.seed), ss_steps = tostring(self.step),
    ss_sd_model_name = o.base.path:match "[^/]*$", ss_learning_rate = tostring(o.optimizer.lr),
    ss_optimizer = o.optimizer.name, ss_lr_scheduler = o.schedule.name }
  if o.method.method.whole then
    guard(74, self.model.save, self.model, path, { dtype = o.save.dtype, metadata = metadata })
  else
    guard(74, o.method.save, o.method, path, self.model, { dtype = o.save.dtype, metadata = metadata })
  end
  return path
end

-- The state promises the metrics up to its step, so they reach the disk first.
local function save_state(run)
  local device = core.device()
  local info = { step = run.step, seed = run.o.seed, recipe = run.recipe_hash, data = run.data_key, base = run.base_key,
    metrics = run.metrics_bytes, average = run.average and ("%a"):format(run.average), device = device.name .. ", " .. device.driver }
  guard(74, core.sync_file, run:path "metrics.jsonl")
  state.save(run:path "state", run.step, run.trainer:state(), info, run.o.state.keep)
end

-- Cuts the metrics log back to where the state was saved: later lines are written again, byte for byte.
local function resume_metrics(run, bytes)
  local path = run:path "metrics.jsonl"
  local text = core.exists(path) and core.read_file(path, 1 << 30) or ""
  if #text < bytes then error({ exit = 65, message = path .. ": shorter than the saved state says; it was changed" }, 0) end
  guard(74, core.write_file, path, text:sub(1, bytes))
  run.metrics_bytes = bytes
end

-- Bit for bit means: the same recipe, pictures, captions and base.
local function restore(run)
  local info, file, path = state.latest(run:path "state")
  if not info then return false end
  local over = "; start over with 'burin train --force'"
  if info.recipe ~= run.recipe_hash then
    error({ exit = 78, message = run.folder .. ": the recipe has changed since this run began" .. over }, 0)
  end
  if info.data ~= run.data_key then
    error({ exit = 65, message = run.folder .. ": the pictures or captions have changed since this run began" .. over }, 0)
  end
  if info.base ~= run.base_key then
    error({ exit = 65, message = run.o.base.path .. ": the base has changed since this run began" .. over }, 0)
  end
  local device = core.device()
  if info.device ~= device.name .. ", " .. device.driver then
    core.log("warn", ("this run began on %s; what follows will not equal an uninterrupted run bit for bit"):format(info.device))
  end
  state.restore(info, file, path, run.trainer:state())
  file:close()
  run.step, run.average = info.step, tonumber(info.average)
  resume_metrics(run, info.metrics)
  return true
end

local function log_step(run, epoch, loss, norm)
  local line = core.json_encode { step = run.step, epoch = epoch, loss = loss, grad_norm = norm,
    lr = run.lr } .. "\n"
  guard(74, core.append_file, run:path "metrics.jsonl", line)
  run.metrics_bytes = run.metrics_bytes + #line
end

local function one_step(run, batches)
  local o = run.o
  local factor = o.schedule.factor(run.step, run.steps)
  run.lr = o.optimizer.lr * factor
  local total = 0
  for micro = 0, o.accumulate - 1 do
    local session = write_batch(run, batches())
    run.trainer:run(session, run.step * o.accumulate + micro, { [0] = run.lr, o.optimizer.text_encoder_lr * factor })
    local loss, norm = run.trainer:read()
    total, run.norm = total + loss, norm
  end
  run.step = run.step + 1
  return total / o.accumulate
end

-- An iterator over all batches from a given micro-batch on.
local function batches_from(data, first)
  local per_epoch = data:steps_per_epoch()
  local epoch, at = first // per_epoch, first % per_epoch
  local list = data:epoch(epoch)
  return function()
    at = at + 1
    if at > #list then
      epoch, at = epoch + 1, 1
      list = data:epoch(epoch)
    end
    return list[at]
  end
end

local locked = {}

-- Makes this process the only one that touches the run's folder, until it ends. Again is no error.
function train.lock(folder)
  if locked[folder] then return end
  if not core.lock(folder .. "/.lock") then
    error({ exit = 75, message = folder .. ": another process is training this run" }, 0)
  end
  locked[folder] = true
end

-- o: resume (continue from the newest state), recipe_text (its hash guards resume; a copy is kept in the run).
-- Returns { steps =, loss = (average of the last tenth), seconds =, path = of the result }.
function Run:execute(o)
  local r = self.o
  self.recipe_hash = core.hash(o.recipe_text or r.name)
  core.make_dirs(self.folder)
  train.lock(self.folder)
  for _, folder in ipairs { self.folder, self:path "state", self:path "samples" } do state.sweep(folder) end
  if not o.resume then state.clear(self:path "state") end
  local began = core.clock()
  core.commit(true)
  guard(65, self.model.load, self.model)
  self.tables.upload()
  r.method:init(r.seed)
  self.trainer:reset()
  make_priors(self)
  fill_caches(self)
  self.base_key = core.exists(r.base.path) == "file" and core.hash_file(r.base.path) or self.model:content_hash "unet"
  self.step, self.metrics_bytes = 0, 0
  if not (o.resume and restore(self)) then
    guard(74, core.write_file, self:path "metrics.jsonl", "")
    -- Before the state: once there is one, resume takes everything up to its step as done.
    if r.sample then self.before = self:draw_samples(0) end
    save_state(self)
  end
  return self:loop(began)
end

-- The plan took all memory there will ever be; a step that takes more is a bug of ours.
local function check_memory(run)
  local bytes, allocations = core.allocated_memory()
  if run.allocations and allocations ~= run.allocations then
    error(("internal error: step %d allocated device memory (%d allocations before, %d now)"):format(run.step, run.allocations, allocations), 0)
  end
  run.allocated, run.allocations = bytes, allocations
end

function Run:loop(began)
  local r = self.o
  local sample_every = r.sample and every(r.sample.every, self.per_epoch)
  local save_every, state_every = every(r.save.every, self.per_epoch), every(r.state.every, self.per_epoch)
  local batches = batches_from(self.data, self.step * r.accumulate)
  local bar = progress.new("training", self.steps, self.step)
  local start = core.clock()
  core.catch_stop()
  while self.step < self.steps do
    local loss = one_step(self, batches)
    self.average = self.average and self.average + 0.05 * (loss - self.average) or loss
    if self.step == 1 then self.first_step_seconds = core.clock() - began end
    check_memory(self)
    log_step(self, (self.step - 1) // self.per_epoch, loss, self.norm)
    bar:update(self.step, ("loss %.4f"):format(self.average))
    local last = self.step == self.steps
    if sample_every and (self.step % sample_every == 0) and not last then self:draw_samples(self.step) end
    if save_every and self.step % save_every == 0 and not last then
      self:save_result(("%s-%06d"):format(r.name, self.step))
    end
    local stop = core.stop_requested()  -- asked once: who is told that we stopped has a state of this very step
    if self.step % state_every == 0 or last or stop then save_state(self) end
    if stop then
      error({ exit = 130, message = ("stopped after step %d; continue with: burin resume %s"):format(self.step, self.folder) }, 0)
    end
  end
  self.seconds = core.clock() - start
  local path = self:save_result(r.name)
  if r.sample then self.after = self:draw_samples(self.step) end
  return { steps = self.step, loss = self.average, seconds = self.seconds, path = path, first_step = self.first_step_seconds,
    planned_bytes = core.planned_memory().total, allocated_bytes = core.allocated_memory() }
end

return train
