-- SPDX-License-Identifier: MIT
-- plan.lua - a recipe, traced and planned without taking device memory.
local budget = require "burin.train.budget"
local captions = require "burin.text.captions"
local compile = require "burin.graph.compile"
local core = require "burin.core"
local losses = require "burin.train.losses"
local noise = require "burin.models.noise"
local material = require "burin.train.material"
local options = require "burin.base.options"
local runs = require "burin.train.loop"
local sample = require "burin.sample.sampler"
local plan = {}

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
    local loss = losses.objective { latents = latents, tables = run.tables, control = control, loss = o.loss,
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
  run.schedule = noise.schedule {}
  run.tables = noise.tables(run.schedule, o.loss, run.model.prediction)
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
function plan.prepare(o)
  if not o.budget then return prepare(o, budget.plain(o)) end
  return budget.choose(o, budget.parse(o.budget), function(settings, known) return prepare(o, settings, known) end)
end

return plan
