-- SPDX-License-Identifier: MIT
-- vae.lua - the KL autoencoder of all Stable Diffusion models: images (B, H, W, 3) in [-1, 1] to
-- latents an eighth of the size and back. Latents here are unscaled: multiply by the model's
-- scaling factor after encoding.
--
-- config: channels {128, 256, 512, 512}, layers (2), latent_channels (4), groups, checkpoint
local vae = {}

local EPS = 1e-6

local function resnet(c, s, x, out)
  local norm, inputs = { groups = c.groups, eps = EPS }, x.shape[4]
  local h = s:conv(s:group_norm(x, "norm1", norm):silu(), "conv1", out)
  h = s:conv(s:group_norm(h, "norm2", norm):silu(), "conv2", out)
  if inputs ~= out then x = s:conv(x, "conv_shortcut", out, { kernel = 1 }) end
  return x + h
end

-- The attention kernels hold heads of up to 256 columns, the published autoencoders have one of 512.
-- So softmax(q k' / sqrt(width)) v is written out, for some queries (rows) at a time: 16 Mi scores.
function vae.wide_attention(q, k, v, rows)
  local n, width, out = q.shape[2], q.shape[3], nil
  rows = rows or math.max(1, (16 << 20) // (n * q.shape[1]))
  for first = 0, n - 1, rows do
    local scores = q:slice(1, first, math.min(n, first + rows)):matmul(k, { tb = true }) * (1 / math.sqrt(width))
    local part = scores:softmax():matmul(v)
    out = out and out:concat(part, { axis = 1 }) or part
  end
  return out
end

-- One head over all pixels.
local function attention(c, s, x)
  local shape = x.shape
  local width = shape[4]
  local h = s:group_norm(x, "group_norm", { groups = c.groups, eps = EPS })
  h = h:reshape { shape[1], shape[2] * shape[3], width }
  local q, k, v = s:linear(h, "to_q", width), s:linear(h, "to_k", width), s:linear(h, "to_v", width)
  local y = width > 256 and vae.wide_attention(q, k, v) or q:attention(k, v, { heads = 1 })
  return x + s:linear(y, "to_out.0", width):reshape(shape)
end

local function middle(c, s, x)
  s = s:at "mid_block"
  local width = x.shape[4]
  x = s:region(c.checkpoint, resnet, c, s:at("resnets", 0), x, width)
  x = attention(c, s:at("attentions", 0), x)
  return s:region(c.checkpoint, resnet, c, s:at("resnets", 1), x, width)
end

local function output(c, s, x, width)
  local h = s:group_norm(x, "conv_norm_out", { groups = c.groups, eps = EPS })
  return s:conv(h:silu(), "conv_out", width)
end

-- image (B, H, W, 3) -> moments (B, H/8, W/8, 8), mean, logvar
function vae.encode(config, scope, image)
  local c, s = config, scope:at "encoder":in_group "vae"
  local ch, z = c.channels, c.latent_channels
  local h = s:conv(s:cast(image), "conv_in", ch[1])
  for i = 1, #ch do
    local d = s:at("down_blocks", i - 1)
    for j = 0, c.layers - 1 do
      h = s:region(c.checkpoint, resnet, c, d:at("resnets", j), h, ch[i])
    end
    if i < #ch then  -- pads right and bottom only
      h = d:at("downsamplers", 0):conv(h, "conv", ch[i], { stride = 2, pad = { 0, 0, 1, 1 } })
    end
  end
  h = output(c, s, middle(c, s, h), 2 * z)
  local moments = scope:in_group "vae":conv(h, "quant_conv", 2 * z, { kernel = 1 })
  return moments, moments:slice(3, 0, z), moments:slice(3, z, 2 * z):clamp(-30, 20)
end

-- latents (B, h, w, 4) -> image (B, 8 h, 8 w, 3)
function vae.decode(config, scope, latents)
  local c, s = config, scope:at "decoder":in_group "vae"
  local ch, z = c.channels, c.latent_channels
  local h = scope:in_group "vae":conv(s:cast(latents), "post_quant_conv", z, { kernel = 1 })
  h = middle(c, s, s:conv(h, "conv_in", ch[#ch]))
  for i = #ch, 1, -1 do
    local u = s:at("up_blocks", #ch - i)
    for j = 0, c.layers do
      h = s:region(c.checkpoint, resnet, c, u:at("resnets", j), h, ch[i])
    end
    if i > 1 then
      local size = h.shape
      h = h:upsample { height = 2 * size[2], width = 2 * size[3] }
      h = u:at("upsamplers", 0):conv(h, "conv", ch[i])
    end
  end
  return output(c, s, h, 3)
end

return vae
