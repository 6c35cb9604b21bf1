-- SPDX-License-Identifier: MIT
-- model.lua - Stable Diffusion models of every family (families.lua), from single-file checkpoints
-- and diffusers folders.
--
--   local model = models.open "model.safetensors"
--   model:adapt(lora { rank = 8 })            -- before the first trace
--   local context = model:encode_text(graph, ids)
--   local noise = model:predict(graph, x, t, context)
--   core.commit(); model:load()               -- after a trace declared the variables
local class = require "burin.base.class"
local core = require "burin.core"
local errors = require "burin.base.errors"
local families = require "burin.models.families"
local nn = require "burin.graph.nn"
local kinds = require "burin.base.kinds"
local names = require "burin.models.io.names"
local files = require "burin.models.io.files"
local reports = require "burin.models.io.report"
local settings = require "burin.models.io.settings"
local clip = require "burin.models.clip"
local unet = require "burin.models.unet"
local vae = require "burin.models.vae"
local noise = require "burin.models.noise"
local words = require "burin.models.words"

local models = {}
local Model, new_model = class("model", {
  "family",   -- its record (families.lua)
  "config",   -- as io/detect.lua makes it
  "noise",    -- the noise process (noise.lua)
  "files", "path", "parts", "map", "patch",
  "unet", "vae", "text",  -- components; text: a list
  "tokenizers", "scaling_factor",
  "words",    -- of prompts, with vectors of their own (words.lua)
  "report",   -- what its files hold and lack (io/report.lua), made when it is asked for
})

-- The type that the autoencoder computes in. Its activations leave the range of f16: SDXL's always, the others' for
-- some pictures.
function models.vae_compute(compute) return compute == "f16" and "f32" or compute end

-- o: dtype of frozen weights, int8 (8 bits for the frozen matrices and kernels of the U-Net), role ("param" to train
-- them all), compute (type of activations; dtype unless told), checkpoint (recompute blocks in the backward pass),
-- prediction ("epsilon" or "v", when the file is known to differ from its family), patch (function(model) -> {
-- reader(component, reader) -> reader }, asked at each load: what adapters change of the weights)
local function components(self, o)
  local function component(name, compute, int8)
    return nn.component { name = name, dtype = o.dtype, role = o.role,
      compute = compute or o.compute or o.dtype, int8 = int8 }
  end
  self.unet = component("unet", nil, o.int8)
  self.vae = self.config.vae and component("vae", models.vae_compute(o.compute or o.dtype))
  self.text = {}
  for i in ipairs(self.config.text) do self.text[i] = component(families.text_name(i)) end
  return self
end

