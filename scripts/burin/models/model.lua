-- SPDX-License-Identifier: MIT
-- model.lua - Stable Diffusion models: SD 1.x, SD 2.x, SDXL, from single-file checkpoints and
-- diffusers folders.
--
--   local model = models.open "model.safetensors"
--   model:adapt(lora { rank = 8 })            -- before the first trace
--   local context = model:encode_text(graph, ids)
--   local noise = model:predict(graph, x, t, context)
--   core.commit(); model:load()               -- after a trace declared the variables
local class = require "burin.base.class"
local core = require "burin.core"
local nn = require "burin.graph.nn"
local names = require "burin.models.io.names"
local files = require "burin.models.io.files"
local clip = require "burin.models.clip"
local unet = require "burin.models.unet"
local vae = require "burin.models.vae"
local noise = require "burin.models.noise"
local paths = require "burin.base.paths"

local models = {}
local Model, new_model = class "model"

-- The tokenizer of each text encoder: flavour and padding id (0 where the vocabulary has no padding
-- token).
local tokenizers = {
  sd1 = { { flavour = "hf", pad = "eos" } },
  sd2 = { { flavour = "hf_pad_bang", pad = 0 } },
  sdxl = { { flavour = "hf", pad = "eos" }, { flavour = "hf", pad = 0 } },
}

local sample_sizes = { sd1 = 512, sd2 = 768, sdxl = 1024 }  -- pixels

-- The type that the autoencoder computes in. Its activations leave the range of f16: SDXL's always, the others' for
-- some pictures.
function models.vae_compute(compute) return compute == "f16" and "f32" or compute end

local function text_name(i) return i == 1 and "text_encoder" or "text_encoder_" .. i end

-- What the network predicts: SD 2.x files of either kind look the same, so a guess is said aloud.
local function settle_prediction(config, o, path)
  if o.prediction and config.prediction_known and o.prediction ~= config.prediction then
    core.log("warn", ("%s says that it predicts %s; it is taken for %s as told"):format(path, config.prediction,
      o.prediction))
  elseif not o.prediction and config.prediction_known == false then
    core.log("warn", ("%s does not say what it predicts; taken for '%s' as SD 2.x at 768 pixels does. "
      .. "The 512-pixel base needs prediction = 'epsilon'"):format(path, config.prediction))
  end
  config.prediction = o.prediction or config.prediction
end

