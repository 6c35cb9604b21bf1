-- SPDX-License-Identifier: MIT
-- Draws pictures with the small reference models and writes them, with the noise and tokens that they come from, for
-- pictures.py to draw again with diffusers. From the repository root:
--   burin run --trust tests/oracle/pictures.lua    (FACTS=folder with the reference models, OUT=file)
local core = require "burin.core"
local sample = require "burin.sample.sampler"
local models = require "burin.models.model"

local goldens, out = core.env "FACTS" or "tests/golden", {}
local function put(name, tensor) out[#out + 1] = { name, tensor } end
local function nchw(t) return t:permute { 1, 4, 2, 3 } end

local function draw(name, model, o, job, how)
  o.width, o.height = 96, 64
  local sampler = sample.new(models.open(("%s/%s/model_ldm.safetensors"):format(goldens, model)), o)
  core.commit()
  sampler.model:load()
  how.steps, how.guidance = 6, 5
  sampler:run({ job }, how, function() put(name .. ".picture", nchw(sampler.image:read())) end)
  put(name .. ".noise", nchw(core.tensor(sampler.latent.shape, "f32"):fill_normal(job.seed, 0x5eed)))
  for i in ipairs(sampler.model.tokenizers) do
    local ids = core.tensor({ 2, 77 }, "i32")
    for k, text in ipairs { job.negative, job.prompt } do
      ids:copy_into((k - 1) * 77 + 1, (sampler.model:tokenize(text, i, 75, true)))
    end
    put(("%s.ids.%d"):format(name, i), ids)
  end
  if how.image then put(name .. ".init", how.image:affine(1 / 127.5, -1, "f32"):reshape { 1, 64, 96, 3 }:permute { 1, 4,
    2, 3 }) end
end

local job = { prompt = "a b c, d", negative = "e f", seed = 9 }
local cat = core.image_cover(core.image_load "examples/sks-cat/10_sks cat/1-grass.png", 96, 64)
draw("sd1", "tiny_sd1", { rescale = 0.7, clip_skip = 2 }, job, { sampler = "ddim" })
draw("sd1_image", "tiny_sd1", { image = true }, job, { sampler = "ddim", image = cat, strength = 0.6 })
draw("sdxl", "tiny_sdxl", {}, job, { sampler = "euler", spacing = "leading" })
core.export(core.env "OUT" or "/tmp/burin-pictures.safetensors", "safetensors", out, {})
