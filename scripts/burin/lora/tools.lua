-- SPDX-License-Identifier: MIT
-- tools.lua - LoRA files as material: converted, merged, made from two checkpoints, given another rank. Matrices are
-- computed with on the host (core/run/matrix.c), so no device is needed.
local arguments = require "burin.arguments"
local core = require "burin.core"
local file = require "burin.lora.file"
local guard = require "burin.guard"
local layout = require "burin.models.layout"
local metadata = require "burin.lora.metadata"
local names = require "burin.lora.names"
local progress = require "burin.progress"
local published = require "burin.models.published"
local save = require "burin.lora.save"
local sd = require "burin.models.sd"
local tools = {}

local function fail(path, text, ...) error({ exit = 65, message = path .. ": " .. text:format(...) }, 0) end

-- Whether a path is a LoRA: a file with adapters and without a network, or a folder as file.read takes it.
function tools.is_lora(path)
  local kind = core.exists(path)
  if not kind then error({ exit = 66, message = path .. ": there is no such file or folder" }, 0) end
  if kind == "folder" then
    if core.exists(path .. "/pytorch_lora_weights.safetensors") or core.exists(path .. "/adapter_model.safetensors") then return true end
    for _, part in ipairs { "unet", "text_encoder", "text_encoder_2" } do
      if core.exists(("%s/%s/adapter_model.safetensors"):format(path, part)) then return true end
    end
    return false
  end
  for _, key in ipairs(guard(65, core.load, path):names()) do
    local _, part = names.split(key)
    if part and part ~= "alpha" then return true end
  end
  return false
end

-- The family of a file, by the width that its cross-attention or its text encoder's attention takes; else by its
-- metadata.
local function guess_family(path)
  for _, source in ipairs(file.sources(path)) do
    local f = guard(65, core.load, source.path)
    local meta = f:meta()
    for _, key in ipairs(f:names()) do
      if key:match "^lora_te[12]_" or key:match "^text_encoder_2%." or key:match "^lora_unet_%a+put_blocks_" then return "sdxl" end
      local base, part = names.split(key)
      local s = (part == "down" or part == "w1_b") and f:info(key).shape
      if s and base:match "attn2[._]to_[kv]$" then
        local family = ({ [768] = "sd1", [1024] = "sd2", [2048] = "sdxl" })[s[2]]
        if family then return family end
      elseif s and base:match "self_attn" and (s[2] == 768 or s[2] == 1024) then
        return s[2] == 768 and "sd1" or "sd2"
      end
    end
    local version = meta.ss_base_model_version or ""
    if version:match "^sdxl" then return "sdxl" elseif version:match "^sd_v2" then return "sd2"
    elseif version:match "^sd_v1" then return "sd1" end
  end
  fail(path, "neither its shapes nor its metadata say which model it is for; give --base MODEL")
end

-- The model whose layers a LoRA names, traced on the null device: base, or the published one of its family.
function tools.model(path, base)
  arguments.null_device()
  return base and sd.open(base) or sd.new(published[guess_family(path)]())
end

-- What a new file says, from an old one's metadata or from the model's family.
local function describe(model, adapters, title, old)
  local rank, alpha = {}, {}
  for _, e in ipairs(adapters) do
    rank[e.rank or 0], alpha[e.alpha or 0] = true, true
  end
  local function only(set)
    local v = next(set)
    return next(set, v) == nil and v or nil
  end
  local kinds, all = {}, {}
  for _, e in ipairs(adapters) do kinds[e.kind] = true end
  local module = (kinds.loha or kinds.lokr or kinds.diff) and "lycoris.kohya" or "networks.lora"
  for k, v in pairs(metadata.modelspec { title = title, family = model.family, prediction = model.prediction }) do all[k] = v end
  for k, v in pairs(old or {}) do all[k] = v end
  for k, v in pairs(metadata.network { family = model.family, prediction = model.prediction, module = module,
    rank = only(rank), alpha = only(alpha) }) do
    if not (old and old[k]) or k == "ss_network_dim" or k == "ss_network_alpha" then all[k] = v end
  end
  all.format, all.lora_adapter_metadata = nil, nil
  return all
