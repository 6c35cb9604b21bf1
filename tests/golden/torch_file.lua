-- SPDX-License-Identifier: MIT
-- torch_file.lua - a writer of checkpoints, as torch.save lays them out. convert(from, to, wrapped) copies a
-- safetensors file, read by hand; wrapped: below "state_dict", as Lightning does.
local core = require "burin.core"

local storage = { f32 = "FloatStorage", f16 = "HalfStorage", bf16 = "BFloat16Storage", i64 = "LongStorage",
  i32 = "IntStorage" }
local size = { f32 = 4, f16 = 2, bf16 = 2, i64 = 8, i32 = 4 }

local function text(s) return ("<c1s4"):pack("X", s) end
local function int(i) return ("<c1i4"):pack("J", i) end
local function tuple(list) return "(" .. table.concat(list) .. "t" end

-- { name, dtype, shape, bytes } -> the opcodes that build it out of storage `key`
local function rebuild(t, key)
  local dims, strides, stride = {}, {}, 1
  for i = #t.shape, 1, -1 do
    dims[i], strides[i] = int(t.shape[i]), int(stride)
    stride = stride * t.shape[i]
  end
  local id = { text "storage", "ctorch\n" .. storage[t.dtype] .. "\n", text(tostring(key)), text "cpu",
    int(#t.bytes // size[t.dtype]) }
  return "ctorch._utils\n_rebuild_tensor_v2\n" .. tuple { tuple(id) .. "Q", int(0), tuple(dims), tuple(strides), "\x89",
    "ccollections\nOrderedDict\n)R" } .. "R"
end

local function members(tensors, wrapped)
  local list, items = {}, {}
  for key, t in ipairs(tensors) do
    list[key + 2] = { "archive/data/" .. key, t.bytes }
    items[key] = text(t.name) .. rebuild(t, key)
  end
  local dict = "}(" .. table.concat(items) .. "u"
  if wrapped then dict = "}(" .. text "state_dict" .. dict .. text "global_step" .. int(470000) .. "u" end
  list[1], list[2] = { "archive/data.pkl", "\x80\2" .. dict .. "." }, { "archive/byteorder", "little" }
  return list
end

-- The data of each entry begin at a multiple of 64. A checksum of 0 stands for none.
local function archive(path, list)
  local file, directory, at = assert(io.open(path, "wb")), {}, 0
  for i, m in ipairs(list) do
    local name, bytes = m[1], m[2]
    local pad = -(at + 34 + #name) % 64
    local head = ("<c4I2I2I2I4I4I4I4I2I2"):pack("PK\3\4", 0, 0, 0, 0, 0, #bytes, #bytes, #name, pad + 4) .. name
      .. ("<c2I2"):pack("FB", pad) .. ("Z"):rep(pad)
    file:write(head, bytes)
    directory[i] = ("<c4I2I2I2I2I4I4I4I4I2I2I2I2I2I4I4"):pack("PK\1\2", 0, 0, 0, 0, 0, 0, #bytes, #bytes, #name, 0, 0,
      0, 0, 0, at) .. name
    at = at + #head + #bytes
  end
  local all = table.concat(directory)
  file:write(all, ("<c4I2I2I2I2I4I4I2"):pack("PK\5\6", 0, 0, #list, #list, #all, at, 0))
  file:close()
  return path
end

local function convert(from, to, wrapped)
  local file <close> = assert(io.open(from, "rb"))
  local raw = file:read "a"
  local n = ("<I8"):unpack(raw)
  local list = {}
  for name, t in pairs(core.json_decode(raw:sub(9, 8 + n), from)) do
    if name ~= "__metadata__" then
      list[#list + 1] = { name = name, dtype = t.dtype:lower(), shape = t.shape,
        bytes = raw:sub(9 + n + t.data_offsets[1], 8 + n + t.data_offsets[2]) }
    end
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return archive(to, members(list, wrapped))
end

return { convert = convert }
