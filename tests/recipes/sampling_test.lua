-- SPDX-License-Identifier: MIT
-- Sampling by itself: guidance rescale, weights and long prompts, tiles, the autoencoder's type and its wide attention,
-- SDXL, image to image, prompt lines, the text in a PNG. Samplers are in tests/golden/samplers_test.lua.
-- Runs as `burin run --trust tests/recipes/sampling_test.lua` from the repository root.
local loops = require "burin.graph.loops"
local core = require "burin.core"
local errors = require "burin.base.errors"
local infotext = require "burin.sample.infotext"
local sample = require "burin.sample.sampler"
local encode = require "burin.text.encode"
local lengths = require "burin.text.lengths"
local models = require "burin.models.model"
local tiles = require "burin.sample.tiles"
local vae = require "burin.models.vae"

local T = dofile "tests/check.lua"
local check = T.checkf

local relative = T.relative
local function random(shape, stream, deviation) return core.tensor(shape, "f32"):fill_normal(23, stream,
  deviation or 1) end

-- ---- guidance, against diffusers (tests/oracle/samplers.py) ---------------------------------------------------------

local record = core.load "tests/golden/samplers_more.safetensors"
local function nhwc(name) return record:read("guidance." .. name):cast():permute { 1, 3, 4, 2 } end
local cond, uncond = nhwc "cond", nhwc "uncond"
local guide = loops.session("guide", { cond = { cond.shape }, uncond = { cond.shape }, scale = { { 1 } } }, function(x)
  return { plain = sample.guide(x.uncond, x.cond, x.scale), rescaled = sample.guide(x.uncond, x.cond, x.scale, 0.7) }
end)
core.commit()
local guided = guide { cond = cond, uncond = uncond, scale = core.tensor({ 1 }, "f32", 7.5) }
check(relative(guided.plain, core.mix(-6.5, uncond, 7.5, cond)) < 1e-6, "guidance")
check(relative(guided.rescaled, nhwc "rescaled") < 1e-5, "guidance rescale differs by %g",
  relative(guided.rescaled, nhwc "rescaled"))
check(relative(guided.rescaled, guided.plain) > 0.1, "guidance rescale changes nothing")

-- ---- attention wider than its kernel --------------------------------------------------------------------------------

local shape = { 2, 50, 48 }
local attention = loops.session("wide", { q = { shape }, k = { shape }, v = { shape } }, function(x)
  return { kernel = x.q:attention(x.k, x.v, { heads = 1 }), whole = vae.wide_attention(x.q, x.k, x.v),
    pieces = vae.wide_attention(x.q, x.k, x.v, 16) }
end)
core.commit()
local attended = attention { q = random(shape, 1), k = random(shape, 2), v = random(shape, 3) }
for _, name in ipairs { "whole", "pieces" } do
  check(relative(attended[name], attended.kernel) < 1e-5, "attention in %s differs by %g", name,
    relative(attended[name], attended.kernel))
end

-- ---- tiles ----------------------------------------------------------------------------------------------------------

