-- SPDX-License-Identifier: MIT
-- ranks.lua - adapters by their singular values: how many there are to keep, and an adapter made of them. Matrices are
-- computed with on the host (core/host/matrix.c), so no device is needed.
local core = require "burin.core"
local errors = require "burin.base.errors"
local ranks = {}

local fail = errors.file

-- As matrices: up (out, r), down (r, in KH KW); the kernel's dims are put back by `like`.
function ranks.matrix(t)
  local s = t.shape
  return #s == 2 and t or t:reshape { s[1], t.count // s[1] }
end

-- u, s, v, rank -> an adapter with alpha = rank: both factors take the square root of the singular values, so neither
-- leaves the range of f16. weight_shape: of the layer in a file.
function ranks.from_svd(layer, u, s, v, rank, weight_shape)
  local m, n = u.shape[1], v.shape[1]
  local roots = core.tensor({ rank }, "f32")
  for i = 1, rank do roots:set(i, math.sqrt(s:get(i))) end
  local function first(t) return core.scale_rows(t:permute { 2, 1 }:rows(1, rank), roots) end
  local down, up = first(v), first(u):permute { 2, 1 }
  if #weight_shape == 4 then
    down = down:reshape { rank, n // (weight_shape[3] * weight_shape[4]), weight_shape[3], weight_shape[4] }
    up = up:reshape { m, rank, 1, 1 }
  end
  return { layer = layer, kind = "lora", parts = { up = up, down = down }, rank = rank, alpha = rank, scale = 1,
    keys = { "up", "down" } }
end

-- How many of n values, the greatest first, are above the greatest / ratio.
local function above(values, n, ratio, strictly)
  local keep = 0
  for i = 1, n do
    local least = values[1] / ratio
    if values[i] > least or not strictly and values[i] == least then keep = i end
  end
  return keep
end

-- How many of n values make up a share of the total of their powers.
local function making_up(values, n, power, share, total)
  if not total then
    total = 0
    for i = 1, n do total = total + values[i] ^ power end
  end
  local part = 0
  for i = 1, n do
    part = part + values[i] ^ power
    if part >= share * total then return i end
  end
  return n
end

ranks.rules = { "burin", "sd-scripts" }

-- How many singular values to keep: o.rank at most; o.sv_ratio: those above the greatest / ratio; o.sv_fro: until the
-- kept part of the Frobenius norm reaches it; o.sv_cumulative: the same with the sum. norm: the Frobenius norm of all,
-- where s does not hold all. o.rule "sd-scripts": as kohya-ss/sd-scripts networks/resize_lora.py (48d368f), which keeps
-- one more than such a number needs (index + 1), but as many as there are at most; and 1 where all are below 1e-6.
function ranks.choose(s, o, norm)
  local values, n = s:table(), s.count
  local theirs, keep = o.rule == "sd-scripts", n
  if o.sv_ratio then keep = above(values, n, o.sv_ratio, theirs)
  elseif o.sv_fro then keep = making_up(values, n, 2, o.sv_fro ^ 2, norm and norm * norm)
  elseif o.sv_cumulative then keep = making_up(values, n, 1, o.sv_cumulative) end
  if theirs and (o.sv_ratio or o.sv_fro or o.sv_cumulative) then
    keep = values[1] <= 1e-6 and 1 or math.max(1, keep) + 1
  end
  return math.max(1, math.min(keep, o.rank or n, n))
end

-- The share of the Frobenius norm that the first `rank` singular values keep.
function ranks.kept(s, rank, norm)
  local part, total = 0, norm and norm * norm or 0
  for i = 1, s.count do
    local q = s:get(i) ^ 2
    part = part + (i <= rank and q or 0)
    if not norm then total = total + q end
  end
  return total > 0 and math.sqrt(part / total) or 1
end

-- Stops unless an adapter of a file is a plain LoRA.
function ranks.only_lora(e, path)
  if e.kind ~= "lora" or e.parts.mid or e.parts.dora or e.parts.magnitude then
    fail(path, "%s is no plain LoRA (%s); only those can be resized or added to each other", e.keys[1],
      e.parts.mid and "middle kernel" or (e.parts.dora or e.parts.magnitude) and "DoRA" or e.kind)
  end
end

-- The shape of the layer's weight in a file.
function ranks.weight_shape(e)
  local d = e.parts.down.shape
  if #d == 2 then return { e.parts.up.shape[1], d[2] } end
  return { e.parts.up.shape[1], d[2], d[3], d[4] }
end

-- An adapter with the rank that o (as above) asks for; a row of the report, with what the other rule would keep.
function ranks.resized(e, o, report)
  local u, s, v = core.svd_product(ranks.matrix(e.parts.up):affine(e.scale, 0, "f32"), ranks.matrix(e.parts.down))
  local rank, other = ranks.choose(s, o), setmetatable({}, { __index = o })
  other.rule = o.rule == "sd-scripts" and "burin" or "sd-scripts"
  report[#report + 1] = { layer = e.layer.component .. "." .. e.layer.module, rank = rank, old = e.rank,
    kept = ranks.kept(s, rank), other = ranks.choose(s, other) }
  return ranks.from_svd(e.layer, u, s, v, rank, ranks.weight_shape(e))
end

function ranks.cast(adapters, dtype)
  for _, e in ipairs(adapters) do
    for part, t in pairs(e.parts) do if t.dtype ~= dtype then e.parts[part] = t:cast(dtype) end end
  end
end

return ranks
