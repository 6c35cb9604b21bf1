-- SPDX-License-Identifier: MIT
-- delta.lua - what an adapter adds to a layer's weight, in the layout of files: (out, in) or (out, in, KH, KW).
--
--   LoRA    (alpha / r) up down                                   Hu et al. 2021
--   LoCon   the same with a kernel in down, or in mid:            LyCORIS (Yeh et al. 2023)
--           dW[o,i,h,w] = (alpha / r) sum_ab up[o,a] mid[a,b,h,w] down[b,i]
--   LoHa    (alpha / r) (w1_a w1_b) * (w2_a w2_b), element-wise   Hyeon-Woo et al. 2022 (FedPara)
--   LoKr    (alpha / r) w1 (x) w2, Kronecker product              LyCORIS; scale 1 when neither factor is decomposed
--   diff    the difference itself, of a weight, a norm or a bias
--   value   the new weight or bias; what is added is its difference from the old one
--   DoRA    W' = m (W + dW) / |W + dW|, so W' - W is added        Liu et al. 2024; one norm per output, or per input
--
-- Shapes come from a file, so every product is checked against the weight before it is made.
local core = require "burin.core"

local function matrix(t)
  local s = t.shape
  return #s == 2 and t or t:reshape { s[1], t.count // math.max(1, s[1]) }
end

local function flip(t) return t:permute { 2, 1 } end

local function fits(ok, what)
  if not ok then error({ misfit = what }, 0) end
end

local function product(a, b, most, scale)
  a, b = matrix(a), matrix(b)
  fits(a.count > 0 and b.count > 0 and a.shape[2] == b.shape[1], "the ranks of its factors differ")
  fits(a.shape[1] * b.shape[2] <= most, "it is larger than the layer")
  return core.matmul(a, b, scale)
end

-- sum_ab left[a,o] middle[a,b,...] right[b,i] -> (o, i, ...)
local function tucker(middle, left, right, most)
  local s = middle.shape
  fits(#s >= 2 and middle.count > 0 and #left.shape == 2 and #right.shape == 2, "a factor has the wrong number of dims")
  fits(s[1] == left.shape[1] and s[2] == right.shape[1], "the ranks of its factors differ")
  local kh, kw, o, i = s[3] or 1, s[4] or 1, left.shape[2], right.shape[2]
  fits(o * i * kh * kw <= most, "it is larger than the layer")
  local x = core.matmul(flip(left), matrix(middle)):reshape { o, s[2], kh, kw }
  x = x:permute { 1, 3, 4, 2 }:reshape { o * kh * kw, s[2] }
  return core.matmul(x, right):reshape { o, kh, kw, i }:permute { 1, 4, 2, 3 }
end

local kinds = {}

function kinds.lora(p, scale, most)
  if p.mid then return tucker(p.mid, flip(matrix(p.up)), matrix(p.down), most):affine(scale, 0, "f32") end
  return product(p.up, p.down, most, scale)
end

function kinds.loha(p, scale, most)
  local function factor(a, b, t)
    if t then return tucker(t, matrix(a), matrix(b), most) end
    return product(a, b, most)
  end
  local x, y = factor(p.w1_a, p.w1_b, p.t1), factor(p.w2_a, p.w2_b, p.t2)
  fits(x.count == y.count, "its two factors differ in size")
  return core.multiply(x, y, scale)
end

function kinds.lokr(p, scale, most, kernel)
  local w1 = p.k1 and matrix(p.k1) or product(p.k1_a, p.k1_b, most)
  local w2 = p.k2 or p.kt and tucker(p.kt, matrix(p.k2_a), matrix(p.k2_b), most) or product(p.k2_a, p.k2_b, most)
  fits(w1.count > 0 and w2.count > 0 and w1.count * w2.count <= most, "it is larger than the layer")
  local s, taps = w2.shape, kernel[1] * kernel[2]
  if #s == 2 and taps > 1 then  -- (out, in KH KW)
    fits(s[2] % taps == 0, "its second factor has the wrong shape")
    w2 = w2:reshape { s[1], s[2] // taps, kernel[1], kernel[2] }
  end
  return core.kron(w1, w2, scale)
end

function kinds.diff(p) return p.diff:cast "f32" end

function kinds.value(p, _, most, _, weight)
  fits(p.value.count == most, "it is of another size than the layer")
  return core.add(p.value, weight, -1)
end

-- dW of DoRA: the magnitudes m replace the norms of W + dW.
local function decompose(p, weight, d)
  local w = core.add(weight, d)
  local m = p.magnitude or p.dora
  local outputs = w.shape[1]
  if p.magnitude or m.shape[1] == outputs and m.count == outputs then
    fits(m.count == outputs, "its magnitudes are not one per output")
    return core.add(core.scale_rows(w, m, core.row_norms(w)), weight, -1)
  end
  fits(m.count == w.shape[2], "its magnitudes are neither one per output nor one per input")
  local order = #w.shape == 4 and { 2, 1, 3, 4 } or { 2, 1 }
  local by_input = w:permute(order)
  return core.add(core.scale_rows(by_input, m, core.row_norms(by_input)):permute(order), weight, -1)
end

-- entry: { kind, parts = { name = tensor }, scale } of file.lua; weight: the layer's own. -> f32, of weight's shape
return function(entry, weight)
  local s, p = weight.shape, entry.parts
  local d = kinds[entry.kind](p, entry.scale, weight.count, { s[3] or 1, s[4] or 1 }, weight)
  fits(d.shape[1] == s[1] and d.count == weight.count, "it is of another size than the layer")
  d = d:reshape(s)
  return (p.dora or p.magnitude) and decompose(p, weight, d) or d
end
