-- SPDX-License-Identifier: MIT
-- A subject for Stable Diffusion 1.5 from 5-20 photos, as a LoRA. See what it takes before it takes it:
--   burin plan recipes/lora-sd15.lua
--   burin plan recipes/lora-sd15.lua --budget 3GiB    # docs/memory.md
local burin = require "burin"

return burin.train {
  name     = "sks-dog",
  base     = burin.model "models/v1-5-pruned-emaonly.safetensors",
  concepts = {
    { images = "photos/10_sks dog", prompt = "a photo of sks dog",
      prior  = { prompt = "a photo of a dog", count = 100, weight = 1.0 } },
  },
  method     = burin.lora { rank = 16, alpha = 16, text_encoder = true },
  resolution = 512, batch = 1, epochs = 10, seed = 7,
  optimizer  = burin.adamw { lr = 1e-4 },
  schedule   = burin.cosine { warmup = 0.05 },
  loss       = burin.min_snr { gamma = 5 },
  sample     = { every = "1 epoch", prompts = { "a photo of sks dog on a beach --n blurry --s 20 --l 7 --d 1" } },
  save       = { every = "1 epoch", dtype = "f16" },
}
