-- SPDX-License-Identifier: MIT
-- A subject for SDXL from 5-20 photos, as a LoRA of the U-Net. Both text encoders and the VAE run once per picture and
-- leave the device before training, which is why there are no samples here: those need them. What it takes:
--   burin plan recipes/lora-sdxl.lua                  # 7.5 GiB hold it
--   burin plan recipes/lora-sdxl.lua --budget 5GiB    # the same with the base in 8 bits
local burin = require "burin"

return burin.train {
  name       = "sks-dog-xl",
  base       = burin.model "models/sd_xl_base_1.0.safetensors",
  concepts   = {
    { images = "photos/10_sks dog", prompt = "a photo of sks dog" },
  },
  method     = burin.lora { rank = 16, alpha = 16, text_encoder = false },
  resolution = 1024, batch = 1, epochs = 10, seed = 7,
  budget     = "7.5 GiB",
  optimizer  = burin.adamw { lr = 1e-4 },
  schedule   = burin.cosine { warmup = 0.05 },
  save       = { every = "1 epoch", dtype = "f16" },
}
