-- SPDX-License-Identifier: MIT
-- round_trip.lua - full-size checkpoints of random values, converted to a diffusers folder and back: every tensor must
-- have its bits again. Plain Lua, from the repository's root; 7 to 21 GB of disk and a minute to five each:
--   lua5.4 scripts/dev/round_trip.lua FOLDER [sd15 sd21 sdxl_base]
local folder = assert(arg[1], "a folder for the files is expected")
local models = arg[2] and { table.unpack(arg, 2) } or { "sd15", "sd21", "sdxl_base" }

local function run(line, ...) assert(os.execute(line:format(...)), line:format(...)) end

-- { [name] = { first byte, bytes, type and shape } } of a safetensors file of ours, and the file
local function open(path)
  local f = assert(io.open(path, "rb"))
  local n = string.unpack("<I8", f:read(8))
  local list = {}
  for name, entry in f:read(n):gmatch '"([^"]+)":(%b{})' do
    local first, past = entry:match '"data_offsets":%[(%d+),(%d+)%]'
    if first then
      list[name] = { at = 8 + n + first, bytes = past - first,
        kind = entry:match '"dtype":"%w+"' .. entry:match '"shape":%b[]' }
    end
  end
  return list, f
end

local function same_bits(f, a, g, b)
  f:seek("set", a.at)
  g:seek("set", b.at)
  for left = a.bytes, 1, -(1 << 22) do
    local n = math.min(left, 1 << 22)
    if f:read(n) ~= g:read(n) then return false end
  end
  return true
end

local function compare(one, other)
  local a, f = open(one)
  local b, g = open(other)
  local tensors, bytes, different = 0, 0, 0
  for name, x in pairs(a) do
    local y = b[name]
    tensors, bytes, b[name] = tensors + 1, bytes + x.bytes, nil
    if not (y and x.kind == y.kind and x.bytes == y.bytes and same_bits(f, x, g, y)) then
      different = different + 1
      print("differs: " .. name)
    end
  end
  for name in pairs(b) do
    different = different + 1
    print("one more: " .. name)
  end
  return tensors, bytes, different
end

local failed = 0
for _, model in ipairs(models) do
  local path = folder .. "/" .. model
  run("lua5.4 scripts/dev/random_checkpoint.lua %s %s.safetensors", model, path)
  run("build/release/burin convert %s.safetensors %s.folder --quiet", path, path)
  run("build/release/burin convert %s.folder %s.back.safetensors --quiet", path, path)
  local tensors, bytes, different = compare(path .. ".safetensors", path .. ".back.safetensors")
  print(("%s: %d tensors, %d bytes, %d differ"):format(model, tensors, bytes, different))
  run("rm -r %s.folder %s.safetensors %s.back.safetensors", path, path, path)
  failed = failed + different
end
os.exit(failed == 0)
