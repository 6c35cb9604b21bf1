-- SPDX-License-Identifier: MIT
-- convert.lua - what LoRA files are for, and LoRA files in another layout.
local consumers = require "burin.adapters.consumers"
local core = require "burin.core"
local device = require "burin.graph.device"
local errors = require "burin.base.errors"
local file = require "burin.adapters.file"
local keys = require "burin.adapters.keys"
local metadata = require "burin.adapters.metadata"
local families = require "burin.models.families"
local models = require "burin.models.model"
local options = require "burin.base.options"
local save = require "burin.adapters.save"
local adapters = {}

local fail = errors.file

-- Whether a path is a LoRA: a file with adapters and without a network, or a folder as file.read takes it.
function adapters.is_lora(path)
  local kind = core.exists(path)
  if not kind then errors.raise("input", path .. ": there is no such file or folder") end
  if kind == "folder" then
    for _, name in ipairs { "pytorch_lora_weights", "adapter_model" } do
      if core.exists(("%s/%s.safetensors"):format(path, name)) then return true end
    end
    for _, part in ipairs { "unet", "text_encoder", "text_encoder_2" } do
      if core.exists(("%s/%s/adapter_model.safetensors"):format(path, part)) then return true end
    end
    return false
  end
  for _, key in ipairs(errors.guard("data", core.load, path):names()) do
    local _, part = keys.split(key)
    if part and not keys.weak[part] or keys.algorithm(key) then return true end
  end
  return false
end

-- The family whose published model has layers of this width: in cross-attention, or in the attention of its only text
-- encoder.
local function family_of_width(layer, width)
  for _, family in families.each() do
    local config = family.published and family.published()
    local text = config and #config.text == 1 and config.text[1].width
    if config and layer:match "attn2[._]to_[kv]$" and config.unet.context == width then return family end
    if text == width and layer:match "self_attn" then return family end
  end
end

-- The first family one of whose patterns (a field of `lora`) a key has.
local function family_of_keys(f, field)
  for _, key in ipairs(f:names()) do
    for _, family in families.each() do
      for _, pattern in ipairs(family.lora[field] or {}) do if key:match(pattern) then return family end end
    end
  end
end

-- The family that one file's keys say, else its shapes, else its metadata, else the one whose files have such keys most
-- often.
local function family_of(f)
  local certain = family_of_keys(f, "keys")
  if certain then return certain end
  for _, key in ipairs(f:names()) do
    local layer, part = keys.split(key)
    local told = part == "down" or part == "w1_b" or part == "diff"
    local family = told and family_of_width(layer, f:info(key).shape[2])
    if family then return family end
  end
  local version = f:meta().ss_base_model_version or ""
  for _, family in families.each() do
    if family.lora.version and version:match(family.lora.version) then return family end
  end
  return family_of_keys(f, "likely")
end

local function guess_family(path)
  for _, source in ipairs(file.sources(path)) do
    local family = family_of(errors.guard("data", core.load, source.path))
    if family then return family end
  end
  fail(path, "neither its shapes nor its metadata say which model it is for; give --base MODEL")
end

-- The model whose layers a LoRA names, traced on the null device: base, or the published one of its family.
function adapters.model(path, base)
  device.null()
  if base then return models.open(base) end
  local family = guess_family(path)
  if not family.published then fail(path, "it is for %s; give --base MODEL", family.label) end
  return models.new(families.published(family))
end

-- What a new file says, from an old one's metadata or from the model's family; save.lua adds what is of the file.
local function describe(model, adapters, old)
  local kinds, all = {}, {}
  for _, e in ipairs(adapters) do kinds[e.kind] = true end
  local module = (kinds.loha or kinds.lokr or kinds.diff) and "lycoris.kohya" or "networks.lora"
  for k, v in pairs(metadata.modelspec(model, {})) do all[k] = v end
  for k, v in pairs(metadata.network(model, { module = module })) do all[k] = v end
  for k, v in pairs(old or {}) do all[k] = v end
  return all
end

-- adapters -> a file or folder. o: to, dtype, metadata, sidecar; old: metadata to take over. readers: which programs
-- read how much of what was written (consumers.lua)
function adapters.write(output, adapters, model, o, old)
  local to = options.one_of("--to", o.to or (output:match "%.safetensors$" and "kohya" or "peft"), save.formats)
  if o.metadata then options.one_of("--metadata", o.metadata, metadata.profiles) end
  local n = save.write(output, adapters, { map = model.map, format = to, dtype = o.dtype, profile = o.metadata,
    sidecar = o.sidecar, metadata = describe(model, adapters, old) })
  local readers = consumers.count(file.read(output, keys.index(model)).adapters)
  return { what = model.family.name .. " LoRA", layout = to, tensors = n, layers = readers[1].of, readers = readers }
end

function adapters.convert(input, output, o)
  local model = adapters.model(input, o.base)
  local read = file.read(input, keys.index(model))
  return adapters.write(output, read.adapters, model, o, read.metadata)
end

return adapters
