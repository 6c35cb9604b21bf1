-- SPDX-License-Identifier: MIT
-- Your own pictures on the tiny model: not art, but the whole path in minutes on a CPU. The model is 64 pixels
-- wide and knows only the drawn world of recipes/tiny/world.lua.
-- Put pictures in a folder, name it below, then:  burin train recipes/lora-tiny.lua
local burin = require "burin"

return burin.train {
  name     = "lora-tiny",
  base     = burin.model "models/tiny-sd.safetensors",
  concepts = {
    { images = "examples/sks-cat", prompt = "a photo of sks cat" },  -- a .txt beside a picture is its caption
  },
  method     = burin.lora { rank = 8, conv_rank = 8, text_encoder = true },
  resolution = 64, batch = 4, steps = 200, seed = 1,
  optimizer  = burin.adamw { lr = 2e-3 },
  schedule   = burin.cosine { warmup = 0.05 },
  sample     = { every = "100 steps", guidance = 3, sampler = "euler_a",
                 prompts = { "a photo of sks cat on snow", "a photo of a cat on snow" } },
}
