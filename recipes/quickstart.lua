-- SPDX-License-Identifier: MIT
-- What ./quickstart trains: a LoRA that teaches the tiny model one cat from six pictures.
local burin = require "burin"

return burin.train {
  name     = "quickstart",
  base     = burin.model "models/tiny-sd.safetensors",
  concepts = {
    { images = "examples/sks-cat",
      prior  = { prompt = "a photo of a cat", count = 48, weight = 1.0, steps = 20, guidance = 3,
        sampler = "euler_a" } },
  },
  method     = burin.lora { rank = 8, conv_rank = 8, text_encoder = true },
  resolution = 64, batch = 8, steps = 400, seed = 7,
  optimizer  = burin.adamw { lr = 2e-3 },
  schedule   = burin.cosine { warmup = 0.05 },
  sample     = { steps = 20, guidance = 2.5, sampler = "euler_a", seed = 100, batch = 8, prompts = {
    "a photo of sks cat on snow", "a photo of sks cat on grass", "a photo of sks cat on sand",
    "a photo of sks cat on water", "a photo of sks cat on brick", "a photo of sks cat on space",
    "a photo of a cat", "a photo of a cat on grass",
  } },
  state = { every = "100 steps" },
}
