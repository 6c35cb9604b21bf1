-- SPDX-License-Identifier: MIT
-- weights.lua - safetensors files for tests, read and written in plain Lua, so that what a test feeds to the binary is
-- not made by the code under test.
local weights = {}

-- path -> { { name =, dtype =, shape = "16,3", data = } ... } in the order of the file, metadata as JSON text or nil
function weights.read(path)
  local file <close> = assert(io.open(path, "rb"))
  local text = file:read "a"
  local n = string.unpack("<I8", text)
  local header, list = text:sub(9, 8 + n), {}
  local meta = header:match '"__metadata__":%s*(%b{})'
  if meta then header = header:gsub('"__metadata__":%s*%b{}', "") end
  for name, dtype, shape, first, last in header:gmatch('"([^"]+)":%s*{"dtype":%s*"([%w_]+)",%s*'
    .. '"shape":%s*%[([%d, ]*)%],%s*"data_offsets":%s*%[(%d+),%s*(%d+)%]}') do
    list[#list + 1] = { name = name, dtype = dtype, shape = shape, data = text:sub(9 + n + first, 8 + n + last) }
  end
  return list, meta
end

function weights.write(path, list, meta)
  local header, data, at = { meta and '"__metadata__":' .. meta }, {}, 0
  for _, t in ipairs(list) do
    header[#header + 1] = ('"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}'):format(t.name, t.dtype, t.shape,
      at, at + #t.data)
    data[#data + 1], at = t.data, at + #t.data
  end
  local text = "{" .. table.concat(header, ",") .. "}"
  text = text .. (" "):rep(-#text % 8)
  local file <close> = assert(io.open(path, "wb"))
  file:write(("<I8"):pack(#text), text, table.concat(data))
end

-- Those that f returns: f(tensor) -> a tensor, nil to leave it out, or several in a list.
function weights.map(list, f)
  local out = {}
  for _, t in ipairs(list) do
    local new = f(t)
    for _, one in ipairs(new and (new.name and { new } or new) or {}) do out[#out + 1] = one end
  end
  return out
end

-- A copy of a tensor with other fields.
function weights.with(t, fields)
  return setmetatable(fields, { __index = t })
end

-- What 8 bits are, by the definition: exponent bits, mantissa bits, bias; "fn" has one NaN and no infinity.
function weights.eight(dtype)
  local mantissa, bias = dtype == "F8_E4M3" and 3 or 2, dtype == "F8_E4M3" and 7 or 15
  local values = {}
  for c = 0, 255 do
    local e, m = (c & 127) >> mantissa, (c & (1 << mantissa) - 1) / (1 << mantissa)
    local v = e == 0 and m * 2.0 ^ (1 - bias) or (1 + m) * 2.0 ^ (e - bias)
    if dtype == "F8_E4M3" and c & 127 == 127 then v = 0 / 0 end
    if dtype == "F8_E5M2" and e == 31 then v = m == 0 and math.huge or 0 / 0 end
    values[c] = c > 127 and -v or v
  end
  return values
end

-- Upper byte of an F16 -> the code of the nearest 8-bit float, cut to F8_E5M2 first.
local function nearest(dtype)
  local from, to, map = weights.eight "F8_E5M2", weights.eight(dtype), {}
  for c = 0, 255 do
    local best, away = 0, math.huge
    for k = 0, 255 do
      local d = math.abs(to[k] - from[c])
      if d < away then best, away = k, d end
    end
    map[string.char(c)] = string.char(best)
  end
  return map
end
local maps = { F8_E4M3 = nearest "F8_E4M3", F8_E5M2 = nearest "F8_E5M2" }

-- F16 data as 8-bit floats.
function weights.to_eight(data, dtype) return (data:gsub(".(.)", maps[dtype])) end

-- The bits of finite numbers as F16, exact ones only.
function weights.half(v)
  if v == 0 then return 1 / v < 0 and 0x8000 or 0 end
  local sign, a = v < 0 and 0x8000 or 0, math.abs(v)
  local e = math.max(-14, math.floor(math.log(a, 2)))
  if 2.0 ^ e > a and e > -14 then e = e - 1 end
  local m = math.tointeger(a / 2.0 ^ e * 1024)
  return sign | (m >= 1024 and (e + 15) << 10 | m - 1024 or m)
end

return weights
