-- SPDX-License-Identifier: MIT
-- random_checkpoint.lua - Stable Diffusion checkpoints without real weights: exactly the tensors, shapes and types of
-- the published files (tests/data/keys_*.tsv), fp16, with random values under which activations stay finite. For
-- tests at full size; plain Lua, from the repository's root:
--   lua5.4 scripts/dev/random_checkpoint.lua sd15|sd21|sdxl_base OUT [--layout single|diffusers]
--     [--tensors N] [--sparse] [--seed N]
-- --tensors: leaves out what many fine-tunes lack: 1131 (sd15 without schedules and EMA scalars), 1130 (nor position
-- ids). --sparse: zeros that take no disk, for what looks at names and shapes only.

-- Rows of a key list: single-file name, component, diffusers name, how one becomes the other, shape, type.
local function rows(path)
  local list = {}
  for line in assert(io.open(path)):lines() do
    local row = {}
    for field in (line .. "\t"):gmatch "([^\t]*)\t" do row[#row + 1] = field end
    local shape = {}
    for d in row[5]:gmatch "%d+" do shape[#shape + 1] = math.tointeger(d) end
    list[#list + 1] = { file = row[1], component = row[2], name = row[3], op = row[4], shape = shape,
      dtype = row[6] or "F16" }
  end
  return list
end

-- A model's tensors in the single-file layout: { name =, shape =, dtype = }.
local function single(list)
  local out, seen = {}, {}
  for _, row in ipairs(list) do
    if not seen[row.file] then out[#out + 1] = { name = row.file, shape = row.shape, dtype = row.dtype } end
    seen[row.file] = true
  end
  return out
end

-- The same in the layout of diffusers: component -> tensors.
local function folder(list)
  local out = {}
  for _, row in ipairs(list) do
    if row.component ~= "-" then
      local s = { table.unpack(row.shape) }
      if row.op:find "^slice" then s[1] = s[1] // 3 end
      if row.op:find "^squeeze" then s[3], s[4] = nil, nil end
      if row.op:find "^transpose" then s[1], s[2] = s[2], s[1] end
      out[row.component] = out[row.component] or {}
      table.insert(out[row.component], { name = row.name, shape = s, dtype = row.dtype })
    end
  end
  return out
end

local sizes = { F16 = 2, I32 = 4, I64 = 8 }

local function count(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

-- Random halves of one binary exponent and the one below it, both signs: 2^e times a number of deviation about 1.
local blocks, BLOCK = {}, 1 << 16
local function block(e, k)
  local key = e * 16 + k
  if blocks[key] then return blocks[key] end
  local words = {}
  for i = 1, BLOCK do
    local r = math.random(0)
    words[i] = ((r & 1) << 15) | (math.max(1, 15 + e - (r >> 1 & 1)) << 10) | (r >> 2 & 1023)
  end
  local parts = {}
  for i = 1, BLOCK, 128 do parts[#parts + 1] = ("<" .. ("I2"):rep(128)):pack(table.unpack(words, i, i + 127)) end
  blocks[key] = table.concat(parts)
  return blocks[key]
end

-- Norms stay near the identity; a matrix has the deviation that keeps a signal's size, the last of a residual branch
-- a quarter of it, so that the sum over all branches stays small.
local function exponent(t)
  local s, name = t.shape, t.name
  if #s < 2 then return -6 end
  if name:find "embedding" and not name:find "linear" then return -5 end
  local last = name:find "to_out" or name:find "out_proj" or name:find "ff%.net%.2" or name:find "out_layers"
    or name:find "conv2" or name:find "proj_out" or name:find "c_proj" or name:find "fc2"
  return math.floor(math.log(count(s) / s[1], 2) * -0.5) - (last and 2 or 0)
end

local function write_values(file, t)
  local n = count(t.shape)
  if t.dtype ~= "F16" then
    for i = 0, n - 1 do file:write((t.dtype == "I64" and "<i8" or "<i4"):pack(i)) end
  elseif #t.shape == 1 and t.name:find "weight$" then
    file:write(("<I2"):pack(0x3c00):rep(n))  -- 1
  else
    local e = exponent(t)
    while n > 0 do
      local take = math.min(n, BLOCK)
      file:write(block(e, math.random(0, 7)):sub(1, 2 * take))
      n = n - take
    end
  end
end

local function write(path, tensors, sparse)
  table.sort(tensors, function(a, b)  -- wide types first, so that all are aligned
    if a.dtype ~= b.dtype then return sizes[a.dtype] > sizes[b.dtype] end
    return a.name < b.name
  end)
  local header, at = { '"__metadata__":{"format":"pt"}' }, 0
  for _, t in ipairs(tensors) do
    local bytes = count(t.shape) * sizes[t.dtype]
    header[#header + 1] = ('"%s":{"dtype":"%s","shape":[%s],"data_offsets":[%d,%d]}'):format(t.name, t.dtype,
      table.concat(t.shape, ","), at, at + bytes)
    at = at + bytes
  end
  local text = "{" .. table.concat(header, ",") .. "}"
  text = text .. (" "):rep(-#text % 8)
  local file <close> = assert(io.open(path, "wb"))
  file:write(("<I8"):pack(#text), text)
  if sparse then
    file:seek("cur", at - 1)
    file:write "\0"
  else
    for _, t in ipairs(tensors) do write_values(file, t) end
  end
end

local function write_text(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end

local arg, o = { ... }, { layout = "single", seed = 1 }
local model, out = arg[1], arg[2]
assert(model and out, "usage: random_checkpoint.lua sd15|sd21|sdxl_base OUT [options]")
local i = 3
while arg[i] do
  local name = arg[i]:match "^%-%-(%a+)$" or error("unknown argument " .. arg[i])
  if name == "sparse" then o.sparse = true else i = i + 1 o[name] = arg[i] end
  i = i + 1
end
math.randomseed(math.tointeger(o.seed))
local list = rows("tests/data/keys_" .. model .. ".tsv")

if o.layout == "single" then
  local tensors, wanted = single(list), math.tointeger(o.tensors)
  local function drop(pattern)
    for k = #tensors, 1, -1 do
      if tensors[k].name:find(pattern) then table.remove(tensors, k) end
    end
  end
  if wanted and wanted < #tensors then
    drop "^[%w_]+$"      -- schedules
    drop "^model_ema%."
  end
  if wanted and wanted < #tensors then drop "position_ids$" end
  assert(not wanted or wanted == #tensors, "there are " .. #tensors .. " tensors")
  write(out, tensors, o.sparse)
else
  for component, tensors in pairs(folder(list)) do
    local name = component:find "^text" and "model" or "diffusion_pytorch_model"
    assert(os.execute(("mkdir -p '%s/%s'"):format(out, component)))
    write(("%s/%s/%s.safetensors"):format(out, component, name), tensors, o.sparse)
  end
  local v = model == "sd21" and "v_prediction" or "epsilon"
  assert(os.execute(("mkdir -p '%s/scheduler'"):format(out)))
  write_text(out .. "/scheduler/scheduler_config.json", ('{ "prediction_type": "%s" }\n'):format(v))
end
