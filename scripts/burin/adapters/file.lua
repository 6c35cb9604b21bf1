-- SPDX-License-Identifier: MIT
-- file.lua - LoRA files in any known spelling, as a list of adapters of a model's layers. A path is a file, a folder
-- with pytorch_lora_weights.safetensors (diffusers), or one that PEFT wrote: adapter_model.safetensors beside
-- adapter_config.json, in it or in unet/, text_encoder/ and text_encoder_2/.
local core = require "burin.core"
local delta = require "burin.adapters.delta"
local errors = require "burin.base.errors"
local keys = require "burin.adapters.keys"
local peft = require "burin.adapters.peft"
local sums = require "burin.base.sums"
local file = {}

local fail = errors.file

-- { { path =, component = or nil, config = PEFT's or nil } ... }
function file.sources(path)
  local function adapter(folder, component)
    local weights = folder .. "/adapter_model.safetensors"
    if not core.exists(weights) then return nil end
    return { path = weights, component = component, config = peft.read(folder .. "/adapter_config.json") }
  end
  if core.exists(path) ~= "folder" then
    local folder = path:match "^(.*)/adapter_model%.safetensors$" or path == "adapter_model.safetensors" and "."
    return { folder and adapter(folder) or { path = path } }
  end
  if core.exists(path .. "/pytorch_lora_weights.safetensors") then
    return { { path = path .. "/pytorch_lora_weights.safetensors" } }
  end
  local list = { adapter(path) }
  for _, component in ipairs { "unet", "text_encoder", "text_encoder_2" } do
    list[#list + 1] = adapter(path .. "/" .. component, component)
  end
  if #list == 0 then
    errors.raise("input", "%s: no LoRA in this folder (pytorch_lora_weights.safetensors, adapter_model.safetensors)",
      path)
  end
  return list
end

-- Required parts of each kind; the rank is the first dim of one of them, of the second when it is decomposed.
local kinds = {
  { "lora", { "up", "down" }, function(p) return p.down.shape[1] end },
  { "loha", { "w1_a", "w1_b", "w2_a", "w2_b" }, function(p) return p.w1_b.shape[1] end },
  { "lokr", {}, function(p)
    local b = p.k2_b or p.k1_b
    return b and b.shape[1]
  end },
  { "diff", { "diff" }, function() end },
  { "value", { "value" }, function() end },
}
local marks = { down = "lora", up = "lora", w1_a = "loha", w1_b = "loha", w2_a = "loha", w2_b = "loha", k1 = "lokr",
  k1_a = "lokr", k2 = "lokr", k2_a = "lokr", diff = "diff", value = "value" }
-- Parts that may have one dim.
local vectors = { alpha = true, dora = true, magnitude = true, up_b = true, diff = true, value = true }

-- The kind of an adapter by its parts, which are all there.
local function kind_of(e, path)
  local kind, first = nil, e.keys[1]
  for part, t in pairs(e.parts) do
    if marks[part] and kind and marks[part] ~= kind then fail(path, "%s: one layer has parts of two kinds, %s and %s",
      first, kind, marks[part]) end
    kind = marks[part] or kind
    if #t.shape < 2 and not vectors[part] or #t.shape > 4 or t.count == 0 then
      fail(path, "%s: a tensor of the shape (%s) is no part of an adapter", first, table.concat(t.shape, ", "))
    end
  end
  return kind
end

-- LyCORIS' and PEFT's LoKr of two whole factors has no rank. LyCORIS' has no scale then, PEFT's has.
local function scale_whole(e, config, path)
  local p = e.parts
  if e.kind ~= "lokr" or e.rank or not config then return end
  local rank = peft.rank(config, e.layer.module, path)
  local scale = peft.alpha(config, e.layer.module, rank, path) / rank
  if scale ~= 1 then p.k1 = p.k1:affine(scale, 0, "f32") end
end

-- Turns the keys of one layer into an adapter: kind, parts, rank, alpha, scale.
local function settle(e, path, config)
  local p, kind, first = e.parts, kind_of(e, path), e.keys[1]
  for _, k in ipairs(kinds) do
    if k[1] == kind then
      for _, part in ipairs(k[2]) do
        if not p[part] then fail(path, "%s has no counterpart (its '%s' is missing)", first, part) end
      end
      e.kind = kind
      e.rank = k[3](p)
    end
  end
  local one = kind == "lokr" and (p.k1 or p.k1_a and p.k1_b) and (p.k2 or p.k2_a and p.k2_b)
  if not kind or kind == "lokr" and not one then fail(path, "%s belongs to no complete adapter", first) end
  if e.param == "bias" and not e.layer.bias then
    fail(path, "%s changes the bias of %s.%s, which has none in this model", first, e.layer.component, e.layer.module)
  end
  local alpha = p.alpha and p.alpha.count == 1 and p.alpha:get(1)
  if p.alpha and (not alpha or alpha ~= alpha or math.abs(alpha) == math.huge) then
    fail(path, "the alpha of %s is not one finite number", first)
  end
  if not alpha and config and e.rank then alpha = peft.alpha(config, e.layer.module, e.rank, path) end
  scale_whole(e, config, path)
  e.alpha = e.rank and (alpha or e.rank)
  e.scale = e.rank and e.alpha / e.rank or 1
  e.alpha_dtype, p.alpha = e.rank and p.alpha and p.alpha.dtype, nil
end

-- PEFT's lora_bias: up has a bias, which is scaled as the product is. -> an adapter of the layer's bias
local function split_bias(e)
  local b = e.parts.up_b
  e.parts.up_b = nil
  return { layer = e.layer, param = "bias", kind = "diff", parts = { diff = b:affine(e.scale, 0, "f32") }, scale = 1,
    keys = { e.keys[1] }, spelt = e.spelt, style = e.style, base = e.base, path = e.path }
end

-- The layer that a key means, of those that share its name; certain: no other key of the adapter can say more.
local function choose(candidates, wanted, t, part)
  if #candidates == 1 then return candidates[1], true end
  for _, c in ipairs(candidates) do
    if c.layer.component == wanted then return c, true end
  end
  -- Two text encoders share bare names: the width tells them apart.
  for _, c in ipairs(candidates) do
    local s = t.shape
    if part == "down" and s[2] == c.layer.inputs or part == "up" and s[1] == c.layer.outputs then return c, true end
  end
  return candidates[1], false
end

-- Stops for keys that no adapter of the model takes; algorithms that cannot be applied are named.
local function complain(path, unknown, total, f)
  local n, by = #unknown, {}
  for _, key in ipairs(unknown) do
    local algorithm = keys.algorithm(key, #f:info(key).shape)
    if algorithm then fail(path, "it is an adapter of the kind %s, which cannot be applied to a model here (%s)",
      algorithm, key) end
    by[#by + 1] = #by < 5 and key or nil
  end
  if n == total then fail(path, "none of its %d tensors belongs to an adapter of this model: %s", total, by[1]) end
  fail(path, "%d of its %d tensors belong to no layer of this model: %s%s", n, total, table.concat(by, ", "),
    n > 5 and ", ..." or "")
end

local function matches(key, patterns)
  for _, pattern in ipairs(patterns) do if key:match(pattern) then return true end end
  return false
end

-- A tensor of a file; 8-bit floats as f16, which holds every one of them.
local function read_tensor(f, key, said)
  local t = f:read(key)
  if t.dtype ~= "f8_e4m3" and t.dtype ~= "f8_e5m2" then return t end
  said[#said + 1] = key
  return t:cast "f16"
end

-- The keys of a file that are parts of adapters: { { base, param, part, tail, key, tensor, candidates } ... }.
local function find_parts(f, path, index)
  local all, unknown, list, eights, of = f:names(), {}, {}, {}, nil
  for _, key in ipairs(all) do
    local base, part, tail, adapter = keys.split(key)
    local candidates = base and index[base]
    if candidates then
      if adapter and of and adapter ~= of then
        fail(path, "it holds several adapters, '%s' and '%s'; one a file can be read", of, adapter)
      end
      of = adapter or of
      list[#list + 1] = { base = base, part = keys.of_bias[part] or part, param = keys.of_bias[part] and "bias"
        or "weight", tail = tail, key = key, tensor = read_tensor(f, key, eights), candidates = candidates }
    elseif matches(key, keys.ignored) then
      core.log("warn", ("%s: %s is left out, as other programs do"):format(path, key))
    elseif base and matches(base, keys.unused) then
      core.log("warn", ("%s: %s is left out: the model's text encoder has no projection"):format(path, key))
    else
      unknown[#unknown + 1] = key
    end
  end
  if #unknown > 0 then complain(path, unknown, #all, f) end
  if #eights > 0 then
    core.log("info", ("%s: %d tensors of 8-bit floats are read as f16"):format(path, #eights))
  end
  return list
end

local function read_one(source, index, entries)
  local path = source.path
  local f = errors.guard("data", sums.load, path)
  local embedded, by, mine = peft.embedded(f, path), {}, {}
  for _, x in ipairs(find_parts(f, path, index)) do
    local id = x.base .. "\0" .. x.param
    local e = by[id]
    if not e then
      e = { parts = {}, keys = {}, spelt = {}, base = x.base, param = x.param, path = path }
      by[id], mine[#mine + 1] = e, e
    end
    if e.parts[x.part] then fail(path, "%s and another key say the same", x.key) end
    e.parts[x.part] = x.tensor
    e.keys[#e.keys + 1] = x.key
    e.spelt[#e.spelt + 1] = { part = x.part, form = keys.forms[x.tail] or "processor" }
    local candidate, certain = choose(x.candidates, source.component, x.tensor, x.part)
    if certain or not e.layer then e.layer, e.style = candidate.layer, candidate.style end
  end
  for _, e in ipairs(mine) do
    settle(e, path, source.config or embedded[e.layer.component])
    entries[#entries + 1] = e
    if e.parts.up_b then
      if not e.layer.bias then fail(path, "%s: its layer has no bias", e.keys[1]) end
      entries[#entries + 1] = split_bias(e)
    end
  end
  return f
end

-- path, index (keys.index) -> { adapters = { { layer, param, kind, parts, rank, alpha, scale, keys } ... }, metadata,
-- path }, in the order of keys. param: "weight", or "bias" of the layer. rank and alpha are nil of what has none. style
-- and spelt, { { part, form } ... }: how the layer and its parts are written (keys.lua). A tensor that belongs to no
-- adapter of the layers is an error.
function file.read(path, index)
  if not core.exists(path) then errors.raise("input", path .. ": there is no such LoRA") end
  local result = { path = path, adapters = {}, files = {}, metadata = {} }
  for _, source in ipairs(file.sources(path)) do
    local f = read_one(source, index, result.adapters)
    table.insert(result.files, f)
    for k, v in pairs(f:meta()) do result.metadata[k] = v end
  end
  if #result.adapters == 0 then fail(path, "it holds no tensors") end
  local seen = {}
  for _, e in ipairs(result.adapters) do
    local name = ("%s.%s.%s"):format(e.layer.component, e.layer.module, e.param)
    if seen[name] then fail(path, "%s and %s are the same layer", seen[name], e.keys[1]) end
    seen[name] = e.keys[1]
  end
  return result
end

-- adapter, the layer's weight in the file's layout -> what it adds at strength 1 (f32)
function file.delta(e, weight)
  local ok, result = pcall(delta, e, weight)
  if ok then return result end
  if type(result) == "table" and result.misfit then
    fail(e.path, "%s does not fit (%s) of %s.%s: %s", e.keys[1], table.concat(weight.shape, ", "), e.layer.component,
      e.layer.module, result.misfit)
  end
  error(result, 0)
end

-- loras: { { path =, scale = } ... } -> { reader(component, reader) -> a reader whose weights have all of them added,
-- each at its scale; touches(component, tensor name) }. DoRA changes the norm of the unmerged weight, whatever else is
-- added.
function file.merge(loras, model)
  local index, by_name = keys.index(model), {}
  for _, l in ipairs(loras) do
    local read = file.read(l.path, index)
    for _, e in ipairs(read.adapters) do
      local name = ("%s.%s.%s"):format(e.layer.component, e.layer.module, e.param)
      by_name[name] = by_name[name] or {}
      table.insert(by_name[name], { adapter = e, strength = l.scale or 1, file = read })
    end
  end
  local merged = {}
  function merged.touches(component, name) return by_name[component .. "." .. name] ~= nil end
  function merged.reader(component, reader)
    return function(name)
      local weight = reader(name)
      local list = weight and by_name[component .. "." .. name]
      if not list then return weight end
      local sum = weight
      for _, x in ipairs(list) do sum = core.add(sum, file.delta(x.adapter, weight), x.strength) end
      return sum
    end
  end
  return merged
end

-- loras -> what models.open takes as `patch`
function file.patch(loras)
  return loras and loras[1] and function(model) return file.merge(loras, model) end
end

return file
