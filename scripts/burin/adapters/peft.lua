-- SPDX-License-Identifier: MIT
-- peft.lua - what PEFT's configurations say of adapters: which kinds of them can be applied, ranks and alphas.
-- Source: Hugging Face peft 0.21, tuners/{lora,loha,lokr}/config.py and layer.py, utils/other.py.
local core = require "burin.core"
local errors = require "burin.base.errors"
local peft = {}

local fail = errors.file
local types = { LORA = "lora_alpha", LOHA = "alpha", LOKR = "alpha" }  -- and the field that holds alpha

-- Reads adapter_config.json; nil when there is none.
function peft.read(path)
  local c = core.exists(path) and errors.guard("data", core.json_decode, core.read_file(path), path)
  if not c then return nil end
  local kind = type(c) == "table" and c.peft_type
  if type(kind) ~= "string" then fail(path, "peft_type is missing: this is no configuration of an adapter") end
  if not types[kind] then
    fail(path, "its peft_type %s cannot be applied to a model here; LORA, LOHA and LOKR can", kind:sub(1, 40))
  end
  if c.fan_in_fan_out then fail(path, "fan_in_fan_out is not supported: no layer here has its weight that way") end
  return c
end

-- diffusers 0.34 and later keep PEFT's configuration of each component in the file: { unet = { r =, lora_alpha = ... }
-- }
function peft.embedded(f, path)
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

-- A module's value: a pattern's when it names the module or its end, else the general one.
local function value_of(config, field, patterns_field, module, default, path)
  local value, patterns = config[field] or default, config[patterns_field] or {}
  if type(patterns) ~= "table" then fail(path, "%s is no object", patterns_field) end
  for pattern, own in pairs(patterns) do
    if type(pattern) ~= "string" or not pattern:match "^[%w_.]+$" then
      fail(path, "%s '%s': a module's name is expected; regular expressions are not supported", patterns_field, pattern)
    end
    if module == pattern or module:sub(-#pattern - 1) == "." .. pattern then value = own end
  end
  if type(value) ~= "number" then fail(path, "%s of %s is not a number", field, module) end
  return value
end

-- The alpha of a module, whose adapter has this rank.
function peft.alpha(config, module, rank, path)
  local alpha = value_of(config, types[config.peft_type or "LORA"] or "lora_alpha", "alpha_pattern", module, rank, path)
  return config.use_rslora and alpha * math.sqrt(rank) or alpha
end

-- The rank of a module, where the adapter's tensors do not tell.
function peft.rank(config, module, path)
  local rank = value_of(config, "r", "rank_pattern", module, 8, path)
  if not (rank >= 1 and rank < math.huge) then fail(path, "r of %s is %g, but a rank is expected", module, rank) end
  return rank
end

return peft