-- o: dtype of frozen weights, int8 (8 bits for the frozen matrices and kernels of the U-Net), role ("param" to train them all), compute (type of activations; dtype
-- unless told), checkpoint (recompute blocks in the backward pass), prediction ("epsilon" or "v",
-- when the file is known to differ from its family), patch (function(model) -> { reader(component, reader) -> reader }, asked at
-- each load: what adapters change of the weights)
local function build(config, opened, o, path)
  o = o or {}
  settle_prediction(config, o, path or "the configuration")
  config.unet.checkpoint, config.checkpoint = o.checkpoint, nil
  local self = new_model { family = config.family, config = config, files = opened,
    prediction = config.prediction, scaling_factor = config.scaling_factor,
    norm_groups = config.unet.groups, text = {}, tokenizers = {}, patch = o.patch, schedule = noise.schedule(),
    map = names.map(config.family, config) }
  local function component(name, compute, int8)
    return nn.component { name = name, dtype = o.dtype, role = o.role,
      compute = compute or o.compute or o.dtype, int8 = int8 }
  end
  self.unet = component("unet", nil, o.int8)
  if config.vae then
    config.vae.downsample = 1 << (#config.vae.channels - 1)
    self.vae = component("vae", models.vae_compute(o.compute or o.dtype))
  end
  for i, text in ipairs(config.text) do
    text.checkpoint = o.checkpoint
    self.text[i] = component(text_name(i))
    local rule = tokenizers[config.family][i]
    local pad = config.pad and config.pad[i] or rule.pad
    self.tokenizers[i] = { flavour = rule.flavour, bos = config.bos, eos = config.eos,
      pad = pad == "eos" and config.eos or pad }
  end
  self.vocab = config.text[1] and config.text[1].vocab
  config.sample_size = config.sample_size or sample_sizes[config.family]
  return self
end

function models.open(path, o)
  local config, opened = files.open(path)
  local model = build(config, opened, o, path)
  model.path = path
  return model
end

-- A model without a file, to train from scratch: model:declare(), core.commit(), model:init(seed).
-- config: family, unet, vae, text, as detect.lua makes them; prediction, scaling_factor, bos, eos
-- have defaults.
function models.new(config, o)
  config.prediction = config.prediction or (config.family == "sd2" and "v" or "epsilon")
  config.scaling_factor = config.scaling_factor or (config.family == "sdxl" and 0.13025 or 0.18215)
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

-- Applies a method (burin.method) to the parts that its options name. Group 0: U-Net; 1: text
-- encoders.
function Model:adapt(instance)
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

-- ids (B * chunks, 77), one node per text encoder (a single node serves SD 1.x and 2.x). o:
-- clip_skip (SD 1.x, 2.x), chunks (1), weights (B * chunks, 77) of the tokens, eos (rows of the end
-- tokens, see eos_rows; SDXL's pooled output) -> context (B, N, width), pooled (B, projection) or nil, { what clip.encode returned, per
-- encoder }
function Model:encode_text(graph, ids, o)
  o = o or {}
  local outputs, context, pooled = {}, nil, nil
  for i, component in ipairs(self.text) do
    local config = self.config.text[i]
    local scope = component:trace(graph)
    local out = clip.encode(config, scope, type(ids) == "table" and ids[i] or ids, o.eos)
    local states
    if self.family == "sdxl" then
      states, pooled = out.hidden[config.layers - 1], out.pooled or pooled
    else
      states = out.normed(out.hidden[config.layers + 1 - (o.clip_skip or 1)])
    end
    outputs[i] = out
    if o.weights then
      states = states * o.weights:reshape { states.shape[1], states.shape[2], 1 }:cast(states.dtype)
    end
    context = context and context:concat(states, { axis = 2 }) or states
  end
  return models.join_chunks(context, o.chunks or 1), pooled, outputs
end

-- (B * n, 77, C) -> (B, 75 n + 2, C): first state, the 75 inner ones of every chunk, last state.
function models.join_chunks(states, n)
  if n == 1 then return states end
  local s = states.shape
  local b, width = s[1] // n, s[3]
  local all = states:reshape { b, n, s[2], width }
  local inner = all:slice(2, 1, s[2] - 1):reshape { b, n * (s[2] - 2), width }
  local first = all:slice(1, 0, 1):slice(2, 0, 1):reshape { b, 1, width }
  local last = all:slice(1, n - 1, n):slice(2, s[2] - 1, s[2]):reshape { b, 1, width }
  return first:concat(inner, { axis = 1 }):concat(last, { axis = 1 })
end

-- Positions of the first highest id (the end token) in ids (B * chunks, 77), of the first chunk of
-- each item, as rows of the flattened ids: what encode_text takes as o.eos.
function models.eos_rows(ids, chunks)
  local rows, width, list = ids.shape[1], ids.shape[2], {}
  for r = 0, rows - 1, chunks or 1 do
    local best, at = -1, 0
    for i = 0, width - 1 do
      local id = ids:get(r * width + i + 1)
      if id > best then best, at = id, i end
    end
    list[#list + 1] = r * width + at
  end
  return core.tensor({ #list }, "i32", list)
end

-- x (B, H, W, 4) noisy scaled latents, t (B), context from encode_text. extra (SDXL): pooled and
-- time_ids (B, 6) of original height, width, crop top, left, target height, width; or added, the
-- finished vector.
function Model:predict(graph, x, t, context, extra)
  local scope, c = self.unet:trace(graph), self.config.unet
  local added
  if c.added then
    if not extra then error("SDXL needs pooled text and time ids", 2) end
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

function Model:context_shape(batch)
  return { batch, self.config.text[1].tokens, self.config.unet.context }
end

-- Numbers per latent: 4 in every Stable Diffusion that was published.
function Model:latent_channels() return self.config.vae.latent_channels end

-- Pixels per latent, along each side.
function Model:downsample() return 1 << (#self.config.vae.channels - 1) end

-- text -> ids (n, 77) for text encoder i (1), n = tokens (75) / 75; weighted: (word:1.2) and the like
-- are read, and weights (n, 77) are the second result
function Model:tokenize(text, i, tokens, weighted)
  local t = self.tokenizers[i or 1]
  return core.token_chunks(text, t.flavour, tokens or 75, t.pad, weighted)
end

-- Latents of the VAE are multiplied by it, to have unit deviation.
function Model:set_scaling_factor(f)
  self.scaling_factor, self.config.scaling_factor = f, f
end

-- A hash of the weights that a part ("text", "vae", "unet") computes with: what caches are keyed
-- by.
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
      local reader = self:reader(component.name)
      component:load(merged and merged.reader(component.name, reader) or reader)
    end
  end
end

function Model:init(seed)
  for _, component in ipairs(self:components()) do component:init(seed) end
end

-- Writes a single-file checkpoint into the run's folder; see save.lua. o: dtype ("f16"), metadata
function Model:save(path, o) require "burin.models.io.save"(self, paths.output(path), o) end

return models
