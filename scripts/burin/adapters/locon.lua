-- SPDX-License-Identifier: MIT
-- locon.lua - LoRA that also adapts the U-Net's convolutions; see lora.lua.
local kinds = require "burin.base.kinds"
local lora = require "burin.adapters.lora"

return kinds.constructor("method", "locon", function(o)
  if type(o or {}) ~= "table" or kinds.of(o) then return lora(o) end  -- which says what is wrong
  local given = {}
  for k, v in pairs(o or {}) do given[k] = v end
  given.conv_rank = given.conv_rank or given.rank or 8
  given.conv_alpha = given.conv_alpha or given.alpha
  return lora(given)
end)
