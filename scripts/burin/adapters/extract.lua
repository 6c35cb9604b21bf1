-- SPDX-License-Identifier: MIT
-- extract.lua - a LoRA from two checkpoints.
local adapters = require "burin.adapters.convert"
local convert = require "burin.models.io.convert"
local core = require "burin.core"
local errors = require "burin.base.errors"
local keys = require "burin.adapters.keys"
local progress = require "burin.base.progress"
local ranks = require "burin.adapters.ranks"
local extract = {}

local fail = errors.file

-- The layers that kohya's LoRA has: those of the U-Net's transformers, of the text encoders' attention and MLP, and
-- with convolutions those of residual blocks and samplers too.
function extract.is_target(layer, convolutions)
  local m = layer.module
  if layer.component ~= "unet" then return m:find "%.self_attn%." or m:find "%.mlp%." end
  return m:find "attentions%." or convolutions and (m:find "resnets%." or m:find "samplers%.")
end

-- The difference tuned - base as a LoRA. o.rank, o.conv_rank (adds convolutions), sv_ratio, sv_fro, sv_cumulative,
-- dtype, metadata, min_diff (layers whose greatest difference is less are left out; 0).
function extract.run(base, tuned, output, o)
  local model, base_items = convert.open(base)
  local other, tuned_items = convert.open(tuned)
  if other.family ~= model.family then
    fail(tuned, "it is of the family %s, %s of %s", other.family.name, base, model.family.name)
  end
  local from, to = {}, {}
  for _, item in ipairs(base_items) do from[item.component .. "." .. item.name] = item end
  for _, item in ipairs(tuned_items) do to[item.component .. "." .. item.name] = item end
  local layers, list, report, same = keys.layers(model), {}, {}, 0
  local bar = progress.new("extracting", #layers)
  for i, layer in ipairs(layers) do
    local name = layer.component .. "." .. layer.module .. ".weight"
    if extract.is_target(layer, o.conv_rank) then
      local a, b = from[name], to[name]
      if table.concat(a.shape, ",") ~= table.concat(b.shape, ",") then fail(tuned, "%s has another shape than in %s",
        name, base) end
      local d = core.add(b.read(), a.read(), -1)
      local stats = d:stats()
      if not stats.finite then fail(tuned, "%s holds a NaN or an infinity", name) end
      if math.max(stats.max, -stats.min) <= (o.min_diff or 0) then
        same = same + 1
      else
        local x = ranks.matrix(d)
        local most = math.min(layer.kernel > 1 and o.conv_rank or o.rank, x.shape[1], x.shape[2])
        local u, s, v = core.svd(x, most)
        local rank = ranks.choose(s, { rank = most, sv_ratio = o.sv_ratio, sv_fro = o.sv_fro,
          sv_cumulative = o.sv_cumulative }, stats.norm)
        report[#report + 1] = { layer = layer.component .. "." .. layer.module, rank = rank,
          kept = ranks.kept(s, rank, stats.norm) }
        list[#list + 1] = ranks.from_svd(layer, u, s, v, rank, d.shape)
      end
    end
    if i % 16 == 0 then collectgarbage() end  -- Lua does not know how large tensors are
    bar:update(i)
  end
  if #list == 0 then fail(tuned, "no layer differs from %s", base) end
  ranks.cast(list, o.dtype == "keep" and "f16" or o.dtype or "f16")
  local result = adapters.write(output, list, model, o)
  result.ranks, result.same = report, same
  return result
end

return extract
