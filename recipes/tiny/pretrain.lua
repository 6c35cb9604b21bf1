-- SPDX-License-Identifier: MIT
-- Trains a small Stable Diffusion 1.x from random weights on the drawn world of world: first the VAE, then the
-- text encoder and the U-Net on its latents. It made models/tiny-sd.safetensors on Mesa 25.0's CPU driver
-- (models/tiny-sd.log).
--   burin run recipes/tiny/pretrain.lua    (stopped, it goes on from its last state; remove runs/pretrain to begin
-- anew) What it writes lies in its run's folder, runs/pretrain: the model, the trained VAE, the states of the U-Net.
-- It is also the example of a loop of one's own: burin.compile gives a step function, the rest is plain Lua.
local burin = require "burin"
local world = require "world"

local SEED, IMAGES = 1, 4800  -- ten pictures of each combination of class, colour and background
local VAE_STEPS, VAE_BATCH, VAE_LR = 2800, 8, 1e-3
local UNET_STEPS, UNET_BATCH, UNET_LR = 7000, 32, 1.5e-3
local LATENT = 16  -- channels: at 64 x 64 pixels the usual four hold too little to show anything new
local size = world.size
local OUT = "tiny-sd.safetensors"

local model = burin.new_model({
  family = "sd1", prediction = "v", scaling_factor = 1, sample_size = size,
  unet = { in_channels = LATENT, out_channels = LATENT, channels = { 64, 64, 96 }, depth = { 1, 1, 0 }, mid_depth = 1,
    layers = 1, groups = 4, heads = { 2, 2, 3 }, context = 32, linear_projection = false, time_ids_width = 256 },
  vae = { channels = { 16, 24, 48, 64 }, layers = 1, groups = 2, latent_channels = LATENT },
  text = { { vocab = 49408, width = 32, tokens = 77, layers = 2, heads = 2, mlp = 128, act = "quick_gelu" } },
}, { role = "param" })

-- The world, drawn once. The VAE sees it with up to three such scraps in each picture: it must carry more than the
-- world has, since what a LoRA is to teach later comes through it too.
local images, scrapped, labels = {}, {}, {}
do
  local bytes, next = {}, burin.rng(SEED, 2)
  local function tensor(pixels) return burin.tensor({ size, size, 3 }, "u8", pixels):affine(1 / 127.5, -1, "f32") end
  for i = 1, IMAGES do
    bytes[i], labels[i] = world.draw(i)
    images[i] = tensor(bytes[i])
  end
  for i = 1, IMAGES do
    local pixels = bytes[i]
    for _ = 1, next(4) - 1 do pixels = world.scrap(pixels, bytes[next(IMAGES)], next) end
    scrapped[i] = tensor(pixels)
  end
end
burin.log("drew %d pictures, such as: %s", IMAGES, world.caption(labels[1]))

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

