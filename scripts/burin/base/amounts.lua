-- SPDX-License-Identifier: MIT
-- amounts.lua - amounts of memory as people write them.
local amounts = {}

local units = { b = 1, kb = 1e3, mb = 1e6, gb = 1e9, kib = 1 << 10, mib = 1 << 20, gib = 1 << 30 }

-- "3 GiB", "3000MB" -> bytes; nil for what is no amount
function amounts.parse(text)
  local number, unit = tostring(text):match "^%s*([%d.]+)%s*(%a+)%s*$"
  local factor = unit and units[unit:lower()]
  local bytes = factor and tonumber(number) and tonumber(number) * factor
  return bytes and bytes >= 1 and bytes < 2 ^ 62 and math.floor(bytes) or nil
end

-- bytes -> "1.50 MiB"
function amounts.text(bytes)
  local names, i = { "B", "KiB", "MiB", "GiB" }, 1
  while bytes >= 1024 and i < #names do bytes, i = bytes / 1024, i + 1 end
  return i == 1 and ("%d B"):format(bytes) or ("%.2f %s"):format(bytes, names[i])
end

return amounts
