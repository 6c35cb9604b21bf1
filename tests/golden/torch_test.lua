-- SPDX-License-Identifier: MIT
-- A PyTorch checkpoint is taken wherever a safetensors file is: the same weights in both, as base model and as LoRA.
-- Runs as `burin run --trust tests/golden/torch_test.lua` from the repository root.
local core = require "burin.core"
local nn = require "burin.nn"
local sd = require "burin.models.sd"

local passed, failed = 0, 0
local function check(ok, ...)
  if ok then passed = passed + 1 return end
  failed = failed + 1
  print("FAIL", ...)
end

-- ---- a writer of checkpoints, as torch.save lays them out ------------------------------------------------------------

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
    directory[i] = ("<c4I2I2I2I2I4I4I4I4I2I2I2I2I2I4I4"):pack("PK\1\2", 0, 0, 0, 0, 0, 0, #bytes, #bytes, #name, 0, 0, 0, 0,
      0, at) .. name
    at = at + #head + #bytes
  end
  local all = table.concat(directory)
  file:write(all, ("<c4I2I2I2I2I4I4I2"):pack("PK\5\6", 0, 0, #list, #list, #all, at, 0))
  file:close()
  return path
end

-- The same tensors as a checkpoint, read from the safetensors file by hand.
local function converted(from, to, wrapped)
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

-- ---- the same in both -------------------------------------------------------------------------------------------------

local folder = os.tmpname()
os.remove(folder)
assert(os.execute("mkdir " .. folder))

for _, name in ipairs { "tiny_sd1", "tiny_sdxl" } do
  local path, ckpt = "tests/golden/" .. name .. "/model_ldm.safetensors", folder .. "/" .. name .. ".ckpt"
  converted(path, ckpt, true)
  assert(os.execute(("cp tests/golden/%s/config.json %s"):format(name, folder)))
  local a, b, same = core.load(path), core.load(ckpt), 0
  check(b:meta().global_step == "470000", name, "metadata")
  for _, key in ipairs(a:names()) do
    local x, y = a:info(key), b:info(key)
    same = same + (y and x.dtype == y.dtype and table.concat(x.shape, ",") == table.concat(y.shape, ",")
      and a:read(key):bytes() == b:read(key):bytes() and 1 or 0)
  end
  check(same == #a:names() and same == #b:names() and same > 900, name, same .. " tensors are the same, of", #a:names())

  local plain, torch = sd.open(path), sd.open(ckpt)
  check(core.json_encode(plain.config) == core.json_encode(torch.config), name, "configuration")
  plain:declare()
  for _, component in ipairs(plain:components()) do
    local read_a, read_b, wrong = plain:reader(component.name), torch:reader(component.name), 0
    for _, e in ipairs(component.order) do
      local x, y = read_a(e.name), read_b(e.name)
      if not y or nn.to_device(e, x):distance(nn.to_device(e, y)) > 0 then wrong = wrong + 1 end
    end
    check(wrong == 0 and #component.order > 0, name, component.name, wrong .. " tensors differ")
  end

  local init = "tests/golden/" .. name .. "/lora_init.safetensors"
  if core.exists(init) then
    local lora = converted(init, folder .. "/" .. name .. "-lora.pt")
    local model = sd.open(ckpt, { loras = { { path = lora } } })
    check(#core.load(lora):names() == #core.load(init):names() and #model.loras == 1, name, "LoRA")
  end
end

os.execute("rm -r " .. folder)
print(("%d passed, %d failed"):format(passed, failed))
if failed > 0 then error "torch_test failed" end