-- The token table stays at its random values: the layers above it learn to read it. The values are as large as what
-- those layers add to them, for else the words drown in it that matter little to a picture at first: the class.
local function params_of(...)
  local list = {}
  for _, component in ipairs { ... } do
    for _, e in ipairs(component.order) do
      if not e.name:find "token_embedding" then list[#list + 1] = { name = e.name, var = e.var, group = 0 } end
    end
  end
  return list
end

-- ---- the VAE: reconstruction and a light pull of the latents towards a unit normal -----------------------------

local vae = burin.compile {
  name = "vae", seed = SEED, optimizer = burin.adamw { lr = VAE_LR, weight_decay = 0, beta2 = 0.99 },
  schedule = burin.cosine { warmup = 50 }, steps = VAE_STEPS, ema = 0.995,
  inputs = { images = { { VAE_BATCH, size, size, 3 } } },
  loss = function(x, graph, control)
    local _, mean, logvar = model:encode_image(graph, x.images)
    local z = mean + (logvar * 0.5):exp() * control:randn(mean.shape, { use = 1 })
    local difference = model:decode_latents(graph, z) - x.images
    local error_ = (difference:square() + difference:abs() * 0.2):sum_to { 1, 1, 1, 1 } * (1 / x.images:count())
    local kl = (mean:square() + logvar:exp() - logvar - 1):sum_to { 1, 1, 1, 1 } * (0.5 / mean:count())
    return (error_ + kl * 1e-4):reshape {}
  end,
  params = function() return params_of(model.vae) end,
}
model.vae:init(SEED)
-- The posterior starts narrow: with unit noise on small means the decoder would learn from noise for a long while.
local bias = {}
for i = 1, 2 * LATENT do bias[i] = i > LATENT and -6 or 0 end
model.vae.vars["quant_conv.bias"].var:write(burin.tensor({ 2 * LATENT }, "f32", bias))
local trained = burin.read "vae.safetensors"  -- of a run that was stopped after this phase
if trained then model.vae:load(function(name) return trained:read(name) end) end
local bar, next, average = burin.progress("VAE", VAE_STEPS), burin.rng(SEED, 1), nil
for step = 1, trained and 0 or VAE_STEPS do
  local loss = vae { images = gather(scrapped, picks(next, VAE_BATCH), { VAE_BATCH, size, size, 3 }, "f32") }
  average = average and average + 0.02 * (loss - average) or loss
  bar:update(step, ("loss %.5f"):format(average))
  if step % 100 == 0 then burin.log("VAE step %d loss %.5f", step, average) end
end
if not trained then
  vae.trainer:adopt_ema()
  burin.save("vae.safetensors", model.vae:export())
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
  local means = moments[i]:reshape { moments[i].count // (2 * LATENT), 2 * LATENT }:permute { 2, 1 }:rows(1, LATENT)
  squares, count = squares + means:stats().norm ^ 2, count + means.count
end
model:set_scaling_factor(1 / math.sqrt(squares / count))
burin.log("scaling factor %.5f", model.scaling_factor)

-- ---- the text encoder and the U-Net ------------------------------------------------------------------------------
-- The network predicts v (Salimans & Ho 2022): where noise is strong, and what a picture shows is decided, its error is
-- that of the picture.

-- Of ten times that a picture is seen, its caption says all of it four times, leaves out its background once, its
-- colour twice, both twice, and once everything, for classifier-free guidance.
local SAID = { 1, 1, 1, 1, 2, 3, 3, 4, 4, 5 }
local ids = {}
for i, l in ipairs(labels) do
  local captions = { world.caption(l), world.caption { class = l.class, colour = l.colour },
    world.caption { class = l.class, background = l.background }, world.caption { class = l.class }, "" }
  for k, caption in ipairs(captions) do ids[#SAID * i + k] = model:tokenize(caption) end
end
local h = size // model:downsample()
local tables = model.noise:tables(burin.mse())
local unet = burin.compile {
  name = "unet", seed = SEED + 1, optimizer = burin.adamw { lr = UNET_LR, weight_decay = 0.001, beta2 = 0.99 },
  schedule = burin.cosine { warmup = 200 }, steps = UNET_STEPS, ema = 0.999,
  inputs = { moments = { { UNET_BATCH, h, h, 2 * LATENT } }, ids = { { UNET_BATCH, 77 }, "i32" } },
  loss = function(x, graph, control)
    local mean = x.moments:slice { axis = 3, begin = 0, stop = LATENT }
    local std = (x.moments:slice { axis = 3, begin = LATENT, stop = 2 * LATENT } * 0.5):exp()
    local latents = (mean + std * control:randn(mean.shape, { use = 3 })) * model.scaling_factor
    local context = model:encode_text(graph, x.ids)
    return (burin.diffusion.objective { process = model.noise, latents = latents, tables = tables, control = control,
      loss = burin.mse(),
      predict = function(noisy, t) return model:predict(graph, noisy, t, context) end })
  end,
  params = function() return params_of(model.text[1], model.unet) end,
}
model.text[1]:init(SEED)
model.unet:init(SEED)
local words = model.text[1].vars["text_model.embeddings.token_embedding.weight"]
words.var:write(burin.tensor(words.shape, "f32"):fill_normal(SEED, 3, 1))
tables.upload()
local done = unet:resume "state"
bar, average = burin.progress("U-Net", UNET_STEPS, done), nil
for step = done + 1, UNET_STEPS do
  local next = burin.rng(SEED + 1, step)  -- a function of the step, so that a stopped run goes on as it would have
  local batch = picks(next, UNET_BATCH)
  local said = {}
  for i, pick in ipairs(batch) do said[i] = #SAID * pick + SAID[next(#SAID)] end
  local loss, norm = unet { moments = gather(moments, batch, { UNET_BATCH, h, h, 2 * LATENT }, "f32"),
    ids = gather(ids, said, { UNET_BATCH, 77 }, "i32") }
  average = average and average + 0.01 * (loss - average) or loss
  bar:update(step, ("loss %.4f norm %.2f"):format(average, norm))
  if step % 250 == 0 then
    burin.log("U-Net step %d loss %.5f", step, average)
    unet:save "state"
  end
end
unet.trainer:adopt_ema()
model:save(OUT, { dtype = "f16" })
burin.log("wrote %s", OUT)
