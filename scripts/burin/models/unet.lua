-- SPDX-License-Identifier: MIT
-- unet.lua - the U-Net of SD 1.x, SD 2.x and SDXL.
--
-- config: in_channels, out_channels, channels {320, 640, ...}, layers (2), depth { transformer
-- blocks per level, 0 for none }, mid_depth, heads { per level }, context, linear_projection,
-- groups, added (width of SDXL's vector or nil), time_ids_width (256), checkpoint
local unet = {}

-- h = conv1(silu(norm(x))) + time; h = conv2(silu(norm(h))); x + h, through a 1x1 convolution when
-- channels change
local function resnet(c, s, x, time, out)
  s = s:in_group "resnet"
  local shape = x.shape
  local norm = { groups = c.groups, eps = 1e-5 }
  local h = s:conv(s:group_norm(x, "norm1", norm):silu(), "conv1", out)
  h = h + s:linear(time, "time_emb_proj", out):reshape { shape[1], 1, 1, out }
  h = s:conv(s:group_norm(h, "norm2", norm):silu(), "conv2", out)
  if shape[4] ~= out then x = s:conv(x, "conv_shortcut", out, { kernel = 1 }) end
  return s:mark(x + h)
end

local function attention(s, x, context, heads)
  s = s:in_group "attention"
  local shape = x.shape
  local q = s:linear(x, "to_q", shape[3], { bias = false })
  local k = s:linear(context, "to_k", shape[3], { bias = false })
  local v = s:linear(context, "to_v", shape[3], { bias = false })
  return s:linear(q:attention(k, v, { heads = heads }), "to_out.0", shape[3])
end

local function feed_forward(s, x)
  s = s:in_group "mlp"
  local shape = x.shape
  return s:linear(s:linear(x, "net.0.proj", 8 * shape[3]):geglu(), "net.2", shape[3])
end

local function block(s, x, context, heads)
  local n = s:layer_norm(x, "norm1")
  x = x + attention(s:at "attn1", n, n, heads)
  x = x + attention(s:at "attn2", s:layer_norm(x, "norm2"), context, heads)
  return s:mark(x + feed_forward(s:at "ff", s:layer_norm(x, "norm3")))
end

-- Projections are 1x1 convolutions in SD 1.x and linear layers later: the same product, other
-- shapes in files.
local function project(c, s, x, name, width)
  s = s:in_group "projection"
  if c.linear_projection then return s:linear(x, name, width) end
  return s:conv(x, name, width, { kernel = 1 })
end

local function transformer(c, s, x, context, heads, depth)
  local shape = x.shape
  local width = shape[4]
  local h = s:group_norm(x, "norm", { groups = c.groups, eps = 1e-6 })
  h = project(c, s, h:reshape { shape[1], shape[2] * shape[3], width }, "proj_in", width)
  for i = 0, depth - 1 do
    h = s:region(c.checkpoint, block, s:at("transformer_blocks", i), h, context, heads)
  end
  return x + project(c, s, h, "proj_out", width):reshape(shape)
end

-- Two linear layers around silu: the embeddings of time and of SDXL's vector.
local function embed(s, x, width)
  s = s:in_group "time"
  return s:linear(s:linear(x, "linear_1", width):silu(), "linear_2", width)
end

-- SDXL's vector (B, 2816): pooled text (B, 1280) and sinusoids of time_ids (B, 6), the sizes of its
-- family's record.
function unet.added_vector(c, scope, pooled, time_ids)
  local b, n = pooled.shape[1], time_ids.shape[2]
  local sizes = time_ids:reshape { b * n }:timestep_embedding { width = c.time_ids_width }
  sizes = sizes:reshape { b, n * c.time_ids_width }
  return scope:cast(pooled):concat(scope:cast(sizes), { axis = 1 })
end

-- x (B, H, W, in_channels), t (B), context (B, N, context), added (B, added) or nil -> (B, H, W,
-- out_channels)
function unet.predict(config, scope, x, t, context, added)
  local c, s = config, scope
  local ch, levels = c.channels, #c.channels
  local time_width = 4 * ch[1]
  context = s:cast(context)
  local time = s:mark(s:cast(t:timestep_embedding { width = ch[1] }), "time_proj")
  time = s:mark(embed(s:at "time_embedding", time, time_width), "time_embedding")
  if c.added then time = time + embed(s:at "add_embedding", s:cast(added), time_width) end
  time = time:silu()

  local h = s:mark(s:in_group "io":conv(s:cast(x), "conv_in", ch[1]), "conv_in")
  local skips = { h }
  for i = 1, levels do
    local d = s:at("down_blocks", i - 1)
    for j = 0, c.layers - 1 do
      h = s:region(c.checkpoint, resnet, c, d:at("resnets", j), h, time, ch[i])
      if c.depth[i] > 0 then
        h = transformer(c, d:at("attentions", j), h, context, c.heads[i], c.depth[i])
      end
      skips[#skips + 1] = h
    end
    if i < levels then
      h = d:at("downsamplers", 0):in_group "sampler":conv(h, "conv", ch[i], { stride = 2 })
      skips[#skips + 1] = h
    end
    d:mark(h)
  end

  local m = s:at "mid_block"
  h = s:region(c.checkpoint, resnet, c, m:at("resnets", 0), h, time, ch[levels])
  h = transformer(c, m:at("attentions", 0), h, context, c.heads[levels], c.mid_depth)
  h = m:mark(s:region(c.checkpoint, resnet, c, m:at("resnets", 1), h, time, ch[levels]))

  for i = levels, 1, -1 do
    local u = s:at("up_blocks", levels - i)
    for j = 0, c.layers do
      h = h:concat(table.remove(skips), { axis = 3 })
      h = s:region(c.checkpoint, resnet, c, u:at("resnets", j), h, time, ch[i])
      if c.depth[i] > 0 then
        h = transformer(c, u:at("attentions", j), h, context, c.heads[i], c.depth[i])
      end
    end
    if i > 1 then  -- to the size of the next skip, which is twice this one or one less
      local size = skips[#skips].shape
      h = h:upsample { height = size[2], width = size[3] }
      h = u:at("upsamplers", 0):in_group "sampler":conv(h, "conv", ch[i])
    end
    u:mark(h)
  end
  h = s:mark(s:group_norm(h, "conv_norm_out", { groups = c.groups, eps = 1e-5 }), "conv_norm_out")
  return s:in_group "io":conv(h:silu(), "conv_out", c.out_channels)
end

return unet
