-- SPDX-License-Identifier: MIT
-- Trains a small Stable Diffusion 1.x from random weights on the drawn world of burin.world: first the VAE, then the
-- text encoder and the U-Net on its latents. Run it as below. (The file in models/ is still an early state made by parts of it: docs/status.md.)
--   burin run recipes/pretrain-tiny.lua
-- It is also the example of a loop of one's own: burin.compile gives a step function, the rest is plain Lua.
local burin = require "burin"
local world = require "burin.world"

local SEED, IMAGES = 1, 4096
local VAE_STEPS, VAE_WHOLE, VAE_BATCH, VAE_LR = 1800, 200, 8, 2e-3  -- the last VAE_WHOLE steps see whole pictures
local UNET_STEPS, UNET_BATCH, UNET_LR = 6000, 16, 1.5e-3
local OUT, VAE = "models/tiny-sd.safetensors", "runs/pretrain-tiny/vae.safetensors"

local model = burin.new_model({
  family = "sd1", scaling_factor = 1,
  unet = { in_channels = 4, out_channels = 4, channels = { 48, 64, 64, 48 }, depth = { 1, 1, 1, 0 }, mid_depth = 1,
    layers = 2, groups = 4, heads = { 4, 4, 4, 4 }, context = 32, linear_projection = false, time_ids_width = 256 },
  vae = { channels = { 16, 32, 64, 48 }, layers = 2, groups = 2, latent_channels = 4 },
  text = { { vocab = 49408, width = 32, tokens = 77, layers = 2, heads = 4, mlp = 128, act = "quick_gelu" } },
}, { role = "param" })

-- The world, drawn once.
local images, captions = {}, {}
for i = 1, IMAGES do
  local pixels, caption = world.draw(i)
  images[i] = burin.tensor({ world.size, world.size, 3 }, "u8", pixels):affine(1 / 127.5, -1, "f32")
  captions[i] = caption
end
burin.log("drew %d pictures, such as: %s", IMAGES, captions[1])

local function gather(list, picks, shape, dtype)
  local out = burin.tensor(shape, dtype)
  local each = out.count // #picks
  for i, pick in ipairs(picks) do out:copy_into((i - 1) * each + 1, list[pick]) end
  return out
end

local function picks(next, n)
  local list = {}
  for i = 1, n do list[i] = next(IMAGES) end
  return list
end

