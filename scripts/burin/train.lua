-- SPDX-License-Identifier: MIT
-- train.lua - what burin.train{ ... } describes: checked (recipe), then traced and planned (prepare) without taking
-- device memory, so `burin plan` is the same code. material.lua finds what is learnt from, run.lua trains.
local budget = require "burin.budget"
local captions = require "burin.captions"
local compile = require "burin.compile"
local core = require "burin.core"
local dataset = require "burin.dataset"
local diffusion = require "burin.diffusion"
local material = require "burin.material"
local options = require "burin.options"
local runs = require "burin.run"
local sample = require "burin.sample"
local samplers = require "burin.samplers"
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
  precision = { "string", one_of = { "f32", "f16", "bf16" }, help = "storage of activations and frozen weights; f32, or what the budget asks for" },
  base_precision = { "string", one_of = { "f32", "f16", "bf16", "int8" }, help = "storage of frozen weights, where it is to differ; int8: the U-Net's, with a scale per output" },
  clip_skip = { "integer", min = 1, max = 12, help = "use the text encoder's n-th last layer (SD 1.x, 2.x)" },
  checkpoint = { "boolean", help = "recompute blocks in the backward pass to save memory; false, or what the budget asks for" },
  budget = { "string", help = "device memory to stay within, as '8 GiB': chooses precision, checkpoint and base_precision where they are not set" },
  prediction = { "string", one_of = { "epsilon", "v" }, help = "what the model predicts, where its files do not say" },
  sample = { "table", help = "{ every =, prompts = { ... }, steps =, guidance =, sampler = }" },
  save = { "table", help = "{ every =, format =, dtype = 'f32', metadata =, sidecar = }" },
  state = { "table", help = "{ every =, keep = }: training state for resume" },
  output = { "string", default = "runs", help = "folder of runs" },
}
local sample_schema = {
  every = { "string|integer", help = "'1 epoch', '100 steps' or a number of steps; absent: before and after training" },
  prompts = { "table", required = true, help = "a list; (word:1.2) weights and kohya's --n --s --l --d --ss are understood" },
  steps = { "integer", default = 20, min = 1, help = "denoising steps" },
  guidance = { "number", default = 7.5, help = "classifier-free guidance scale" },
  seed = { "integer", default = 0, help = "of the first picture; the next ones count up" },
  batch = { "integer", default = 1, min = 1, help = "pictures at a time" },
  sampler = { "string", default = "ddim", one_of = samplers.names, help = "how noise becomes a picture" },
  width = { "integer", help = "pixels; default resolution" }, height = { "integer", help = "pixels; default resolution" },
}
local save_schema = {
  every = { "string|integer", help = "as in sample; the result is saved at the end in any case" },
  format = { "string", one_of = { "kohya", "peft", "checkpoint", "diffusers" }, help = "adapters: kohya (default), diffusers, peft; full training: checkpoint (default), diffusers" },
  dtype = { "string", default = "f32", one_of = { "f32", "f16", "bf16" }, help = "element type in the file" },
  metadata = { "string", default = "full", one_of = { "full", "minimal", "none" }, help = "what a LoRA file says: all, what programs need, nothing" },
  sidecar = { "boolean", default = false, help = "also write A1111's NAME.json beside a LoRA" },
  date = { "boolean", default = false, help = "put dates into the metadata; two runs then differ in them" },
}
local state_schema = {
  every = { "string|integer", default = "250 steps", help = "as in sample; also at the end and on Ctrl-C" },
  keep = { "integer", default = 2, min = 1, help = "newest states that stay on disk" },
}

-- Checks a recipe's table; returns a recipe object. Touches neither files nor the device.
function train.recipe(given)
  local o = options.check("burin.train", given, schema)
  if not o.name:match "^[%w._-]+$" then options.fail("name '%s': letters, digits, '.', '_' and '-' only", o.name) end
  if o.epochs and o.steps then options.fail("give either epochs or steps, not both") end
  if not o.epochs and not o.steps then o.epochs = 10 end
  if o.budget then budget.parse(o.budget) end
  o.concepts = dataset.concepts(o.concepts)
  o.sample = o.sample and options.check("sample", o.sample, sample_schema)
  o.save = options.check("save", o.save or {}, save_schema)
  o.state = options.check("state", o.state or {}, state_schema)
  for _, part in ipairs { o.sample or {}, o.save, o.state } do options.every(part.every, 1) end
  o.optimizer = o.optimizer or require("burin.optim").adamw {}
  o.schedule = o.schedule or require("burin.schedules").constant {}
  o.loss = o.loss or diffusion.losses.mse()
  local formats = o.method.method and o.method.method.whole and "checkpoint or diffusers" or "kohya, diffusers or peft"
  if o.save.format and not formats:find(o.save.format, 1, true) then
    options.fail("save: %s is written as %s, not as '%s'", o.method.name or "this method", formats, o.save.format)
  end
  o.is_train_recipe = true
  return o
