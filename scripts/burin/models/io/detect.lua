-- SPDX-License-Identifier: MIT
-- detect.lua - a model's configuration from the names and shapes of its tensors. What shapes do not
-- show (heads, norm groups, prediction) is the published models' value until settings.lua knows better.
local families = require "burin.models.families"
local detect = {}

local function count(shape, pattern)
  local n = 0
  while shape(pattern:format(n)) do n = n + 1 end
  return n
end

-- shape(name) -> { dims } or nil. prefix: of the U-Net in a file with single-file ("LDM") names; nil for diffusers'
-- names.
local function unet(shape, prefix)
  local single = prefix ~= nil
  local function get(a, b) return shape(single and prefix .. a or b) end
  local first = get("input_blocks.0.0.weight", "conv_in.weight")
  if not first then return nil end
  local c = { in_channels = first[2], channels = {}, depth = {}, layers = 0, groups = 32,
    time_ids_width = 256 }
  c.out_channels = get("out.2.weight", "conv_out.weight")[1]
  local n, level, transformer = 1, 1, nil
  while true do
    local j = 0
    while true do  -- the residual blocks of a level
      local block, down = ("input_blocks.%d."):format(n), ("down_blocks.%d."):format(level - 1)
      local res = get(block .. "0.in_layers.2.weight",
        ("%sresnets.%d.conv1.weight"):format(down, j))
      if not res then break end
      c.channels[level] = res[1]
      if j == 0 then
        local at = single and prefix .. block .. "1." or down .. "attentions.0."
        c.depth[level] = count(shape, at .. "transformer_blocks.%d.norm1.weight")
        if c.depth[level] > 0 then transformer = at end
      end
      j, n = j + 1, n + 1
    end
    if j == 0 then break end
    c.layers = j
    level, n = level + 1, n + 1  -- past the downsampler
  end
  local middle = single and prefix .. "middle_block.1." or "mid_block.attentions.0."
  c.mid_depth = count(shape, middle .. "transformer_blocks.%d.norm1.weight")
  c.context = shape(middle .. "transformer_blocks.0.attn2.to_k.weight")[2]
  c.linear_projection = #shape((transformer or middle) .. "proj_in.weight") == 2
  local added = get("label_emb.0.0.weight", "add_embedding.linear_1.weight")
  c.added = added and added[2]
  c.heads = {}
  for i, ch in ipairs(c.channels) do
    c.heads[i] = c.linear_projection and math.max(1, ch // 64) or 8
  end
  return c
end

local function vae(shape, prefix)
  local c = { channels = {}, layers = 0, groups = 32 }
  local p = prefix or ""
  local conv = prefix and "encoder.down.%d.block.%d.conv1.weight"
    or "encoder.down_blocks.%d.resnets.%d.conv1.weight"
  while true do
    local s = shape(p .. conv:format(#c.channels, 0))
    if not s then break end
    c.channels[#c.channels + 1] = s[1]
  end
  if #c.channels == 0 then return nil end
  while shape(p .. conv:format(0, c.layers)) do c.layers = c.layers + 1 end
  c.latent_channels = shape(p .. "post_quant_conv.weight")[1]
  return c
end

-- rule: of the family's record
local function clip(shape, prefix, rule)
  local p = prefix .. "text_model."
  if not shape(p .. "embeddings.token_embedding.weight") then p = prefix end  -- merges of 2022
  local token = shape(p .. "embeddings.token_embedding.weight")
  if not token then return nil end
  local projection = rule.projection ~= false and shape(prefix .. "text_projection.weight")
  return { vocab = token[1], width = token[2],
    tokens = shape(p .. "embeddings.position_embedding.weight")[1],
    layers = count(shape, p .. "encoder.layers.%d.layer_norm1.weight"), act = rule.act,
    mlp = shape(p .. "encoder.layers.0.mlp.fc1.weight")[1], heads = math.max(1, token[2] // 64),
    projection = projection and projection[1] or nil }
end

local function openclip(shape, prefix, rule)
  local token = shape(prefix .. "token_embedding.weight")
  if not token then return nil end
  local unused, projection = rule.unused_layers or 0, shape(prefix .. "text_projection")
  return { vocab = token[1], width = token[2], tokens = shape(prefix .. "positional_embedding")[1],
    layers = count(shape, prefix .. "transformer.resblocks.%d.ln_1.weight") - unused, act = rule.act,
    mlp = shape(prefix .. "transformer.resblocks.0.mlp.c_fc.weight")[1],
    heads = math.max(1, token[2] // 64),
    projection = unused == 0 and projection and projection[2] or nil }
end

local function finish(c, family)
  c.family, c.scaling_factor = family.name, family.vae.scaling_factor
  c.prediction, c.prediction_known = family.prediction, family.prediction_guess == nil
  c.bos, c.eos = 49406, 49407
  return c
end

-- The family of a single file and its U-Net's configuration.
local function single_family(shape)
  local nets = {}  -- by prefix: most families share one
  local function net(family)
    local prefix = family.unet.prefix
    if nets[prefix] == nil then nets[prefix] = unet(shape, prefix) or false end
    return nets[prefix]
  end
  for _, family in families.each() do
    if family.mark and shape(family.mark) and net(family) then return family, net(family) end
  end
  for _, family in families.each() do
    if net(family) and family.fits and family.fits(net(family)) then return family, net(family) end
  end
end

-- shape(name) -> { dims } or nil. Returns nil when there is no U-Net of any family.
function detect.single(shape)
  local family, net = single_family(shape)
  if not family then return nil end
  local c = { unet = net, vae = vae(shape, family.vae.prefix), text = {} }
  for i, rule in ipairs(family.text) do
    c.text[i] = (rule.layout == "openclip" and openclip or clip)(shape, rule.prefix, rule)
  end
  finish(c, family)
  if shape "v_pred" then c.prediction, c.prediction_known = "v", true end
  if shape "ztsnr" then c.zero_snr = true end  -- an empty tensor, as v_pred is
  return c
end

-- shape(component, name) -> { dims } or nil
function detect.folder(shape)
  local function of(component) return function(name) return shape(component, name) end end
  local c = { unet = unet(of "unet"), vae = vae(of "vae"), text = {} }
  if not c.unet then return nil end
  for _, family in families.each() do
    if family.fits and family.fits(c.unet) then
      for i, rule in ipairs(family.text) do c.text[i] = clip(of(families.text_name(i)), "", rule) end
      return finish(c, family)
    end
  end
end

return detect
