-- SPDX-License-Identifier: MIT
-- sampler.lua - from prompts to pictures. Small sessions share the model's weights: text encoding, the guided network
-- (run at each step of the sampler), VAE decoding, and VAE encoding for image to image.
local class = require "burin.base.class"
local core = require "burin.core"
local encode = require "burin.text.encode"
local errors = require "burin.base.errors"
local infotext = require "burin.sample.infotext"
local options = require "burin.base.options"
local samplers = require "burin.sample.samplers"
local synonyms = require "burin.base.synonyms"
local tiles = require "burin.sample.tiles"
local sample = {}

local Sampler, new_sampler = class "sampler"

-- uncond + guidance * (cond - uncond), all (B, h, w, c) but guidance. rescale in (0, 1]: that much of the result is
-- brought to the standard deviation of cond, sample by sample (Lin et al. 2023, section 3.4).
function sample.guide(uncond, cond, guidance, rescale)
  local e = uncond + (cond - uncond) * guidance
  if (rescale or 0) == 0 then return e end
  local shape = e.shape
  local function deviation(x)
    local each, n = { shape[1], 1, 1, 1 }, shape[2] * shape[3] * shape[4]
    return (x - x:sum_to(each) * (1 / n)):square():sum_to(each):sqrt()
  end
  return e * (deviation(cond) / deviation(e) * rescale + (1 - rescale))
end

local VAE_MEMORY = 1 << 30  -- bytes of workspace that the autoencoder gets before it works in tiles