local function build(config, opened, o, path)
  o = o or {}
  local family = families.get(config.family)
  settings.settle_prediction(config, o.prediction, path or "the configuration")
  config.unet.checkpoint, config.checkpoint = o.checkpoint, nil
  local self = components(new_model { family = family, config = config, files = opened,
    noise = noise.new(family.noise):with { prediction = config.prediction,
      zero_terminal_snr = config.zero_snr or false },
    scaling_factor = config.scaling_factor, tokenizers = {}, patch = o.patch, map = names.map(family, config) }, o)
  if config.vae then config.vae.downsample = 1 << (#config.vae.channels - 1) end
  for i, text in ipairs(config.text) do
    text.checkpoint = o.checkpoint
    local rule = family.text[i]
    local pad = config.pad and config.pad[i] or rule.pad
    self.tokenizers[i] = { flavour = rule.flavour, bos = config.bos, eos = config.eos,
      pad = pad == "eos" and config.eos or pad }
  end
  config.sample_size = config.sample_size or family.sample_size
  return self
end

-- path: of a file or a folder. parts, in o: components from other files (files.open). whole: it is to be trained or
-- sampled, so all that this needs must be there.
function models.open(path, o)
  local config, opened = files.open(path, o and o.parts)
  local model = build(config, opened, o, path)
  model.path, model.parts = path, o and o.parts
  if o and o.whole then reports.check(model:look()) end
  return model
end

-- What its files hold, lack and are (io/report.lua).
function Model:look()
  if not self.report then
    local scope <close> = core.scope()  -- the networks as they would be, for the names of their tensors
    local twin = components(new_model { family = self.family, config = self.config, scaling_factor = 1 }, {})
    twin:declare()
    self.report = reports.of(self, twin)
  end
  return self.report
end

-- A model without a file, to train from scratch: model:declare(), core.commit(), model:init(seed).
-- config: as detect.lua makes it; prediction, scaling_factor, bos, eos have defaults.
function models.new(config, o)
  local family = families.get(config.family)
  if not family then
    errors.raise("recipe", "there is no model family '%s'; there are %s", tostring(config.family),
      table.concat(families.names(), ", "))
  end
  config.prediction = config.prediction or family.prediction
  config.scaling_factor = config.scaling_factor or family.vae.scaling_factor
  config.bos, config.eos = config.bos or 49406, config.eos or 49407
  return build(config, nil, o)
end

-- "unet", "vae", "text_encoder", "text_encoder_2" -> component
function Model:component(name)
  if name == "unet" or name == "vae" then return self[name] end
  return self.text[name == "text_encoder" and 1 or tonumber(name:match "%d$")]
end

function Model:components()
  local list = {}
  for _, text in ipairs(self.text) do list[#list + 1] = text end
  list[#list + 1] = self.unet
  list[#list + 1] = self.vae
  return list
end

-- Applies a method (a description such as burin.lora {}, or an instance of one) to the parts that its options name.
-- Group 0: U-Net; 1: text encoders. Returns the instance.
function Model:adapt(instance)
  if kinds.of(instance) == "method" then instance = instance.instance() end
  if instance.options.unet ~= false then instance:attach(self.unet, 0) end
  if instance.options.text_encoder then
    for _, text in ipairs(self.text) do instance:attach(text, 1) end
  end
  return instance
end

function Model:release(instance)
  for _, component in ipairs(self:components()) do instance:detach(component) end
end

-- ---- the networks -------------------------------------------------------------------------------

-- The states that the U-Net is told, out of what clip.encode returned: those that the family's record says, or the ones
-- asked for where it lets a recipe choose.
local function states_of(out, layers, rule, clip_skip)
  local skip = not rule.fixed and clip_skip or rule.clip_skip
  local states = out.hidden[layers + 1 - skip]
  return rule.final_norm and out.normed(states) or states
end

-- ids (B * chunks, 77), one node per text encoder (a single node serves models of one). o: clip_skip (not where the
-- family fixes it), chunks (1), weights (B * chunks, 77) of the tokens, eos (rows of the end tokens, see eos_rows; for
-- the pooled output) -> context (B, N, width), pooled (B, projection) or nil, { what clip.encode returned, per encoder
-- }
function Model:encode_text(graph, ids, o)
  o = o or {}
  local outputs, context, pooled = {}, nil, nil
  for i, component in ipairs(self.text) do
    local config, rule = self.config.text[i], self.family.text[i]
    local scope = component:trace(graph)
    local out = clip.encode(config, scope, type(ids) == "table" and ids[i] or ids, o.eos)
    local states = states_of(out, config.layers, rule, o.clip_skip)
    if rule.pooled then pooled = out.pooled end
    outputs[i] = out
    if o.weights then
      states = states * o.weights:reshape { states.shape[1], states.shape[2], 1 }:cast(states.dtype)
    end
    context = context and context:concat(states, { axis = 2 }) or states
  end
  return clip.join_chunks(context, o.chunks or 1), pooled, outputs
end

-- x (B, H, W, 4) noisy scaled latents, t (B), context from encode_text. extra, where the family has conditioning:
-- pooled and time_ids (B, n), the sizes that its record lists; or added, the finished vector.
function Model:predict(graph, x, t, context, extra)
  local scope, c = self.unet:trace(graph), self.config.unet
  local added
  if c.added then
    local sizes = self.family.conditioning and self.family.conditioning.sizes or {}
    if not extra or extra.time_ids and extra.time_ids.shape[2] ~= #sizes then
      error(("%s needs pooled text and %d time ids"):format(self.family.label, #sizes), 2)
    end
    added = extra.added or unet.added_vector(c, scope, extra.pooled, extra.time_ids)
  end
  return unet.predict(c, scope, x, t, context, added)
end

-- image (B, H, W, 3) in [-1, 1] -> moments, mean, logvar (clamped) of unscaled latents
function Model:encode_image(graph, image)
  return vae.encode(self.config.vae, self.vae:trace(graph), image)
end

-- scaled latents (B, h, w, 4) -> image in [-1, 1]. tiles (tiles.lua), optional: B is 1 then
function Model:decode_latents(graph, latents, tiles)
  local function decode(x) return vae.decode(self.config.vae, self.vae:trace(graph), x) end
  latents = latents * (1 / self.scaling_factor)
  return tiles and tiles:map(graph, latents, 1, self:downsample(), decode) or decode(latents)
end

-- image (B, H, W, 3) in [-1, 1] -> scaled latents, the most likely ones. tiles as above
function Model:encode_latents(graph, image, tiles)
  local function encode(x) return (select(2, vae.encode(self.config.vae, self.vae:trace(graph), x))) end
  return (tiles and tiles:map(graph, image, self:downsample(), 1, encode) or encode(image)) * self.scaling_factor
end

-- ---- for training and sampling ------------------------------------------------------------------

-- tokens (75) of each text, without marks
function Model:context_shape(batch, tokens)
  return { batch, self.config.text[1].tokens + (tokens or 75) - 75, self.config.unet.context }
end

-- Numbers per latent: 4 in every Stable Diffusion that was published.
function Model:latent_channels() return self.config.vae.latent_channels end

-- Pixels per latent, along each side.
function Model:downsample() return 1 << (#self.config.vae.channels - 1) end

-- text -> ids (n, 77) for text encoder i (1), n = tokens (75) / 75; weighted: (word:1.2) and the like
-- are read, and weights (n, 77) are the second result
function Model:tokenize(text, i, tokens, weighted)
  local t = self.tokenizers[i or 1]
  local plain, own, stand_in = words.replace(self, text)
  local ids, weights = core.token_chunks(plain, t.flavour, tokens or 75, t.pad, weighted)
  words.restore(ids, own, stand_in, t.flavour)
  return ids, weights
end

-- Latents of the VAE are multiplied by it, to have unit deviation.
function Model:set_scaling_factor(f)
  self.scaling_factor, self.config.scaling_factor = f, f
end

-- A hash of the weights that a part ("text", "vae", "unet") computes with: what caches are keyed by.
function Model:content_hash(part)
  local hashes = {}
  for _, component in ipairs(part == "text" and self.text or { self[part] }) do
    local read = self:reader(component.name)
    for i, e in ipairs(component.order) do hashes[#hashes + 1] = e.name .. (read(e.name):hash()) end
  end
  return core.hash(table.concat(hashes))
end

-- ---- weights ------------------------------------------------------------------------------------

-- Traces parts ("text", "unet", "vae"; all of them by default) once, so that their variables exist.
function Model:declare(parts)
  local graph = core.graph()
  local function input(shape, dtype)
    return graph:leaf(core.var("declare", shape, dtype or "f32", "input"))
  end
  local u = self.config.unet
  for _, part in ipairs(parts or { "text", "unet", "vae" }) do
    if part == "text" and self.text[1] then
      self:encode_text(graph, input({ 1, self.config.text[1].tokens }, "i32"))
    elseif part == "unet" then
      local size = 1 << (#u.channels - 1)
      self:predict(graph, input { 1, size, size, u.in_channels }, input { 1 },
        input { 1, 2, u.context }, u.added and { added = input { 1, u.added } })
    elseif part == "vae" and self.vae then
      local c = self.config.vae
      local size = 1 << (#c.channels - 1)
      self:encode_image(graph, input { 1, size, size, 3 })
      self:decode_latents(graph, input { 1, 1, 1, c.latent_channels })
    end
  end
end

-- reader(canonical name) -> tensor in diffusers' layout, out of the file the model was opened from
function Model:reader(component) return files.reader(self.files, self.map, component) end

-- Uploads the weights of every declared component, or of those listed; a model without a file has none, see init.
function Model:load(components)
  if not self.files then return end
  local merged = self.patch and self.patch(self)
  for _, component in ipairs(components or self:components()) do
    if component:is_declared() then
      local from = (self.parts or {})[component.name] or self.path
      local reader = files.finite(self:reader(component.name), from, component.name)
      reader = merged and merged.reader(component.name, reader) or reader
      component:load(words.reader(self, component.name, reader))
    end
  end
end

function Model:init(seed)
  for _, component in ipairs(self:components()) do component:init(seed) end
end

-- Writes a single-file checkpoint into the run's folder; see save.lua. o: dtype ("f16"), metadata
function Model:save(path, o) require "burin.models.io.save"(self, require("burin.base.paths").output(path), o) end

return models
