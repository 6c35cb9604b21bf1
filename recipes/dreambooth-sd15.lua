-- SPDX-License-Identifier: MIT
-- Dreambooth: every weight of the U-Net of Stable Diffusion 1.5 learns the subject, and generated class images
-- keep the class as it was (Ruiz et al. 2022). `burin plan` says what memory it wants before anything runs: about
-- 16 GiB.
local burin = require "burin"

return burin.train {
  name     = "dreambooth-sks-dog",
  base     = burin.model "models/v1-5-pruned-emaonly.safetensors",
  concepts = {
    { images = "photos/sks dog", prompt = "a photo of sks dog",
      prior  = { prompt = "a photo of a dog", count = 200, weight = 1.0 } },
  },
  method     = burin.full { text_encoder = false },
  resolution = 512, batch = 1, accumulate = 2, steps = 800, seed = 7,
  precision  = "bf16", checkpoint = true,  -- activations in 16 bits, blocks recomputed in the backward pass
  optimizer  = burin.adamw { lr = 2e-6, weight_decay = 0.01 },
  schedule   = burin.constant { warmup = 50 },
  sample     = { every = "200 steps", prompts = { "a photo of sks dog in a bucket", "a photo of a dog" } },
  save       = { dtype = "f16" },
  state      = { every = "200 steps", keep = 1 },
}
