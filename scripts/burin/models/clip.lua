-- SPDX-License-Identifier: MIT
-- clip.lua - the text encoders: CLIP-L (SD 1.x, SDXL's first) and OpenCLIP H and bigG (SD 2.x,
-- SDXL's second), which differ in sizes, activation and the projection. Pre-norm transformer with a
-- causal mask.
--
-- config: vocab, tokens (77), width, layers, heads, mlp, act ("quick_gelu" or "gelu"), projection
-- (width or nil)
local core = require "burin.core"
local clip = {}

local function attention(c, s, x)
  s = s:at "self_attn":in_group "attention"
  local q = s:linear(x, "q_proj", c.width)
  local k = s:linear(x, "k_proj", c.width)
  local v = s:linear(x, "v_proj", c.width)
  return s:linear(q:attention(k, v, { heads = c.heads, causal = true }), "out_proj", c.width)
end

local function mlp(c, s, x)
  s = s:at "mlp":in_group "mlp"
  local h = s:linear(x, "fc1", c.mlp)
  return s:linear(h[c.act](h), "fc2", c.width)
end

local function layer(c, s, x)
  x = x + attention(c, s, s:layer_norm(x, "layer_norm1"))
  return x + mlp(c, s, s:layer_norm(x, "layer_norm2"))
end

-- ids (B, 77); eos: rows of the end tokens in the flattened (B * 77), needed for the pooled output.
-- Returns hidden ([0] = embeddings, [i] = after layer i), last (normed), normed (the final norm as a
-- function) and pooled (B, projection) or nil.
function clip.encode(config, scope, ids, eos)
  local c, s = config, scope:at "text_model"
  local e = s:at "embeddings"
  local position = e:param("position_embedding.weight", { c.tokens, c.width }, "table", 0.02)
  local x = e:embedding(ids, "token_embedding", c.vocab, c.width) + s:cast(position)
  local out = { hidden = { [0] = x } }
  for i = 0, c.layers - 1 do
    x = s:region(c.checkpoint, layer, c, s:at("encoder.layers", i), x)
    out.hidden[i + 1] = x
  end
  out.normed = function(h) return s:layer_norm(h, "final_layer_norm") end
  out.last = out.normed(x)
  if c.projection then
    local shape = x.shape
    local rows = out.last:reshape { shape[1] * shape[2], shape[3] }
    local pooled = scope:linear(eos and rows:embedding(eos) or rows:slice(0, 0, 1),
      "text_projection", c.projection, { bias = false })
    out.pooled = eos and pooled or nil  -- without eos only the variable is declared
  end
  return out
end

-- (B * n, 77, C) -> (B, 75 n + 2, C): first state, the 75 inner ones of every chunk, last state.
function clip.join_chunks(states, n)
  if n == 1 then return states end
  local s = states.shape
  local b, width = s[1] // n, s[3]
  local all = states:reshape { b, n, s[2], width }
  local inner = all:slice(2, 1, s[2] - 1):reshape { b, n * (s[2] - 2), width }
  local first = all:slice(1, 0, 1):slice(2, 0, 1):reshape { b, 1, width }
  local last = all:slice(1, n - 1, n):slice(2, s[2] - 1, s[2]):reshape { b, 1, width }
  return first:concat(inner, { axis = 1 }):concat(last, { axis = 1 })
end

-- Positions of the first highest id (the end token) in ids (B * chunks, 77), of the first chunk of
-- each item, as rows of the flattened ids: what encode_text takes as o.eos. own: the ids of a
-- model's own words (words.lua), { first =, stop = }, or nil.
function clip.eos_rows(ids, chunks, own)
  local rows, width, list = ids.shape[1], ids.shape[2], {}
  for r = 0, rows - 1, chunks or 1 do
    local best, at = -1, 0
    for i = 0, width - 1 do
      local id = ids:get(r * width + i + 1)
      if id > best and not (own and id >= own.first and id < own.stop) then best, at = id, i end
    end
    list[#list + 1] = r * width + at
  end
  return core.tensor({ #list }, "i32", list)
end

return clip
