-- SPDX-License-Identifier: MIT
-- plan.lua - a recipe, traced and planned: everything that its training will run and hold, without taking device
-- memory.
local budget = require "burin.train.budget"
local class = require "burin.base.class"
local compile = require "burin.graph.compile"
local core = require "burin.core"
local data = require "burin.train.data"
local encode = require "burin.text.encode"
local errors = require "burin.base.errors"
local kinds = require "burin.base.kinds"
local lengths = require "burin.text.lengths"
local losses = require "burin.train.losses"
local options = require "burin.base.options"
local priors = require "burin.train.priors"
local residency = require "burin.train.residency"
local sample = require "burin.sample.sampler"
local start = require "burin.train.start"
local plans = {}

local Plan, new_plan = class("plan", {
  "recipe",         -- as train/recipe.lua checked it
  "settings",       -- { precision, checkpoint, base_precision }: the recipe's, or what the budget asks for
  "model", "method", "tables",
  "text",           -- text/encode.lua: of the captions
  "lengths",        -- text/lengths.lua: of all texts, a survey of each kind
  "data",           -- data.lua: what is learnt from
  "missing",        -- class images to be drawn (priors.lua)
  "trainer",
  "batches",        -- bucket -> { session, inputs, bucket }
  "encoders",       -- bucket -> { pixels, moments, session }
  "sampler",        -- for samples, or nil
  "prior_sampler",  -- for class images, or nil
  "phases",         -- residency.lua: what is on the device when
  "start",          -- start.lua: the file that it begins from, or nil
})

-- Batches of an epoch, updates of an epoch, updates in all: they follow from the data.
function Plan:steps_per_epoch()
  return (self.data:steps_per_epoch() + self.recipe.accumulate - 1) // self.recipe.accumulate
end
function Plan:steps()
  return self.recipe.steps or math.max(1, math.floor(self.recipe.epochs * self:steps_per_epoch() + 0.5))
end

