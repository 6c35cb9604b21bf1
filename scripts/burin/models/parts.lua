-- SPDX-License-Identifier: MIT
-- parts.lua - pieces of published configurations that more than one family's record needs.
local parts = {}

function parts.clip_l()
  return { vocab = 49408, width = 768, tokens = 77, layers = 12, heads = 12, mlp = 3072, act = "quick_gelu" }
end

function parts.open_clip(width, layers, projection)
  return { vocab = 49408, width = width, tokens = 77, layers = layers, heads = width // 64, projection = projection,
    mlp = 4 * width, act = "gelu" }
end

function parts.unet(channels, depth, mid_depth, heads, context, added)
  return { in_channels = 4, out_channels = 4, channels = channels, layers = 2, depth = depth, mid_depth = mid_depth,
    heads = heads, context = context, linear_projection = context > 768, groups = 32, added = added,
    time_ids_width = 256 }
end

function parts.vae() return { channels = { 128, 256, 512, 512 }, layers = 2, latent_channels = 4, groups = 32 } end

return parts
