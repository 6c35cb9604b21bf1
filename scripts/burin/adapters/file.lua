-- SPDX-License-Identifier: MIT
-- file.lua - LoRA files in any known spelling, as a list of adapters of a model's layers. A path is a file, a folder
-- with pytorch_lora_weights.safetensors (diffusers), or one that PEFT wrote: adapter_model.safetensors beside
-- adapter_config.json, in it or in unet/, text_encoder/ and text_encoder_2/.
local core = require "burin.core"
local delta = require "burin.adapters.delta"
local errors = require "burin.base.errors"
local keys = require "burin.adapters.keys"
local file = {}

local fail = errors.file

-- { { path =, component = or nil, config = PEFT's or nil } ... }
function file.sources(path)
  local function peft(folder, component)
    local weights, config = folder .. "/adapter_model.safetensors", folder .. "/adapter_config.json"
    if not core.exists(weights) then return nil end
    local c = core.exists(config) and errors.guard("data", core.json_decode, core.read_file(config), config)
    if c and (type(c) ~= "table" or c.peft_type ~= "LORA" or c.fan_in_fan_out) then
      fail(config, "an adapter of the peft_type LORA, without fan_in_fan_out, is expected")
    end
    return { path = weights, component = component, config = c }
  end
  if core.exists(path) ~= "folder" then
    local folder = path:match "^(.*)/adapter_model%.safetensors$" or path == "adapter_model.safetensors" and "."
    return { folder and peft(folder) or { path = path } }
  end
  if core.exists(path .. "/pytorch_lora_weights.safetensors") then
    return { { path = path .. "/pytorch_lora_weights.safetensors" } }
  end
  local list = { peft(path) }
  for _, component in ipairs { "unet", "text_encoder", "text_encoder_2" } do
    list[#list + 1] = peft(path .. "/" .. component, component)
  end
  if #list == 0 then
    errors.raise("input", "%s: no LoRA in this folder (pytorch_lora_weights.safetensors, adapter_model.safetensors)",
      path)
  end
  return list
end

-- diffusers 0.34 and later keep PEFT's configuration of each component in the file: { unet = { r =, lora_alpha = ... }
-- }
local function embedded_configs(f, path)
  local text = f:meta().lora_adapter_metadata
  local all, list = text and errors.guard("data", core.json_decode, text, path) or {}, {}
  if type(all) ~= "table" then fail(path, "lora_adapter_metadata is no object") end
  for key, value in pairs(all) do
    local component, field = tostring(key):match "^([%w_]+)%.([%w_]+)$"
    if component then
      list[component] = list[component] or {}
      list[component][field] = value
    end
  end
  return list
end

-- PEFT's alpha of a module: a pattern's when it names the module or its end, else the general one.
local function peft_alpha(config, module, rank, path)
  local alpha, patterns = config.lora_alpha or rank, config.alpha_pattern or {}
  if type(patterns) ~= "table" then fail(path, "alpha_pattern is no object") end
  for pattern, value in pairs(patterns) do
    if type(pattern) ~= "string" or not pattern:match "^[%w_.]+$" then
      fail(path, "alpha_pattern '%s': a module's name is expected; regular expressions are not supported", pattern)
    end
    if module == pattern or module:sub(-#pattern - 1) == "." .. pattern then alpha = value end
  end
  if type(alpha) ~= "number" then fail(path, "lora_alpha of %s is not a number", module) end
  return config.use_rslora and alpha * math.sqrt(rank) or alpha
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
}
local marks = { down = "lora", up = "lora", w1_a = "loha", w1_b = "loha", w2_a = "loha", w2_b = "loha", k1 = "lokr",
  k1_a = "lokr", k2 = "lokr", k2_a = "lokr", diff = "diff" }

-- Turns the keys of one layer into an adapter: kind, parts, rank, alpha, scale.
local function settle(e, path, config)
  local p, kind, first = e.parts, nil, e.keys[1]
  for part, t in pairs(p) do
    if marks[part] and kind and marks[part] ~= kind then fail(path, "%s: one layer has parts of two kinds, %s and %s",
      first, kind, marks[part]) end
    kind = marks[part] or kind
    local vector = part == "alpha" or part == "dora" or part == "magnitude"
    if not vector and (#t.shape < 2 or #t.shape > 4 or t.count == 0) then
      fail(path, "%s: a tensor of the shape (%s) is no part of an adapter", first, table.concat(t.shape, ", "))
    end
  end
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
  local alpha = p.alpha and p.alpha.count == 1 and p.alpha:get(1)
  if p.alpha and (not alpha or alpha ~= alpha or math.abs(alpha) == math.huge) then
    fail(path, "the alpha of %s is not one finite number", first)
  end
  if not alpha and config and e.rank then alpha = peft_alpha(config, e.layer.module, e.rank, path) end
  e.alpha = alpha or e.rank
  e.scale = e.rank and e.alpha / e.rank or 1
  e.alpha_dtype, p.alpha = p.alpha and p.alpha.dtype, nil
end

local function component_of(candidates, wanted, t, part)
  if #candidates == 1 then return candidates[1] end
  for _, layer in ipairs(candidates) do
    if layer.component == wanted then return layer end
  end
  -- Two text encoders share bare names: the width tells them apart.
  for _, layer in ipairs(candidates) do
    local s = t.shape
    if part == "down" and s[2] == layer.inputs or part == "up" and s[1] == layer.outputs then return layer end
  end
  return candidates[1]
end

local function complain(path, unknown, total)
  local first, why = unknown[1], ""
  for tail, what in pairs(keys.unsupported) do
    if first:sub(-#tail) == tail then why = (" (%s is not supported)"):format(what) end
  end
  local n = #unknown
  if n == total then fail(path, "none of its %d tensors belongs to an adapter of this model: %s%s", total, first,
    why) end
  fail(path, "%d of its %d tensors belong to no layer of this model: %s%s%s", n, total,
    table.concat(unknown, ", ", 1, math.min(n, 5)), n > 5 and ", ..." or "", why)
end

local function read_one(source, index, entries)
  local f = errors.guard("data", core.load, source.path)
  local all, unknown, pending = f:names(), {}, {}
  local embedded = embedded_configs(f, source.path)
  for _, key in ipairs(all) do
    local base, part = keys.split(key)
    local candidates = base and index[base]
    local ignored = false
    for _, pattern in ipairs(keys.ignored) do ignored = ignored or key:match(pattern) end
    if candidates then
      local t = f:read(key)
      table.insert(pending, { base = base, part = part, key = key, tensor = t, candidates = candidates })
    elseif ignored then
      core.log("warn", ("%s: %s is left out, as other programs do"):format(source.path, key))
    else
      unknown[#unknown + 1] = key
    end
  end
  if #unknown > 0 then complain(source.path, unknown, #all) end
  local by_base = {}
  for _, x in ipairs(pending) do
    local e = by_base[x.base]
    if not e then
      e = { parts = {}, keys = {}, base = x.base, path = source.path }
      by_base[x.base] = e
      entries[#entries + 1] = e
    end
    if e.parts[x.part] then fail(source.path, "%s and another key say the same", x.key) end
    e.parts[x.part] = x.tensor
    e.keys[#e.keys + 1] = x.key
    if #x.candidates == 1 or x.part == "down" or x.part == "up" then
      e.layer = component_of(x.candidates, source.component, x.tensor, x.part)
    end
    e.layer = e.layer or x.candidates[1]
  end
  for _, e in pairs(by_base) do settle(e, source.path, source.config or embedded[e.layer.component]) end
  return f
end

-- path, index (keys.index) -> { adapters = { { layer, kind, parts, rank, alpha, scale, keys } ... }, metadata, path },
-- in the order of keys. A tensor that belongs to no adapter of the layers is an error.
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
    local name = e.layer.component .. "." .. e.layer.module
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
      local name = e.layer.component .. "." .. e.layer.module .. ".weight"
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