-- The sessions of a training: { { name, session } ... }.
function Plan:sessions()
  local list = {}
  local function add(name, session) if session then list[#list + 1] = { name, session } end end
  for _, t in pairs(self.batches) do add("training " .. t.bucket.w .. "x" .. t.bucket.h, t.session) end
  add("update", self.trainer.update_session)
  for _, e in pairs(self.encoders) do add("VAE encode", e.session) end
  add("text encode", self.text.session)
  local function add_sampler(sampler, step, decode)
    if sampler then
      add(step, sampler.step_session)
      add(decode, sampler.decode_session)
    end
  end
  add_sampler(self.sampler, "sampling step", "VAE decode")
  if self.prior_sampler ~= self.sampler then add_sampler(self.prior_sampler, "class images step",
    "class images decode") end
  return list
end

local function trace_bucket(plan, bucket)
  local recipe, model = plan.recipe, plan.model
  local f = model:downsample()
  local b, h, w, z = recipe.batch, bucket.h // f, bucket.w // f, model:latent_channels()
  local name = ("%dx%d"):format(bucket.w, bucket.h)
  local inputs = {
    moments = core.var("batch.moments." .. name, { b, h, w, 2 * z }, "f32", "input"),
    weight = core.var("batch.weight." .. name, { b }, "f32", "input"),
    text = plan.text:declare("batch.%s." .. name, b),
  }
  local session = plan.trainer:session("train." .. name, function(graph, control)
    graph:label "the latents"
    local moments = graph:leaf(inputs.moments)
    local mean = moments:slice { axis = 3, begin = 0, stop = z }
    local std = moments:slice { axis = 3, begin = z, stop = 2 * z }
    local latents = (mean + std * control:randn(mean.shape, { use = 3 })) * model.scaling_factor
    local context, extra = plan.text:trace(graph, inputs.text)
    local loss = losses.objective { process = model.noise, latents = latents, tables = plan.tables, control = control,
      loss = recipe.loss, sample_weight = graph:leaf(inputs.weight),
      predict = function(noisy, t) return model:predict(graph, noisy, t, context, extra) end }
    return loss, plan.method:params()
  end)
  return { session = session, inputs = inputs, bucket = bucket }
end

local function trace_encoder(model, bucket)
  local g, f = core.graph(), model:downsample()
  local e = { pixels = core.var("encode.pixels", { 1, bucket.h, bucket.w, 3 }, "f32", "input"),
    moments = core.var("encode.moments", { 1, bucket.h // f, bucket.w // f, 2 * model:latent_channels() }, "f32",
      "input") }
  local _, mean, logvar = model:encode_image(g, g:leaf(e.pixels))
  g:assign(e.moments, mean:concat((logvar * 0.5):exp(), { axis = 3 }):cast "f32")
  e.session = core.session(g, "encode.image")
  return e
end

-- What the samples show. All samples of a run have one size.
local function sample_jobs(recipe)
  local s, jobs = recipe.sample or {}, {}
  for i, line in ipairs(s.prompts or {}) do
    local job = sample.parse_prompt(line)
    jobs[i] = job
    if (job.width or s.width or recipe.resolution) ~= (s.width or recipe.resolution)
      or (job.height or s.height or recipe.resolution) ~= (s.height or recipe.resolution) then
      options.fail_at(kinds.place(recipe, "sample", "prompts", i),
        "sample prompt '%s': all samples of a run have one size; set width and height in sample = { ... }", line)
    end
  end
  return jobs
end

-- Every caption that will be learnt from, for lengths.survey.
local function caption_texts(plan)
  local list = {}
  for _, item in ipairs(plan.data.items) do
    for _, text in ipairs(data.captions(item)) do list[#list + 1] = { text = text, from = item.path } end
  end
  for _, p in ipairs(plan.missing) do  -- of class images that are yet to be made
    list[#list + 1] = { text = p.prior.prompt, from = ("the class images of concept %d"):format(p.concept) }
  end
  return list
end

-- clip_skip where the family leaves no choice
local function warn_of_clip_skip(plan)
  for _, rule in ipairs(plan.model.family.text) do
    if not rule.fixed then return end
  end
  core.log("warn", ("clip_skip = %d is not used: a base of this kind always takes the same layer"):format(
    plan.recipe.clip_skip))
end

local function trace_text(plan)
  local recipe = plan.recipe
  if recipe.clip_skip then warn_of_clip_skip(plan) end
  local captions = lengths.survey(plan.model, caption_texts(plan), { what = "captions", tokens = recipe.max_tokens,
    weighted = recipe.weighted_captions })
  plan.lengths = { captions }
  plan.text = encode.new(plan.model, { live = plan.method.options.text_encoder, clip_skip = recipe.clip_skip,
    tokens = captions.tokens, weighted = recipe.weighted_captions })
  plan.text:trace_encoder()
end

-- The tokens that the texts of jobs are padded to; nil when there are none.
local function length_of(plan, jobs, what)
  if #jobs == 0 then return nil end
  local survey = lengths.survey(plan.model, sample.texts(jobs, what), { what = what .. "s", weighted = true })
  table.insert(plan.lengths, survey)
  return survey.tokens
end

local function trace_samplers(plan)
  local recipe = plan.recipe
  local s, r = recipe.sample or {}, recipe.resolution
  local width, height = s.width or r, s.height or r
  local function new(w, h, tokens)
    return sample.new(plan.model, { width = w, height = h, batch = s.batch or 1, clip_skip = recipe.clip_skip,
      tokens = tokens })
  end
  local classes = {}
  for i, p in ipairs(plan.missing) do classes[i] = { prompt = p.prior.prompt } end
  local class_tokens = length_of(plan, classes, "class prompt")
  local tokens = length_of(plan, sample_jobs(recipe), "sample prompt") or class_tokens
  if recipe.sample or class_tokens then plan.sampler = new(width, height, tokens) end
  if class_tokens then  -- class images are square and as long as their prompts, whatever the samples are
    local same = width == r and height == r and tokens == class_tokens
    plan.prior_sampler = same and plan.sampler or new(r, r, class_tokens)
  end
end

-- The pictures of a recipe's concepts. They are looked at once, whatever settings are tried afterwards.
local function look_at_pictures(recipe, model)
  local d = data.new { batch = recipe.batch, seed = recipe.seed, resolution = recipe.resolution,
    buckets = recipe.buckets, granularity = model:downsample() * 2 }
  for i, c in ipairs(recipe.concepts) do
    local o = { prompt = c.prompt, lines = c.lines, repeats = c.repeats }
    if errors.guard("input", d.add, d, c.images, o, { weight = c.weight, concept = i }) == 0 then
      local first = d.skipped[1]
      errors.raise("data", "concept %d: no usable image in '%s'%s", i, c.images,
        first and (" (" .. first.path .. ": " .. first.reason .. ")") or "")
    end
  end
  return d
end

-- One attempt. settings: precision, checkpoint, base_precision. pictures: of an earlier attempt. -> plan, pictures
local function prepare(recipe, settings, pictures)
  local int8 = settings.base_precision == "int8"
  local model = recipe.base:open { dtype = int8 and settings.precision or settings.base_precision, int8 = int8,
    compute = settings.precision, checkpoint = settings.checkpoint, prediction = recipe.prediction, whole = true }
  local method = model:adapt(recipe.method)
  pictures = pictures or look_at_pictures(recipe, model)
  local plan = new_plan { recipe = recipe, settings = settings, model = model, method = method, data = pictures:copy(),
    tables = model.noise:tables(recipe.loss),
    trainer = compile.trainer { optimizer = recipe.optimizer, max_norm = recipe.max_grad_norm,
      accumulate = recipe.accumulate, seed = recipe.seed, loss_scale = settings.precision == "f16" and 1024 or nil },
    batches = {}, encoders = {} }
  plan.missing = priors.add(plan.data, recipe, settings)
  plan.data:report()
  trace_text(plan)
  local at = kinds.place(recipe, "method")
  for _, b in ipairs(plan.data:buckets()) do plan.batches[b.bucket] = options.at(at, trace_bucket, plan, b.bucket) end
  for _, b in ipairs(plan.data:buckets()) do plan.encoders[b.bucket] = trace_encoder(model, b.bucket) end
  trace_samplers(plan)
  plan.phases = residency.phases(plan)
  return plan, pictures
end

-- With settings that keep it within its budget when it has one.
local function within_budget(recipe)
  if not recipe.budget then return (prepare(recipe, budget.plain(recipe))) end
  local pictures
  return budget.choose(recipe, budget.parse(recipe.budget), function(settings)
    local plan
    plan, pictures = prepare(recipe, settings, pictures)
    return plan
  end)
end

-- Traces and plans a checked recipe. goes_on: from a state, which has all values, so that no file of them is opened.
function plans.prepare(recipe, goes_on)
  sample_jobs(recipe)  -- what is wrong with them is said before anything is opened
  local plan = within_budget(recipe)
  if not goes_on then plan.start = start.open(plan) end
  return plan
end

return plans