end

local function stem(path) return (path:match "([^/]*)/*$":gsub("%.safetensors$", "")) end

local function write(output, adapters, model, o, old)
  local to = arguments.one_of("--to", o.to or (output:match "%.safetensors$" and "kohya" or "peft"), save.formats)
  if o.metadata then arguments.one_of("--metadata", o.metadata, metadata.profiles) end
  local n = save.write(output, adapters, { map = model.map, format = to, dtype = o.dtype, profile = o.metadata, sidecar = o.sidecar,
    metadata = describe(model, adapters, stem(output), old) })
  return { what = model.family .. " LoRA", layout = to, tensors = n, layers = #adapters }
end

function tools.convert(input, output, o)
  local model = tools.model(input, o.base)
  local read = file.read(input, names.index(model))
  return write(output, read.adapters, model, o, read.metadata)
end

-- ---- singular values ------------------------------------------------------------------------------------

-- As matrices: up (out, r), down (r, in KH KW); the kernel's dims are put back by `like`.
local function matrix(t)
  local s = t.shape
  return #s == 2 and t or t:reshape { s[1], t.count // s[1] }
end

-- u, s, v, rank -> an adapter with alpha = rank: both factors take the square root of the singular values, so neither
-- leaves the range of f16. weight_shape: of the layer in a file.
local function from_svd(layer, u, s, v, rank, weight_shape)
  local m, n = u.shape[1], v.shape[1]
  local roots = core.tensor({ rank }, "f32")
  for i = 1, rank do roots:set(i, math.sqrt(s:get(i))) end
  local function first(t) return core.scale_rows(t:permute { 2, 1 }:rows(1, rank), roots) end
  local down, up = first(v), first(u):permute { 2, 1 }
  if #weight_shape == 4 then
    down = down:reshape { rank, n // (weight_shape[3] * weight_shape[4]), weight_shape[3], weight_shape[4] }
    up = up:reshape { m, rank, 1, 1 }
  end
  return { layer = layer, kind = "lora", parts = { up = up, down = down }, rank = rank, alpha = rank, scale = 1, keys = { "up", "down" } }
end

-- How many singular values to keep: o.rank at most; o.sv_ratio: those above the greatest / ratio; o.sv_fro: until the kept
-- part of the Frobenius norm reaches it; o.sv_cumulative: the same with the sum. total: the Frobenius norm and sum of all,
-- where s does not hold all. As kohya-ss/sd-scripts networks/resize_lora.py.
local function choose_rank(s, o, norm)
  local values, n = s:table(), s.count
  local keep = n
  if o.sv_ratio then
    keep = 0
    for i = 1, n do if values[i] >= values[1] / o.sv_ratio then keep = i end end
  elseif o.sv_fro then
    local total, part = norm and norm * norm or 0, 0
    if not norm then for i = 1, n do total = total + values[i] ^ 2 end end
    for i = 1, n do
      part, keep = part + values[i] ^ 2, i
      if part >= o.sv_fro ^ 2 * total then break end
    end
  elseif o.sv_cumulative then
    local total, part = 0, 0
    for i = 1, n do total = total + values[i] end
    for i = 1, n do
      part, keep = part + values[i], i
      if part >= o.sv_cumulative * total then break end
    end
  end
  return math.max(1, math.min(keep, o.rank or n, n))
end

local function kept_share(s, rank, norm)
  local part, total = 0, norm and norm * norm or 0
  for i = 1, s.count do
    local q = s:get(i) ^ 2
    part = part + (i <= rank and q or 0)
    if not norm then total = total + q end
  end
  return total > 0 and math.sqrt(part / total) or 1
end

local function only_lora(e, path)
  if e.kind ~= "lora" or e.parts.mid or e.parts.dora or e.parts.magnitude then
    fail(path, "%s is no plain LoRA (%s); only those can be resized or added to each other", e.keys[1],
      e.parts.mid and "middle kernel" or (e.parts.dora or e.parts.magnitude) and "DoRA" or e.kind)
  end
end

local function weight_shape(e)
  local d = e.parts.down.shape
  if #d == 2 then return { e.parts.up.shape[1], d[2] } end
  return { e.parts.up.shape[1], d[2], d[3], d[4] }
end

-- One adapter from several of the same layer: factors stacked, each up times its scale; exact, and of the sum of ranks.
local function stack(list)
  if #list == 1 and list[1].strength == 1 then return list[1].adapter end
  local shape, rank = weight_shape(list[1].adapter), 0
  local m = shape[1]
  local n = matrix(list[1].adapter.parts.down).shape[2]
  for _, x in ipairs(list) do
    local up, down = matrix(x.adapter.parts.up), matrix(x.adapter.parts.down)
    if up.shape[1] ~= m or down.shape[2] ~= n then fail(x.adapter.path, "%s has another size than in the other file", x.adapter.keys[1]) end
    rank = rank + x.adapter.rank
  end
  local down, up, at = core.tensor({ rank, n }, "f32"), core.tensor({ rank, m }, "f32"), 0
  for _, x in ipairs(list) do
    local e = x.adapter
    down:copy_into(at * n + 1, matrix(e.parts.down))
    up:copy_into(at * m + 1, matrix(e.parts.up):affine(e.scale * x.strength, 0, "f32"):permute { 2, 1 })
    at = at + e.rank
  end
  up = up:permute { 2, 1 }
  if #shape == 4 then down, up = down:reshape { rank, shape[2], shape[3], shape[4] }, up:reshape { m, rank, 1, 1 } end
  return { layer = list[1].adapter.layer, kind = "lora", parts = { up = up, down = down }, rank = rank, alpha = rank, scale = 1,
    keys = { "up", "down" } }
end

local function resized(e, o, report)
  local u, s, v = core.svd_product(matrix(e.parts.up):affine(e.scale, 0, "f32"), matrix(e.parts.down))
  local rank = choose_rank(s, o)
  report[#report + 1] = { layer = e.layer.component .. "." .. e.layer.module, rank = rank, old = e.rank, kept = kept_share(s, rank) }
  return from_svd(e.layer, u, s, v, rank, weight_shape(e))
end

local function cast_all(adapters, dtype)
  for _, e in ipairs(adapters) do
    for part, t in pairs(e.parts) do if t.dtype ~= dtype then e.parts[part] = t:cast(dtype) end end
  end
end

-- A LoRA of other ranks: o.rank (at most), and one of sv_ratio, sv_fro, sv_cumulative; o.base, to, dtype, metadata.
-- -> what write says, with ranks = { { layer, rank, old, kept } ... }
function tools.resize(input, output, o)
  local model = tools.model(input, o.base)
  local read, list, report = file.read(input, names.index(model)), {}, {}
  local bar = progress.new("resizing", #read.adapters)
  for i, e in ipairs(read.adapters) do
    only_lora(e, input)
    list[i] = resized(e, o, report)
    bar:update(i)
  end
  local type_of_file = read.adapters[1].parts.up.dtype
  cast_all(list, (not o.dtype or o.dtype == "keep") and type_of_file or o.dtype)
  local result = write(output, list, model, o, read.metadata)
  result.ranks = report
  return result
end

-- LoRAs ({ { path, scale } ... }) into one: stacked, or with o.rank or an sv_ option resized by singular values.
function tools.merge(loras, output, o)
  local model = tools.model(loras[1].path, o.base)
  local index, by_layer, order = names.index(model), {}, {}
  for _, l in ipairs(loras) do
    for _, e in ipairs(file.read(l.path, index).adapters) do
      only_lora(e, l.path)
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
    if o.rank or o.sv_ratio or o.sv_fro or o.sv_cumulative then e = resized(e, o, report) end
    list[i] = e
    bar:update(i)
  end
  cast_all(list, o.dtype == "keep" and "f32" or o.dtype or "f32")
  local result = write(output, list, model, o)
  result.ranks = report
  return result
end

-- LoRAs into a checkpoint, of either layout, at its own element types or o.dtype.
function tools.bake(input, loras, output, o)
  local convert = require "burin.convert"
  local model, items, extras = convert.open(input)
  local merged, list, n = file.merge(loras, model), {}, 0
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
  local to = arguments.one_of("--to", o.to or (output:match "%.safetensors$" and "single" or "diffusers"), { "single", "diffusers" })
  local folder = core.exists(input) == "folder"
  local writer = to == "single" and layout.write_single or layout.write_folder
  writer(output, list, model.map, model.config, { extras = extras, texts = folder and convert.texts_of(input) or nil })
  return { what = model.family .. " checkpoint", layout = to, tensors = #items + #extras, layers = n }
end

-- ---- from two checkpoints ---------------------------------------------------------------------------------

-- The layers that kohya's LoRA has: those of the U-Net's transformers, of the text encoders' attention and MLP, and with
-- convolutions those of residual blocks and samplers too.
local function is_target(layer, convolutions)
  local m = layer.module
  if layer.component ~= "unet" then return m:find "%.self_attn%." or m:find "%.mlp%." end
  return m:find "attentions%." or convolutions and (m:find "resnets%." or m:find "samplers%.")
end

-- The difference tuned - base as a LoRA. o.rank, o.conv_rank (adds convolutions), sv_ratio, sv_fro, sv_cumulative, dtype,
-- metadata, min_diff (layers whose greatest difference is less are left out; 0).
function tools.extract(base, tuned, output, o)
  local convert = require "burin.convert"
  local model, base_items = convert.open(base)
  local other, tuned_items = convert.open(tuned)
  if other.family ~= model.family then fail(tuned, "it is of the family %s, %s of %s", other.family, base, model.family) end
  local from, to = {}, {}
  for _, item in ipairs(base_items) do from[item.component .. "." .. item.name] = item end
  for _, item in ipairs(tuned_items) do to[item.component .. "." .. item.name] = item end
  local layers, list, report, same = names.layers(model), {}, {}, 0
  local bar = progress.new("extracting", #layers)
  for i, layer in ipairs(layers) do
    local name = layer.component .. "." .. layer.module .. ".weight"
    if is_target(layer, o.conv_rank) then
      local a, b = from[name], to[name]
      if table.concat(a.shape, ",") ~= table.concat(b.shape, ",") then fail(tuned, "%s has another shape than in %s", name, base) end
      local d = core.add(b.read(), a.read(), -1)
      local stats = d:stats()
      if not stats.finite then fail(tuned, "%s holds a NaN or an infinity", name) end
      if math.max(stats.max, -stats.min) <= (o.min_diff or 0) then
        same = same + 1
      else
        local x = matrix(d)
        local most = math.min(layer.kernel > 1 and o.conv_rank or o.rank, x.shape[1], x.shape[2])
        local u, s, v = core.svd(x, most)
        local rank = choose_rank(s, { rank = most, sv_ratio = o.sv_ratio, sv_fro = o.sv_fro, sv_cumulative = o.sv_cumulative }, stats.norm)
        report[#report + 1] = { layer = layer.component .. "." .. layer.module, rank = rank, kept = kept_share(s, rank, stats.norm) }
        list[#list + 1] = from_svd(layer, u, s, v, rank, d.shape)
      end
    end
    if i % 16 == 0 then collectgarbage() end  -- Lua does not know how large tensors are
    bar:update(i)
  end
  if #list == 0 then fail(tuned, "no layer differs from %s", base) end
  cast_all(list, o.dtype == "keep" and "f16" or o.dtype or "f16")
  local result = write(output, list, model, o)
  result.ranks, result.same = report, same
  return result
end

return tools
