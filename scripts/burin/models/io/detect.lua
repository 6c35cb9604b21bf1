-- SPDX-License-Identifier: MIT
-- detect.lua - a model's configuration from the names and shapes of its tensors. What shapes do not
-- show (heads, norm groups, prediction) is the published models' value until settings.lua knows better.
local detect = {}

local function count(shape, pattern)
  local n = 0
  while shape(pattern:format(n)) do n = n + 1 end
  return n
end

-- shape(name) -> { dims } or nil. single: the file has single-file ("LDM") names.
local function unet(shape, single)
  local function get(a, b) return shape(single and "model.diffusion_model." .. a or b) end
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
        local at = single and "model.diffusion_model." .. block .. "1." or down .. "attentions.0."
        c.depth[level] = count(shape, at .. "transformer_blocks.%d.norm1.weight")
        if c.depth[level] > 0 then transformer = at end
      end
      j, n = j + 1, n + 1
    end
    if j == 0 then break end
    c.layers = j
    level, n = level + 1, n + 1  -- past the downsampler
  end
  local middle = single and "model.diffusion_model.middle_block.1." or "mid_block.attentions.0."
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

local function vae(shape, single)
  local c = { channels = {}, layers = 0, groups = 32 }
  local p = single and "first_stage_model." or ""
  local conv = single and "encoder.down.%d.block.%d.conv1.weight"
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

local function clip(shape, prefix)
  local p = prefix .. "text_model."
  if not shape(p .. "embeddings.token_embedding.weight") then p = prefix end  -- old SD 1.x merges
  local token = shape(p .. "embeddings.token_embedding.weight")
  if not token then return nil end
  local projection = shape(prefix .. "text_projection.weight")
  return { vocab = token[1], width = token[2],
    tokens = shape(p .. "embeddings.position_embedding.weight")[1],
    layers = count(shape, p .. "encoder.layers.%d.layer_norm1.weight"), act = "quick_gelu",
    mlp = shape(p .. "encoder.layers.0.mlp.fc1.weight")[1], heads = math.max(1, token[2] // 64),
    projection = projection and projection[1] }
end

local function openclip(shape, prefix, unused)
  local token = shape(prefix .. "token_embedding.weight")
  if not token then return nil end
  local projection = shape(prefix .. "text_projection")
  return { vocab = token[1], width = token[2], tokens = shape(prefix .. "positional_embedding")[1],
    layers = count(shape, prefix .. "transformer.resblocks.%d.ln_1.weight") - unused, act = "gelu",
    mlp = shape(prefix .. "transformer.resblocks.0.mlp.c_fc.weight")[1],
    heads = math.max(1, token[2] // 64),
    projection = unused == 0 and projection and projection[2] or nil }
end

local function finish(c)
  c.scaling_factor = c.family == "sdxl" and 0.13025 or 0.18215
  c.prediction, c.prediction_known = c.family == "sd2" and "v" or "epsilon", c.family ~= "sd2"
  c.bos, c.eos = 49406, 49407
  return c
end

function detect.single(shape)
  local c = { unet = unet(shape, true), vae = vae(shape, true), text = {} }
  if not c.unet then return nil end
  if shape "cond_stage_model.model.token_embedding.weight" then
    c.family = "sd2"
    c.text[1] = openclip(shape, "cond_stage_model.model.", 1)
  elseif shape "conditioner.embedders.1.model.token_embedding.weight" or c.unet.added then
    c.family = "sdxl"
    c.text[1] = clip(shape, "conditioner.embedders.0.transformer.")
    c.text[2] = openclip(shape, "conditioner.embedders.1.model.", 0)
  else
    c.family = c.unet.linear_projection and "sd2" or "sd1"
    c.text[1] = clip(shape, "cond_stage_model.transformer.")
  end
  finish(c)
  if shape "v_pred" then c.prediction, c.prediction_known = "v", true end
  if shape "ztsnr" then c.zero_snr = true end  -- an empty tensor, as v_pred is
  return c
end

-- shape(component, name) -> { dims } or nil
function detect.folder(shape)
  local function of(component) return function(name) return shape(component, name) end end
  local c = { unet = unet(of "unet"), vae = vae(of "vae"), text = {} }
  if not c.unet then return nil end
  c.family = c.unet.added and "sdxl" or c.unet.linear_projection and "sd2" or "sd1"
  c.text[1] = clip(of "text_encoder", "")
  c.text[2] = c.family == "sdxl" and clip(of "text_encoder_2", "") or nil
  if c.text[1] and c.family == "sd2" then c.text[1].act = "gelu" end
  if c.text[2] then c.text[2].act = "gelu" end
  if c.family == "sdxl" and c.text[1] then c.text[1].projection = nil end
  return finish(c)
end

return detect