end

local function trace_bucket(run, bucket)
  local o, model = run.o, run.model
  local f = model:downsample()
  local b, h, w, z = o.batch, bucket.h // f, bucket.w // f, model:latent_channels()
  local name = ("%dx%d"):format(bucket.w, bucket.h)
  local inputs = {
    moments = core.var("batch.moments." .. name, { b, h, w, 2 * z }, "f32", "input"),
    weight = core.var("batch.weight." .. name, { b }, "f32", "input"),
    text = run.text:declare("batch.%s." .. name, b),
  }
  local session = run.trainer:session("train." .. name, function(graph, control)
    local moments = graph:leaf(inputs.moments)
    local mean = moments:slice { axis = 3, begin = 0, stop = z }
    local std = moments:slice { axis = 3, begin = z, stop = 2 * z }
    local latents = (mean + std * control:randn(mean.shape, { use = 3 })) * model.scaling_factor
    local context, extra = run.text:trace(graph, inputs.text)
    local loss = diffusion.objective { latents = latents, tables = run.tables, control = control, loss = o.loss,
      prediction = model.prediction, sample_weight = graph:leaf(inputs.weight),
      predict = function(noisy, t) return model:predict(graph, noisy, t, context, extra) end }
    return loss, o.method:params()
  end)
  return { session = session, inputs = inputs, bucket = bucket }
end

local function trace_encoders(run)
  local model = run.model
  run.encode = {}
  for _, b in ipairs(run.data:buckets()) do
    local g, f = core.graph(), model:downsample()
    local e = { pixels = core.var("encode.pixels", { 1, b.h, b.w, 3 }, "f32", "input"),
      moments = core.var("encode.moments", { 1, b.h // f, b.w // f, 2 * model:latent_channels() }, "f32", "input") }
    local _, mean, logvar = model:encode_image(g, g:leaf(e.pixels))
    g:assign(e.moments, mean:concat((logvar * 0.5):exp(), { axis = 3 }):cast "f32")
    e.session = core.session(g, "encode.image")
    run.encode[b.bucket] = e
  end
  run.text:trace_encoder()
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

-- settings: precision, checkpoint, base_precision. known: what an earlier attempt has found out about the pictures.
local function prepare(o, settings, known)
  local run, int8 = runs.new(o), settings.base_precision == "int8"
  run.settings = settings
  run.model = o.base:open { dtype = int8 and settings.precision or settings.base_precision, int8 = int8,
    compute = settings.precision, checkpoint = settings.checkpoint, prediction = o.prediction }
  run.model:adapt(o.method)
  run.text = captions.new(run.model, { live = o.method.options.text_encoder, clip_skip = o.clip_skip })
  run.schedule = diffusion.schedule {}
  run.tables = diffusion.tables(run.schedule, o.loss, run.model.prediction)
  if known then
    for k, v in pairs(known) do run[k] = v end
  else
    material.open(run)
  end
  run.trainer = compile.trainer { optimizer = o.optimizer, max_norm = o.max_grad_norm, accumulate = o.accumulate,
    seed = o.seed, loss_scale = settings.precision == "f16" and 1024 or nil }
  run.train = {}
  for _, b in ipairs(run.data:buckets()) do run.train[b.bucket] = trace_bucket(run, b.bucket) end
  trace_encoders(run)
  trace_sampler(run)
  material.count_steps(run)
  return run
end

-- Traces and plans a recipe, with settings that keep it within its budget when it has one.
function train.prepare(o)
  if not o.budget then return prepare(o, budget.plain(o)) end
  return budget.choose(o, budget.parse(o.budget), function(settings, known) return prepare(o, settings, known) end)
end

return train