-- The token table stays at its random values: the layers above it learn to read it.
local function params_of(...)
  local list = {}
  for _, component in ipairs { ... } do
    for _, e in ipairs(component.order) do
      if not e.name:find "token_embedding" then list[#list + 1] = { name = e.name, var = e.var, group = 0 } end
    end
  end
  return list
end

-- A square of a picture (size, size, 3) at a random place: convolutions learn as well from parts, four times faster.
local function crop(image, size, part, next)
  local x, y = next(size - part + 1) - 1, next(size - part + 1) - 1
  local out, flat = burin.tensor({ part, part, 3 }, "f32"), image:reshape { size * size, 3 }
  for r = 0, part - 1 do
    local first = (y + r) * size + x + 1
    out:copy_into(r * part * 3 + 1, flat:rows(first, first + part - 1))
  end
  return out
end

-- ---- the VAE: reconstruction and a light pull of the latents towards a unit normal -----------------------------

local size, part = world.size, world.size // 2
local vae = burin.compile {
  name = "vae", seed = SEED, optimizer = burin.adamw { lr = VAE_LR, weight_decay = 0, beta2 = 0.99 },
  schedule = burin.cosine { warmup = 50 }, steps = VAE_STEPS, ema = 0.995,
  inputs = { { images = { { VAE_BATCH, part, part, 3 } } }, { images = { { VAE_BATCH, size, size, 3 } } } },
  loss = function(x, graph, control)
    local _, mean, logvar = model:encode_image(graph, x.images)
    local z = mean + (logvar * 0.5):exp() * control:randn(mean.shape, { use = 1 })
    local difference = model:decode_latents(graph, z) - x.images
    local error_ = (difference:square() + difference:abs() * 0.2):sum_to { 1, 1, 1, 1 } * (1 / x.images:count())
    local kl = (mean:square() + logvar:exp() - logvar - 1):sum_to { 1, 1, 1, 1 } * (0.5 / mean:count())
    return (error_ + kl * 2e-4):reshape {}
  end,
  params = function() return params_of(model.vae) end,
}
model.vae:init(SEED)
-- The posterior starts narrow: with unit noise on small means the decoder would learn from noise for a long while.
model.vae.vars["quant_conv.bias"].var:write(burin.tensor({ 8 }, "f32", { 0, 0, 0, 0, -6, -6, -6, -6 }))
local trained = burin.read(VAE)  -- of a run that was stopped after this phase
if trained then model.vae:load(function(name) return trained:read(name) end) end
local bar, next = burin.progress("VAE", VAE_STEPS), burin.rng(SEED, 1)
for step = 1, trained and 0 or VAE_STEPS do
  local list, loss = picks(next, VAE_BATCH)
  if step <= VAE_STEPS - VAE_WHOLE then
    local parts, all = {}, {}
    for i, pick in ipairs(list) do parts[i], all[i] = crop(images[pick], size, part, next), i end
    loss = vae({ images = gather(parts, all, { VAE_BATCH, part, part, 3 }, "f32") }, 1)
  else
    loss = vae({ images = gather(images, list, { VAE_BATCH, size, size, 3 }, "f32") }, 2)
  end
  bar:update(step, ("loss %.5f"):format(loss))
  if step % 100 == 0 then burin.log("VAE step %d loss %.5f", step, loss) end
end
if not trained then
  vae.trainer:adopt_ema()
  burin.save(VAE, model.vae:export())
end

-- ---- latents of all pictures, and the factor that gives them unit deviation -------------------------------------

local encode = burin.session("encode", { images = { { VAE_BATCH, size, size, 3 } } }, function(x, graph)
  local moments = model:encode_image(graph, x.images)
  return { moments = moments }
end)
local moments, squares, count = {}, 0, 0
for first = 1, IMAGES, VAE_BATCH do
  local batch = {}
  for i = 1, VAE_BATCH do batch[i] = first + i - 1 end
  local out = encode { images = gather(images, batch, { VAE_BATCH, size, size, 3 }, "f32") }.moments
  for i = 1, VAE_BATCH do moments[first + i - 1] = out:rows(i) end
end
for i = 1, math.min(256, IMAGES) do
  local means = moments[i]:reshape { moments[i].count // 8, 8 }:permute { 2, 1 }:rows(1, 4)
  squares, count = squares + means:stats().norm ^ 2, count + means.count
end
model:set_scaling_factor(1 / math.sqrt(squares / count))
burin.log("scaling factor %.5f", model.scaling_factor)

-- ---- the text encoder and the U-Net ------------------------------------------------------------------------------

local ids = {}
for i = 1, IMAGES do ids[i] = model:tokenize(captions[i]) end
local blank = model:tokenize ""
local h = size // model:downsample()
local tables = burin.diffusion.tables(burin.diffusion.schedule {}, burin.min_snr { gamma = 5 }, "epsilon")
local unet = burin.compile {
  name = "unet", seed = SEED + 1, optimizer = burin.adamw { lr = UNET_LR, weight_decay = 0.001, beta2 = 0.99 },
  schedule = burin.cosine { warmup = 200 }, steps = UNET_STEPS, ema = 0.999,
  inputs = { moments = { { UNET_BATCH, h, h, 8 } }, ids = { { UNET_BATCH, 77 }, "i32" } },
  loss = function(x, graph, control)
    local mean = x.moments:slice { axis = 3, begin = 0, stop = 4 }
    local std = (x.moments:slice { axis = 3, begin = 4, stop = 8 } * 0.5):exp()
    local latents = (mean + std * control:randn(mean.shape, { use = 3 })) * model.scaling_factor
    local context = model:encode_text(graph, x.ids)
    return (burin.diffusion.objective { latents = latents, tables = tables, control = control,
      loss = burin.min_snr { gamma = 5 }, prediction = "epsilon",
      predict = function(noisy, t) return model:predict(graph, noisy, t, context) end })
  end,
  params = function() return params_of(model.text[1], model.unet) end,
}
model.text[1]:init(SEED)
model.unet:init(SEED)
tables.upload()
bar, next = burin.progress("U-Net", UNET_STEPS), burin.rng(SEED, 2)
local average
for step = 1, UNET_STEPS do
  local batch = picks(next, UNET_BATCH)
  local tokens = gather(ids, batch, { UNET_BATCH, 77 }, "i32")
  for i = 1, UNET_BATCH do
    if next(10) == 1 then tokens:copy_into((i - 1) * 77 + 1, blank) end  -- for classifier-free guidance
  end
  local loss, norm = unet { moments = gather(moments, batch, { UNET_BATCH, h, h, 8 }, "f32"), ids = tokens }
  average = average and average + 0.01 * (loss - average) or loss
  bar:update(step, ("loss %.4f norm %.2f"):format(average, norm))
  if step % 500 == 0 then burin.log("step %d loss %.5f", step, average) end
end
unet.trainer:adopt_ema()
model:save(OUT, { dtype = "f16" })
burin.log("wrote %s", OUT)
