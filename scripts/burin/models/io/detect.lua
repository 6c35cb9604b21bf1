-- SPDX-License-Identifier: MIT
-- detect.lua - a model's configuration from the names and shapes of its tensors. What shapes do not
-- show (heads, norm groups, prediction) is the published models' value until settings.lua knows better. No single
-- tensor is needed: a file that lacks one is still known for what it is, so that the tensor can be named (report.lua).
local families = require "burin.models.families"
local detect = {}

-- The first shape of those names that is there, nil without any.
local function any(shape, first, ...)
  if not first then return nil end
  return shape(first) or any(shape, ...)
end

-- How many there are of what has one of these tensors at least.
local function count(shape, prefix, ...)
  local n = 0
  while true do
    local at, found = prefix:format(n), false
    for _, tail in ipairs { ... } do found = found or shape(at .. tail) end
    if not found then return n end
    n = n + 1
  end
end

-- shape(name) -> { dims } or nil. prefix: of the U-Net in a file with single-file ("LDM") names; nil for diffusers'
-- names.
local function unet(shape, prefix)
  local single = prefix ~= nil
  local function get(a, b) return shape(single and prefix .. a or b) end
  local first, last = get("input_blocks.0.0.weight", "conv_in.weight"), get("out.2.weight", "conv_out.weight")
  last = last or get("out.2.bias", "conv_out.bias")
  if not first and not get("time_embed.0.weight", "time_embedding.linear_1.weight") then return nil end
  local c = { channels = {}, depth = {}, layers = 0, groups = 32, time_ids_width = 256 }
  c.out_channels = last and last[1] or first[2]
  c.in_channels = first and first[2] or c.out_channels
  local n, level, transformer = 1, 1, nil
  while true do
    local j = 0
    while true do  -- the residual blocks of a level
      local block, down = ("input_blocks.%d."):format(n), ("down_blocks.%d."):format(level - 1)
      local res = get(block .. "0.in_layers.2.weight", ("%sresnets.%d.conv1.weight"):format(down, j))
        or get(block .. "0.out_layers.3.weight", ("%sresnets.%d.conv2.weight"):format(down, j))
      if not res then break end
      c.channels[level] = res[1]
      if j == 0 then
        local at = single and prefix .. block .. "1." or down .. "attentions.0."
        c.depth[level] = count(shape, at .. "transformer_blocks.%d.", "norm1.weight", "norm2.weight")
        if c.depth[level] > 0 then transformer = at end
      end
      j, n = j + 1, n + 1
    end
    if j == 0 then break end
    c.layers = j
    level, n = level + 1, n + 1  -- past the downsampler
  end
  local middle = single and prefix .. "middle_block.1." or "mid_block.attentions.0."
  c.mid_depth = count(shape, middle .. "transformer_blocks.%d.", "norm1.weight", "norm2.weight")
  transformer = transformer or middle
  c.context = any(shape, middle .. "transformer_blocks.0.attn2.to_k.weight",
    middle .. "transformer_blocks.0.attn2.to_v.weight", transformer .. "transformer_blocks.0.attn2.to_k.weight")[2]
  c.linear_projection = #any(shape, transformer .. "proj_in.weight", transformer .. "proj_out.weight") == 2
  local added = get("label_emb.0.0.weight", "add_embedding.linear_1.weight")
  if not added and get("label_emb.0.0.bias", "add_embedding.linear_1.bias") then
    added = { 0, 2816 }  -- the published width: the true one is in the tensor that is not there
  end
  c.added = added and added[2]
  c.heads = {}
  for i, ch in ipairs(c.channels) do
    c.heads[i] = c.linear_projection and math.max(1, ch // 64) or 8
  end
  if #c.channels == 0 then error "a U-Net without blocks" end
  return c
end

-- prefix: as of a U-Net
local function vae(shape, prefix)
  local c = { channels = {}, layers = 0, groups = 32 }
  local block = (prefix or "") .. (prefix and "encoder.down.%d.block.%d." or "encoder.down_blocks.%d.resnets.%d.")
  local function block_at(level, j)
    local at = block:format(level, j)
    return any(shape, at .. "conv1.weight", at .. "conv2.weight")
  end
  while block_at(#c.channels, 0) do c.channels[#c.channels + 1] = block_at(#c.channels, 0)[1] end
  if #c.channels == 0 then return nil end
  while block_at(0, c.layers) do c.layers = c.layers + 1 end
  local p = prefix or ""
  local latent = any(shape, p .. "post_quant_conv.weight", p .. "post_quant_conv.bias")
  c.latent_channels = latent[1]
  return c
end

local VOCABULARY, TOKENS = 49408, 77  -- of every CLIP that was published, where the tensor that says it is not there

-- rule: of the family's record
local function clip(shape, prefix, rule)
  local p = prefix .. "text_model."
  local token, position = "embeddings.token_embedding.weight", "embeddings.position_embedding.weight"
  if not any(shape, p .. token, p .. position) then p = prefix end  -- merges of 2022
  token, position = shape(p .. token), shape(p .. position)
  if not token and not position then return nil end
  token = token or { VOCABULARY, position[2] }
  local projection = rule.projection ~= false and shape(prefix .. "text_projection.weight")
  return { vocab = token[1], width = token[2],
    tokens = position and position[1] or TOKENS,
    layers = count(shape, p .. "encoder.layers.%d.", "layer_norm1.weight", "layer_norm2.weight"), act = rule.act,
    mlp = any(shape, p .. "encoder.layers.0.mlp.fc1.weight", p .. "encoder.layers.0.mlp.fc1.bias")[1],
    heads = math.max(1, token[2] // 64),
    projection = projection and projection[1] or rule.pooled and token[2] or nil }
end

local function openclip(shape, prefix, rule)
  local token, position = shape(prefix .. "token_embedding.weight"), shape(prefix .. "positional_embedding")
  if not token and not position then return nil end
  token = token or { VOCABULARY, position[2] }
  local unused, projection = rule.unused_layers or 0, shape(prefix .. "text_projection")
  return { vocab = token[1], width = token[2], tokens = position and position[1] or TOKENS,
    layers = count(shape, prefix .. "transformer.resblocks.%d.", "ln_1.weight", "ln_2.weight") - unused, act = rule.act,
    mlp = any(shape, prefix .. "transformer.resblocks.0.mlp.c_fc.weight",
      prefix .. "transformer.resblocks.0.mlp.c_fc.bias")[1],
    heads = math.max(1, token[2] // 64),
    projection = unused == 0 and (projection and projection[2] or rule.pooled and token[2]) or nil }
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

-- The configuration of a component by itself. shape(name) -> { dims } or nil, under a single file's names of the family
-- or, not single, diffusers'. Nil when it is not there.
function detect.part(shape, component, family, single)
  if component == "vae" then return vae(shape, single and family.vae.prefix or nil) end
  for i, rule in ipairs(family.text) do
    if families.text_name(i) == component then
      if single and rule.layout == "openclip" then return openclip(shape, rule.prefix, rule) end
      return clip(shape, single and rule.prefix or "", rule)
    end
  end
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