-- Functions without neighbours come out as if there were no tiles, whatever the sizes.
for _, size in ipairs { { 24, 24, 16 }, { 21, 9, 8 }, { 8, 40, 12 }, { 5, 6, 8 } } do
  local h, w, tile = table.unpack(size)
  local t = tiles.new(h, w, tile)
  local function double(x) return x:upsample { height = 2 * x.shape[2], width = 2 * x.shape[3] } * 3 end
  local run = loops.session("tiles", { x = { { 1, h, w, 2 } }, big = { { 1, 2 * h, 2 * w, 2 } } }, function(x, g)
    return { whole = double(x.x), tiled = t:map(g, x.x, 1, 2, double),
      smaller = t:map(g, x.big, 2, 1, function(y) return y:upsample_grad { height = y.shape[2] // 2,
        width = y.shape[3] // 2 } end),
      small = x.big:upsample_grad { height = h, width = w } }
  end)
  core.commit()
  t:upload()
  local out = run { x = random({ 1, h, w, 2 }, 4), big = random({ 1, 2 * h, 2 * w, 2 }, 5) }
  check(relative(out.tiled, out.whole) < 1e-6, "%dx%d in tiles of %d: %g apart", h, w, tile,
    relative(out.tiled, out.whole))
  check(relative(out.smaller, out.small) < 1e-6, "%dx%d to tiles of %d: %g apart", h, w, tile,
    relative(out.smaller, out.small))
end

-- A picture that repeats with the tiles has the same statistics in each of them and as a whole: then the autoencoder
-- agrees within 5 % everywhere (its attention still sees less). TILE 16 of SIDE 24 latents begin at 0 and 8, the
-- period.
local SIDE, TILE, TOLERANCE = 24, 16, 0.05
local model = models.open "models/tiny-sd.safetensors"
local one = core.image_cover(core.image_load "examples/sks-cat/10_sks cat/1-grass.png", 64, 64)
local pixels = core.tensor({ 1, SIDE * 8, SIDE * 8, 3 }, "u8")
for y = 0, SIDE * 8 - 1 do
  for k = 0, SIDE // 8 - 1 do pixels:copy_into((y * SIDE * 8 + k * 64) * 3 + 1, one:rows(y % 64 + 1)) end
end
local t = tiles.new(SIDE, SIDE, TILE)
local code = loops.session("vae", { image = { pixels.shape },
  latents = { { 1, SIDE, SIDE, model:latent_channels() } } }, function(x, g)
  return { latents = model:encode_latents(g, x.image), latents_tiled = model:encode_latents(g, x.image, t),
    image = model:decode_latents(g, x.latents), image_tiled = model:decode_latents(g, x.latents, t) }
end)
core.commit()
model:load()
t:upload()
local image = pixels:affine(1 / 127.5, -1, "f32")
local latents = code { image = image, latents = core.tensor({ 1, SIDE, SIDE, model:latent_channels() }, "f32") }.latents
local coded = code { image = image, latents = latents }
for _, name in ipairs { "latents", "image" } do
  local apart = relative(coded[name .. "_tiled"], coded[name])
  check(apart < TOLERANCE and apart > 0, "%s in tiles: %g apart", name, apart)
end
check(coded.image:stats().std > 0.2, "the autoencoder's picture has a deviation of %g", coded.image:stats().std)

-- The published autoencoder at 1024 x 1024, planned: tiles of 256 pixels take less than 1 GiB; at once it takes more,
-- or has tensors that this device cannot bind.
local big = models.new({ family = "sd1", unet = model.config.unet, text = {},
  vae = { channels = { 128, 256, 512, 512 }, layers = 2, latent_channels = 4, groups = 32 } })
local function decoding(tile)
  local g, x, y = core.graph(), core.var("x", { 1, 128, 128, 4 }, "f32", "input"),
    core.var("y", { 1, 1024, 1024, 3 }, "f32", "input")
  local ok, bytes = pcall(function()
    g:assign(y, big:decode_latents(g, g:leaf(x), tile and tiles.new(128, 128, tile)))
    local session <close> = core.session(g, "decode")
    return session:info().arena
  end)
  if ok then return bytes end
  check(tostring(bytes):find "can bind at once", "%s", bytes)
  return math.huge
end
local planned = decoding(32)
check(planned < 1 << 30, "1024 x 1024 in tiles of 256: %.0f MiB", planned / 2 ^ 20)
check(decoding() > 1 << 30, "1024 x 1024 at once takes less than 1 GiB: nobody needs tiles")
print(("decoding 1024 x 1024 in tiles of 256: %.1f MiB"):format(planned / 2 ^ 20))

-- ---- the autoencoder's type -----------------------------------------------------------------------------------------

for _, path in ipairs { "models/tiny-sd.safetensors", "tests/golden/tiny_sd2/model_ldm.safetensors",
  "tests/golden/tiny_sdxl/model_ldm.safetensors" } do
  for _, case in ipairs { { "f16", "f32" }, { "bf16", "bf16" }, { "f32", "f32" } } do
    local m = models.open(path, { dtype = case[1], compute = case[1] })
    check(m.vae.compute == case[2] and m.unet.compute == case[1], "%s in %s: the autoencoder computes in %s", path,
      case[1], m.vae.compute)
  end
end
-- 1e6 is more than f16 holds: with such a bias in its first layer, f16 would make infinities of everything.
local half = models.open("models/tiny-sd.safetensors", { dtype = "f16", compute = "f16" })
local decode = loops.session("overflow", { latents = { { 1, 8, 8, half:latent_channels() } } }, function(x, g)
  return { image = half:decode_latents(g, x.latents * 1e6) }
end)
core.commit()
half:load()
check(decode { latents = random({ 1, 8, 8, half:latent_channels() }, 6) }.image:stats().finite,
  "large activations overflow in the autoencoder")

-- ---- prompts --------------------------------------------------------------------------------------------------------

local function states(m, tokens, texts, clip_skip)
  local front = encode.new(m, { tokens = tokens, weighted = true, clip_skip = clip_skip })
  local vars, items = front:declare("prompt.%s", #texts), {}
  front:trace_encoder()
  core.commit()
  m:load()
  for i, text in ipairs(texts) do
    items[i] = { caption = text, width = 64, height = 96, bucket = { w = 64, h = 96 } }
    front:fill(items[i])
  end
  front:write(vars, items)
  return vars.context:read(), vars.pooled and vars.pooled:read(), vars.sizes and vars.sizes:read()
end
local plain = states(model, 75, { "a red cat", "a (red:1.0) cat", "a (red:1.5) cat", "a [red] cat", "a ((red)) cat",
  "a \\(red\\) cat", "a ( red ) cat" })
local width = plain.shape[3]
local function row(batch, k) return batch:rows(k):reshape { batch.shape[2], width } end
local first = row(plain, 1)
check(relative(row(plain, 2), first) == 0, "a weight of 1 changes something")
for k, weight in pairs { [3] = 1.5, [4] = 1 / 1.1, [5] = 1.21, [7] = 1.1 } do
  local r = row(plain, k)
  for i = 1, 77 do
    local by = i == 3 and weight or 1  -- begin, a, red
    check(relative(r:rows(i), core.mix(by, first:rows(i))) < 1e-6, "token %d at weight %g", i, weight)
  end
end
check(relative(row(plain, 6), first) > 1e-3, "literal brackets are not read")

-- Longer prompts: the pieces of 75 encoded by themselves, joined.
local long = ("word "):rep(70) .. ("cat "):rep(70)
local both = states(model, 150, { long })
local pieces = states(model, 75, { ("word "):rep(70) .. ("cat "):rep(5), ("cat "):rep(65) })
check(both.shape[2] == 152, "150 tokens give %d states", both.shape[2])
local joined = core.tensor({ 152, width }, "f32")
joined:copy_into(1, row(pieces, 1):rows(1, 76))
joined:copy_into(76 * width + 1, row(pieces, 2):rows(2, 77))
check(relative(both, joined) < 1e-6, "a long prompt differs by %g", relative(both, joined))
check(relative(states(model, 75, { "a red cat" }, 2), first) > 1e-2, "clip_skip changes nothing")
check(lengths.of(model, ("cat "):rep(75), true) == 75 and lengths.of(model, ("cat "):rep(76), true) == 76,
  "75 and 76 tokens")
check(lengths.of(model, ("(cat:1.2) "):rep(75), true) == 75, "brackets count as tokens")
check(lengths.of(model, "(cat:1.2)") == 7, "brackets of plain texts are no tokens")

-- SDXL: both encoders' states, the pooled text of the end token, the size.
local xl = models.open "tests/golden/tiny_sdxl/model_ldm.safetensors"
local context, pooled, sizes = states(xl, 75, { "a cat", "a (cat:2) dog" })
check(context.shape[3] == 40 and pooled.shape[2] == 24, "SDXL's conditioning: %d, %d", context.shape[3],
  pooled.shape[2])
check(relative(pooled:rows(1), pooled:rows(2)) > 1e-3, "SDXL's pooled text does not depend on the text")
check(table.concat(sizes:rows(2):cast "i32":table(), " ") == "96.0 64.0 0.0 0.0 96.0 64.0", "SDXL's sizes: %s",
  table.concat(sizes:rows(2):table(), " "))

-- ---- pictures -------------------------------------------------------------------------------------------------------

local function draw(m, o, jobs, how)
  local sampler = sample.new(m, o)
  core.commit()
  m:load()
  local list = {}
  sampler:run(jobs, how, function(i, picture, text) list[i] = { picture = picture:cast "f32", text = text } end)
  return list
end
-- (words of one letter: this model knows 1,024 tokens)
local jobs = { { prompt = "a b", seed = 1 }, { prompt = "c (d:2) e", seed = 1 },
  { prompt = "a b", seed = 1, steps = 2, sampler = "heun" } }
local xl_pictures = draw(xl, { width = 64, height = 64, batch = 2, rescale = 0.7 }, jobs,
  { steps = 3, sampler = "dpmpp_2m_sde" })
check(relative(xl_pictures[1].picture, xl_pictures[2].picture) > 1e-3, "SDXL: two prompts, one picture")
check(xl_pictures[3].text:find("Steps: 2, Sampler: Heun", 1, true) and xl_pictures[3].text:find("CFG rescale: 0.7", 1,
  true), "SDXL: a picture's text is %s", xl_pictures[3].text)

-- A v-prediction model on a schedule without signal at its end.
local v = draw(models.open "tests/golden/tiny_sd2/model_ldm.safetensors", { width = 64, height = 64, zero_snr = true },
  { { prompt = "a" } }, { steps = 2 })
check(v[1].picture:stats().std > 0 and v[1].text:find("Noise Schedule: Zero Terminal SNR", 1, true),
  "zero terminal SNR: %s", v[1].text)

-- What a file says of its schedule.
local detect, settings = require "burin.models.io.detect", require "burin.models.io.settings"
local v_file = core.load "tests/golden/tiny_sd2/model_ldm.safetensors"
for _, marked in ipairs { true, false } do
  local config = detect.single(function(name)
    local info = v_file:info(name)
    return info and info.shape or name == "ztsnr" and marked and {} or nil
  end)
  check((config.zero_snr or false) == marked, "a file %s ztsnr has zero terminal SNR: %s",
    marked and "with" or "without", tostring(config.zero_snr))
  settings.folder(config, function(name) return name:match "^scheduler" and { rescale_betas_zero_snr = not marked }
    or nil end, "model")
  check((config.zero_snr or false) == not marked, "scheduler_config.json's rescale_betas_zero_snr is not read")
end

-- Image to image stays the nearer to its picture the less of it may change; with tiles, too.
local tiny, start, apart = models.open "models/tiny-sd.safetensors", one, {}
for i, strength in ipairs { 0.1, 0.5, 1 } do
  local list = draw(tiny, { width = 64, height = 64, image = true, vae_tile = i == 1 and 48 or nil },
    { { prompt = "a photo of a blue dog on sand", seed = 4 } },
    { steps = 10, guidance = 3, sampler = "euler", image = start, strength = strength })
  apart[i] = relative(list[1].picture, start:cast "f32")
  check(list[1].text:find("Denoising strength: " .. strength, 1, true), "image to image: %s", list[1].text)
end
check(apart[1] < apart[2] and apart[2] < apart[3], "image to image: %.3f, %.3f, %.3f apart", table.unpack(apart))

-- ---- prompt lines ---------------------------------------------------------------------------------------------------

local function line(text)
  local job, words = sample.parse_prompt(text), {}
  for key, value in pairs(job) do words[#words + 1] = key .. "=" .. tostring(value) end
  table.sort(words)
  return table.concat(words, "|")
end
for text, want in pairs {
  ["a cat"] = "prompt=a cat", ["  a well-lit cat -- really  "] = "prompt=a well-lit cat -- really",
  ["a cat --n low-quality, blurry --s 20 --l 7.5 --d 3"] =
    "guidance=7.5|negative=low-quality, blurry|prompt=a cat|seed=3|steps=20",
  ["a cat --w 771 --h 20 --D -1 --SS k_euler_a"] = "height=64|prompt=a cat|sampler=euler_a|seed=-1|width=768",
  ["a cat --s 5000 --g 3.5"] = "embedded=3.5|prompt=a cat|steps=1000", ["a cat --n "] = "negative=|prompt=a cat",
} do check(line(text) == want, "'%s' is read as %s", text, line(text)) end
for text, why in pairs { ["a --s many"] = "whole number", ["a --s 2.5"] = "whole number", ["a --l x"] = "a number",
  ["a --zz 3"] = "unknown option %-%-zz",
  ["a --ss x"] = "no sampler 'x'" } do
  local ok, e = pcall(sample.parse_prompt, text)
  check(not ok and errors.code(e) == 78 and e.message:find(why), "'%s': %s", text, ok and "is read" or e.message)
end

-- ---- the text in a PNG ----------------------------------------------------------------------------------------------

local text = infotext.write({ prompt = "a cat", negative = "bad, blurry", seed = 7, steps = 20, guidance = 6.5,
  sampler = "dpmpp_2m", sigmas = "karras" },
  { width = 64, height = 96, clip_skip = 2 }, { model = "some, model", hash = "0123456789",
    loras = { { name = "dog", scale = 0.8, hash = "abcdef012345" } } })
check(text == 'a cat <lora:dog:0.8>\nNegative prompt: bad, blurry\nSteps: 20, Sampler: DPM++ 2M, '
  .. 'Schedule type: Karras, CFG scale: 6.5, Seed: 7, Size: 64x96, Model hash: 0123456789, Model: "some, model", '
  .. 'Clip skip: 2, Lora hashes: "dog: abcdef012345", Version: burin ' .. core.version, "%s", text)
local path = os.tmpname()
for _, said in ipairs { text, "ein schöner Fuchs, 猫", "" } do
  core.image_save(path, one, { "parameters", said, "other", "x" })
  local list, w, h = infotext.read_png(core.read_file(path))
  check(#list == 2 and list[1][1] == "parameters" and list[1][2] == said and w == 64 and h == 64, "a PNG gives back %s",
    list[1] and list[1][2])
end
-- Damaged files: cut anywhere, bytes changed anywhere; what is read is a list, whatever it holds.
local bytes, next = core.read_file(path), require("burin.base.rng").new(1)
for k = 1, 3000 do
  local damaged = k <= #bytes and k <= 400 and bytes:sub(1, k) or bytes
  for _ = 1, k > 400 and next(4) or 0 do
    local at = next(math.min(#damaged, 200))
    damaged = damaged:sub(1, at - 1) .. string.char(next(256) - 1) .. damaged:sub(at + 1)
  end
  local ok, list = pcall(infotext.read_png, damaged)
  if not ok or not (list == nil or type(list) == "table") then check(false, "a damaged PNG: %s", list) break end
end
os.remove(path)

T.finish()
