-- SPDX-License-Identifier: MIT
-- locon.lua - LoRA that also adapts the U-Net's convolutions; see lora.lua.
local method = require "burin.adapters.method"
local lora = require "burin.adapters.lora"

return method.constructor(function(o)
  local given = {}
  for k, v in pairs(o or {}) do given[k] = v end
  given.conv_rank = given.conv_rank or given.rank or 8
  given.conv_alpha = given.conv_alpha or given.alpha
  return lora(given)
end)