-- A session of trace(graph, tiles or nil) over the whole picture, or in tiles of o.vae_tile pixels. Where o does not
-- say, in the largest tiles that fit into VAE_MEMORY and whose tensors the device can bind.
local function vae_session(self, name, trace)
  local why
  for _, pixels in ipairs(self.o.vae_tile and { self.o.vae_tile } or { 0, 512, 256 }) do
    local shape, tile, graph = self.latent.shape, pixels // self.model:downsample(), core.graph()
    local t = tile > 0 and (tile < shape[2] or tile < shape[3]) and tiles.new(shape[2], shape[3], tile) or nil
    local ok, session = pcall(function()
      trace(graph, t)
      return core.session(graph, name)
    end)
    if ok and (self.o.vae_tile or session:info().arena <= VAE_MEMORY) then
      self.tiles[#self.tiles + 1] = t
      return session
    end
    why = ok and "the autoencoder needs more memory than it may take" or session
    if ok then local _ <close> = session end
  end
  error(why, 0)
end

-- model: an opened model whose variables are declared. o: width, height (pixels), batch, tokens (75), clip_skip,
-- rescale (of the guidance), zero_snr (a noise process that ends without signal; default the model's own), vae_tile
-- (pixels; 0 = the whole picture at once; nil = what fits), image (whether run() will get one). Nothing is computed or
-- allocated yet.
function sample.new(model, o)
  local f = model:downsample()
  if o.width % f ~= 0 or o.height % f ~= 0 then
    errors.raise("recipe", ("the image size %dx%d is not a multiple of %d"):format(o.width, o.height, f))
  end
  local process = o.zero_snr and model.noise:with { zero_terminal_snr = true } or model.noise
  o.zero_snr = process.zero_terminal_snr
  local self = new_sampler { model = model, o = o, batch = o.batch or 1, tiles = {}, noise = process }
  local b, h, w, z = self.batch, o.height // f, o.width // f, model:latent_channels()
  self.x = core.var("sample.x", { b, h, w, z }, "f32", "input")
  self.e = core.var("sample.e", { b, h, w, z }, "f32", "input")
  self.step = core.var("sample.step", { 2 }, "f32", "input")
  self.latent = core.var("sample.latent", { 1, h, w, z }, "f32", "input")
  self.image = core.var("sample.image", { 1, o.height, o.width, 3 }, "f32", "input")
  self.text = encode.new(model, { tokens = o.tokens, weighted = true, clip_skip = o.clip_skip })
  self.told = self.text:declare("prompt.%s", 2 * b)
  self.text:trace_encoder()

  local g = core.graph()
  local x, step = g:leaf(self.x), g:leaf(self.step)
  local context, extra = self.text:trace(g, self.told)
  local e = model:predict(g, x:concat(x, { axis = 0 }), step:slice(0, 0, 1):broadcast { 2 * b }, context,
    extra):cast "f32"
  g:assign(self.e, sample.guide(e:slice(0, 0, b), e:slice(0, b, 2 * b), step:slice(0, 1, 2), o.rescale))
  self.step_session = core.session(g, "sample.step")

  self.decode_session = vae_session(self, "sample.decode", function(graph, t)
    graph:assign(self.image, model:decode_latents(graph, graph:leaf(self.latent), t):cast "f32")
  end)
  self.encode_session = o.image and vae_session(self, "sample.encode", function(graph, t)
    graph:assign(self.latent, model:encode_latents(graph, graph:leaf(self.image), t):cast "f32")
  end)
  return self
end

-- Jobs that are drawn together share sampler, steps and guidance: lists of indices, in order.
local function groups(self, jobs, o)
  local list, by = {}, {}
  for i, job in ipairs(jobs) do
    local g = { sampler = job.sampler or o.sampler or "ddim", steps = math.tointeger(job.steps or o.steps or 20),
      guidance = job.guidance or o.guidance or 7.5, first = 1 }
    local key = ("%s/%d/%g"):format(g.sampler, g.steps, g.guidance)
    if not by[key] then
      g.at = samplers.points(self.noise, g.sampler, g.steps, o)
      if o.image then g.first = g.steps + 1 - math.max(1, math.floor(g.steps * math.min(1, o.strength or 0.75))) end
      by[key], list[#list + 1] = g, g
    end
    table.insert(by[key], i)
  end
  return list
end

-- Noise of deviation 1 for a round of jobs, from each job's own seed. use: 0 the start, i what step i adds. A round
-- that has fewer jobs than fit repeats its last one.
local function noise(self, round, use)
  local x, one = core.tensor(self.x.shape, "f32"), self.latent.shape
  for k = 0, self.batch - 1 do
    local seed = (round[k + 1] or round[#round]).seed or 0
    x:copy_into(k * (x.count // self.batch) + 1, core.tensor(one, "f32"):fill_normal(seed, 0x5eed + (use << 32)))
  end
  return x
end

-- Tells the network what to avoid and what to draw.
local function write_texts(self, round)
  local b, o, items, by_text = self.batch, self.o, {}, {}
  local function item(text)
    if not by_text[text] then
      by_text[text] = { caption = text, width = o.width, height = o.height, bucket = { w = o.width, h = o.height } }
      self.text:fill(by_text[text])
    end
    return by_text[text]
  end
  for k = 1, b do
    local job = round[k] or round[#round]
    items[k], items[b + k] = item(job.negative or ""), item(job.prompt)
  end
  self.text:write(self.told, items)
end

-- Stops at latents or a picture that are no numbers: a black picture would hide it. what: of which that is said.
local function check_finite(t, what, job)
  if t:finite() then return t end
  errors.raise("internal", "the %s of '%s' hold a NaN or an infinity, so there is no picture: the weights, or what is "
    .. "computed in f16, are too large", what, job.prompt)
end

-- The latents of a round of jobs.
local function denoise(self, group, round, image, progress)
  local b = self.batch
  write_texts(self, round)
  local start, x = group.at[group.first], noise(self, round, 0)
  if image then
    local latents = core.tensor(x.shape, "f32")
    for k = 0, b - 1 do latents:copy_into(k * image.count + 1, image) end
    x = core.mix(start.alpha, latents, start.noise, x)
  else
    x = core.mix(group.at.start, x)
  end
  return samplers.run(group.sampler, { noise = self.noise, at = group.at, x = x, first = group.first,
    progress = progress, fresh = function(i) return noise(self, round, i) end,
    model = function(now, t)
      self.x:write(now)
      self.step:write(core.tensor({ 2 }, "f32", { t, group.guidance }))
      self.step_session:run()
      return self.e:read()
    end })
end

-- Encodes the prompts of jobs that will be drawn when the text encoders have left the device.
function Sampler:keep_texts(jobs)
  for _, job in ipairs(jobs) do self.text:keep { job.negative or "", job.prompt } end
end

-- Latents of a u8 picture (height, width, 3) of the sampler's size.
local function encode_image(self, image)
  self.image:write(image:affine(1 / 127.5, -1, "f32"))
  self.encode_session:run()
  return self.latent:read()
end

-- jobs: { { prompt =, negative =, seed =, steps =, guidance =, sampler = }, ... }. o: what jobs do not say themselves,
-- and sigmas, spacing (samplers.points), image (u8, to begin with) and strength (0.75: the share of the steps done on
-- it), sources (infotext.lua). Calls done(i, image, text) as each is ready (image: u8 tensor; text: A1111's
-- `parameters`); progress(step, steps), optional, after each denoising step. A picture depends on its own job and
-- its place in a round of `batch`, not on what it is drawn together with.
function Sampler:run(jobs, o, done, progress)
  local b, finished, total = self.batch, 0, 0
  local list = groups(self, jobs, o)
  for _, group in ipairs(list) do total = total + (#group + b - 1) // b * (group.steps + 1 - group.first) end
  for _, t in ipairs(self.tiles) do t:upload() end
  local image = o.image and encode_image(self, o.image)
  for _, group in ipairs(list) do
    for first = 1, #group, b do
      local round = {}
      for i = first, math.min(first + b - 1, #group) do round[#round + 1] = jobs[group[i]] end
      local latents = denoise(self, group, round, image, function()
        finished = finished + 1
        if progress then progress(finished, total) end
      end)
      for i = 1, #round do
        self.latent:write(check_finite(latents:rows(i, i), "latents", round[i]))
        self.decode_session:run()
        local picture = check_finite(self.image:read(), "pixels", round[i]):affine(127.5, 127.5, "u8")
        local job = { prompt = round[i].prompt, negative = round[i].negative, seed = round[i].seed or 0,
          steps = group.steps,
          guidance = group.guidance, sampler = group.sampler, sigmas = o.sigmas,
            strength = o.image and (o.strength or 0.75) }
        done(group[first + i - 1], picture:reshape { self.o.height, self.o.width, 3 },
          infotext.write(job, self.o, o.sources))
      end
    end
  end
end

-- kohya's flags: what they set, and its kind.
local flags = { n = { "negative" }, ss = { "sampler" }, l = { "guidance", "number" }, g = { "embedded", "number" },
  s = { "steps", "integer" }, d = { "seed", "integer" }, w = { "width", "integer" }, h = { "height", "integer" } }

local function read_flag(job, line, text)
  local flag, value = text:match "^(%a+)%s*(.*)$"
  local name, kind = table.unpack(flags[flag and flag:lower()] or {})
  if not name then options.fail("prompt '%s': unknown option --%s", line, flag or text) end
  if kind then
    value = tonumber(value)
    if kind == "integer" then value = value and math.tointeger(value) end
    if not value then options.fail("prompt '%s': --%s needs a %s", line, flag,
      kind == "number" and kind or "whole number") end
  end
  if name == "sampler" then
    value = samplers.list[value] and value or synonyms.value(value, samplers.names) or value
    if not samplers.list[value] then
      options.fail("prompt '%s': there is no sampler '%s', but %s", line, value, table.concat(samplers.names, ", "))
    end
  elseif name == "steps" then value = math.max(1, math.min(1000, value))
  elseif name == "width" or name == "height" then value = math.max(64, value // 8 * 8) end
  job[name] = value
end

-- "a photo of sks dog --n blurry --s 20 --l 7 --d 1 --w 512 --h 512 --ss euler_a": kohya's prompt line, with its
-- limits. --g is the embedded guidance of other models and has no effect on these. Returns { prompt =, negative =,
-- steps =, guidance =, seed =, width =, height =, sampler = }.
function sample.parse_prompt(line)
  local job
  for part in (line .. " --"):gmatch "(.-)%s%-%-%f[%a\0]" do
    part = part:match "^%s*(.-)%s*$"
    if job then read_flag(job, line, part) else job = { prompt = part } end
  end
  return job
end

-- The texts of jobs, for lengths.survey. what: a job in messages, such as "prompt".
function sample.texts(jobs, what)
  local list = {}
  for i, job in ipairs(jobs) do
    list[#list + 1] = { text = job.prompt, from = ("%s %d"):format(what, i) }
    list[#list + 1] = { text = job.negative or "", from = ("the negative of %s %d"):format(what, i) }
  end
  return list
end

return sample
