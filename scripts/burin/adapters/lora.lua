-- SPDX-License-Identifier: MIT
-- lora.lua - y = W x + (alpha / rank) up(down(x)), Hu et al., "LoRA" (2021), with kohya's targets:
-- every linear layer and 1x1 convolution of the U-Net's transformers, and attention and MLP of the
-- text encoders. With conv_rank also the U-Net's residual blocks and samplers (LoCon): 3x3
-- convolutions with conv_rank, the rest of them with rank.
local method = require "burin.adapters.method"

local transformer = { attention = true, mlp = true, projection = true }
local convolutional = { resnet = true, sampler = true }

-- rank, alpha of a layer
local function size(o, layer)
  if layer.kind == "conv" and layer.kernel > 1 then return o.conv_rank, o.conv_alpha end
  return o.rank, o.alpha
end

local definition = {
  name = "lora", kind = "lora", network_module = "networks.lora",
  options = {
    rank = { "integer", default = 8, min = 1, help = "inner width" },
    alpha = { "number", above = 0, help = "the scale is alpha / rank; default rank" },
    conv_rank = { "integer", min = 1, help = "inner width of 3x3 convolutions (LoCon)" },
    conv_alpha = { "number", above = 0, help = "alpha of 3x3 convolutions; default conv_rank" },
  },
  settle = function(o)
    o.alpha = o.alpha or o.rank
    if o.conv_rank then o.conv_alpha = o.conv_alpha or o.conv_rank end
  end,
  targets = function(o, layer)
    if layer.component ~= "unet" then return o.text_encoder and transformer[layer.group] end
    return o.unet and (transformer[layer.group] or (o.conv_rank and convolutional[layer.group]))
  end,
  params = function(o, layer)
    local rank, alpha = size(o, layer)
    return {
      down = layer:param("lora_down", { rank, layer.inputs }, "kaiming", { kernel = true }),
      up = layer:param("lora_up", { layer.outputs, rank }, "zeros"), scale = alpha / rank,
    }
  end,
  forward = function(_, layer, p, x, y)
    return y + layer:apply(p.up, layer:apply(p.down, x) * p.scale)
  end,
  alpha = function(o, layer)
    local _, alpha = size(o, layer)
    return alpha
  end,
  network_args = function(o)
    if not o.conv_rank then return {} end
    return { conv_dim = tostring(o.conv_rank), conv_alpha = tostring(o.conv_alpha) }
  end,
}

return method.define(definition)
