-- SPDX-License-Identifier: MIT
-- published.lua - configurations of the published models, for LoRA files whose base is not at hand. Sources: the
-- config.json files of stable-diffusion-v1-5, stable-diffusion-2-1 and stable-diffusion-xl-base-1.0.
local clip_l = { vocab = 49408, width = 768, tokens = 77, layers = 12, heads = 12, mlp = 3072, act = "quick_gelu" }

local function open_clip(width, layers, projection)
  return { vocab = 49408, width = width, tokens = 77, layers = layers, heads = width // 64, projection = projection,
    mlp = 4 * width, act = "gelu" }
end

local function unet(channels, depth, mid_depth, heads, context, added)
  return { in_channels = 4, out_channels = 4, channels = channels, layers = 2, depth = depth, mid_depth = mid_depth,
    heads = heads, context = context, linear_projection = context > 768, groups = 32, added = added, time_ids_width = 256 }
end

local function vae() return { channels = { 128, 256, 512, 512 }, layers = 2, latent_channels = 4, groups = 32 } end

local four = { 320, 640, 1280, 1280 }

-- family -> a new configuration, as sd.new takes it
return {
  sd1 = function()
    return { family = "sd1", vae = vae(), text = { clip_l }, unet = unet(four, { 1, 1, 1, 0 }, 1, { 8, 8, 8, 8 }, 768) }
  end,
  sd2 = function()
    return { family = "sd2", vae = vae(), text = { open_clip(1024, 23) },
      unet = unet(four, { 1, 1, 1, 0 }, 1, { 5, 10, 20, 20 }, 1024) }
  end,
  sdxl = function()
    return { family = "sdxl", vae = vae(), text = { clip_l, open_clip(1280, 32, 1280) },
      unet = unet({ 320, 640, 1280 }, { 0, 2, 10 }, 10, { 5, 10, 20 }, 2048, 2816) }
  end,
}
