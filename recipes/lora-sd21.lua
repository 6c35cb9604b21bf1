-- SPDX-License-Identifier: MIT
-- A subject for Stable Diffusion 2.1 (768 pixels, v-prediction) from 5-20 photos, as a LoRA. What it takes:
--   burin plan recipes/lora-sd21.lua
local burin = require "burin"

return burin.train {
  name       = "sks-dog-21",
  base       = burin.model "models/v2-1_768-ema-pruned.safetensors",
  prediction = "v",  -- the file does not say; its 512-pixel sister v2-1_512 predicts "epsilon"
  concepts   = {
    { images = "photos/10_sks dog", prompt = "a photo of sks dog",
      prior  = { prompt = "a photo of a dog", count = 100, weight = 1.0 } },
  },
  method     = burin.lora { rank = 16, alpha = 16, text_encoder = true },
  resolution = 768, batch = 1, epochs = 10, seed = 7,
  budget     = "6 GiB",  -- 16-bit storage and recomputation as far as it takes them
  optimizer  = burin.adamw { lr = 1e-4, text_encoder_lr = 5e-5 },
  schedule   = burin.cosine { warmup = 0.05 },
  loss       = burin.min_snr { gamma = 5 },
  sample     = { every = "1 epoch", prompts = { "a photo of sks dog on a beach --n blurry --s 20 --l 7 --d 1" } },
  save       = { every = "1 epoch", dtype = "f16" },
}
