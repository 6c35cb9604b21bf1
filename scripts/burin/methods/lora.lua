-- SPDX-License-Identifier: MIT
-- lora.lua - y = W x + (alpha / rank) up(down(x)), Hu et al., "LoRA" (2021), with kohya's targets:
-- every linear layer and 1x1 convolution of the U-Net's transformers, and attention and MLP of the
-- text encoders. With conv_rank also the U-Net's residual blocks and samplers (LoCon): 3x3
-- convolutions with conv_rank, the rest of them with rank.
local method = require "burin.method"

local transformer = { attention = true, mlp = true, projection = true }
local convolutional = { resnet = true, sampler = true }

-- Keys of one layer in a file that exists, by what the programs of its time wrote; nil when it has
-- none.
local spellings = {
  { "%s.lora_down.weight", "%s.lora_up.weight", "%s.alpha" },                            -- kohya
  { "%s.lora_A.weight", "%s.lora_B.weight" },                                            -- PEFT
  { "%s.lora.down.weight", "%s.lora.up.weight" },                       -- diffusers 0.22
  { "%s.lora_linear_layer.down.weight", "%s.lora_linear_layer.up.weight" },
}
local function find(file, map, layer)
  local bases = map:kohya_spellings(layer.component, layer.name)
  for _, base in ipairs(bases) do
    local down = spellings[1][1]:format(base)
    if file:info(down) then
      return down, spellings[1][2]:format(base), spellings[1][3]:format(base)
    end
  end
  local peft = { layer.component .. "." .. layer.name, "base_model.model." .. layer.name }
  for _, base in ipairs(peft) do
    for i = 2, #spellings do
      local down = spellings[i][1]:format(base)
      if file:info(down) then return down, spellings[i][2]:format(base) end
    end
  end
end

-- rank, alpha of a layer; a file's own when the instance was made from one
local function size(o, layer)
  if o.file then
    local down, _, alpha = find(o.file, o.map, layer)
    local rank = o.file:info(down).shape[1]
    local t = alpha and o.file:read(alpha)
    return rank, t and t:get(1) or rank
  end
  if layer.kind == "conv" and layer.kernel > 1 then return o.conv_rank, o.conv_alpha end
  return o.rank, o.alpha
end

local definition = {
  name = "lora", network_module = "networks.lora",
  options = {
    rank = { "integer", default = 8, min = 1, help = "inner width" },
    alpha = { "number", min = 0, help = "the scale is alpha / rank; default rank" },
    conv_rank = { "integer", min = 1, help = "inner width of 3x3 convolutions (LoCon)" },
    conv_alpha = { "number", min = 0, help = "alpha of 3x3 convolutions; default conv_rank" },
  },
  settle = function(o)
    o.alpha = o.alpha or o.rank
    if o.conv_rank then o.conv_alpha = o.conv_alpha or o.conv_rank end
  end,
  targets = function(o, layer)
    if o.file then return find(o.file, o.map, layer) ~= nil end
    if layer.component ~= "unet" then return o.text_encoder and transformer[layer.group] end
    return o.unet and (transformer[layer.group] or (o.conv_rank and convolutional[layer.group]))
  end,
  params = function(o, layer)
    local rank, alpha = size(o, layer)
    return {
      down = layer:param("lora_down", { rank, layer.inputs }, "kaiming", { kernel = true }),
      up = layer:param("lora_up", { layer.outputs, rank }, "zeros"), scale = alpha / rank * (o.strength or 1),
    }
  end,
  forward = function(_, layer, p, x, y)
    return y + layer:apply(p.up, layer:apply(p.down, x) * p.scale)
  end,
  alpha = function(o, layer)
    local _, alpha = size(o, layer)
    return alpha
  end,
  reader = function(file, map, e)
    local down, up = find(file, map, e.layer)
    return down and file:read(e.param == "lora_down" and down or up)
  end,
  network_args = function(o)
    if not o.conv_rank then return {} end
    return { conv_dim = tostring(o.conv_rank), conv_alpha = tostring(o.conv_alpha) }
  end,
}

local construct = method.define(definition)

-- lora { rank = 16, alpha = 16, ... } trains; lora.from_file(core.load(path), model, strength) has
-- the layers, ranks and alphas of a file: adapt the model with it, trace, then instance:load(file,
-- model.map).
return setmetatable({
  definition = definition,
  from_file = function(file, model, strength)
    return construct({}, { file = file, map = model.map, strength = strength })
  end,
}, { __call = function(_, o) return construct(o) end })
