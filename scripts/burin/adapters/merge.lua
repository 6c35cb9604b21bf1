-- SPDX-License-Identifier: MIT
-- merge.lua - LoRAs into one, or into a checkpoint.
local adapters = require "burin.adapters.convert"
local convert = require "burin.models.io.convert"
local core = require "burin.core"
local errors = require "burin.base.errors"
local file = require "burin.adapters.file"
local keys = require "burin.adapters.keys"
local layout = require "burin.models.io.layout"
local options = require "burin.base.options"
local progress = require "burin.base.progress"
local ranks = require "burin.adapters.ranks"
local merge = {}

local fail = errors.file

-- One adapter from several of the same layer: factors stacked, each up times its scale; exact, and of the sum of ranks.
local function stack(list)
  if #list == 1 and list[1].strength == 1 then return list[1].adapter end
  local shape, rank = ranks.weight_shape(list[1].adapter), 0
  local m = shape[1]
  local n = ranks.matrix(list[1].adapter.parts.down).shape[2]
  for _, x in ipairs(list) do
    local up, down = ranks.matrix(x.adapter.parts.up), ranks.matrix(x.adapter.parts.down)
    if up.shape[1] ~= m or down.shape[2] ~= n then fail(x.adapter.path, "%s has another size than in the other file",
      x.adapter.keys[1]) end
    rank = rank + x.adapter.rank
  end
  local down, up, at = core.tensor({ rank, n }, "f32"), core.tensor({ rank, m }, "f32"), 0
  for _, x in ipairs(list) do
    local e = x.adapter
    down:copy_into(at * n + 1, ranks.matrix(e.parts.down))
    up:copy_into(at * m + 1, ranks.matrix(e.parts.up):affine(e.scale * x.strength, 0, "f32"):permute { 2, 1 })
    at = at + e.rank
  end
  up = up:permute { 2, 1 }
  if #shape == 4 then down, up = down:reshape { rank, shape[2], shape[3], shape[4] }, up:reshape { m, rank, 1, 1 } end
  return { layer = list[1].adapter.layer, kind = "lora", parts = { up = up, down = down }, rank = rank, alpha = rank,
    scale = 1, keys = { "up", "down" } }
end

-- LoRAs ({ { path, scale } ... }) into one: stacked, or with o.rank or an sv_ option resized by singular values.
function merge.run(loras, output, o)
  local model = adapters.model(loras[1].path, o.base)
  local index, by_layer, order = keys.index(model), {}, {}
  for _, l in ipairs(loras) do
    for _, e in ipairs(file.read(l.path, index).adapters) do
      ranks.only_lora(e, l.path)
      local name = e.layer.component .. "." .. e.layer.module
      if not by_layer[name] then
        by_layer[name] = {}
        order[#order + 1] = name
      end
      table.insert(by_layer[name], { adapter = e, strength = l.scale })
    end
  end
  local list, report = {}, {}
  local bar = progress.new("merging", #order)
  for i, name in ipairs(order) do
    local e = stack(by_layer[name])
    if o.rank or o.sv_ratio or o.sv_fro or o.sv_cumulative then e = ranks.resized(e, o, report) end
    list[i] = e
    bar:update(i)
  end
  ranks.cast(list, o.dtype == "keep" and "f32" or o.dtype or "f32")
  local result = adapters.write(output, list, model, o)
  result.ranks = report
  return result
end

-- LoRAs into a checkpoint, of either layout, at its own element types or o.dtype.
function merge.bake(input, loras, output, o)
  local model, items, extras = convert.open(input)
  local merged, list, n = file.merge(loras, model), {}, 0
  if o.dtype == "keep" then
    layout.check_keep(input, model.files, items, function(item) return merged.touches(item.component, item.name) end)
  end
  local cast = o.dtype == "keep" and items or layout.cast(items, o.dtype)
  for i, item in ipairs(items) do
    list[i] = cast[i]
    if merged.touches(item.component, item.name) then  -- added in f32 and rounded once
      n = n + 1
      list[i] = setmetatable({ read = function()
        return merged.reader(item.component, item.read)(item.name):cast(cast[i].dtype)
      end }, { __index = cast[i] })
    end
  end
  local to = options.one_of("--to", o.to or (output:match "%.safetensors$" and "single" or "diffusers"),
    { "single", "diffusers" })
  local folder = core.exists(input) == "folder"
  local writer = to == "single" and layout.write_single or layout.write_folder
  writer(output, list, model.map, model.config, { extras = extras, texts = folder and convert.texts_of(input) or nil })
  return { what = model.family.name .. " checkpoint", layout = to, tensors = #items + #extras, layers = n }
end

return merge
