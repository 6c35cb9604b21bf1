-- SPDX-License-Identifier: MIT
-- lora.lua - a text as a LoRA file: each line is a type, dims and a key, "f16 2,24 lora_unet_conv_in.lora_down.weight".
-- It is refused with a sentence, or its adapters have the sizes of the layers they change, and can be written under
-- kohya's names and read again; anything else is a finding.
local consumers = require "burin.adapters.consumers"
local core = require "burin.core"
local device = require "burin.graph.device"
local embeddings = require "burin.text.embeddings"
local errors = require "burin.base.errors"
local file = require "burin.adapters.file"
local keys = require "burin.adapters.keys"
local models = require "burin.models.model"
local save = require "burin.adapters.save"

device.null()
local unet = { in_channels = 4, out_channels = 4, channels = { 8, 16 }, depth = { 0, 1 }, mid_depth = 1, layers = 1,
  groups = 4, heads = { 2, 4 }, context = 8 }
local text = { vocab = 64, tokens = 77, width = 8, layers = 1, heads = 2, mlp = 16, act = "gelu" }
local model = models.new { family = "sd1", unet = unet, text = { text } }
local index = keys.index(model)

local FLOATS = { f32 = "f32", f16 = "f16", bf16 = "bf16" }
local MOST = 1 << 12  -- elements of a tensor

-- The file that core.load gives, and its JSON.
local current
local function open(list, config)
  local names, by = {}, {}
  for i, one in ipairs(list) do names[i], by[one[1]] = one[1], one[2] end
  return { names = function() return names end,
    info = function(_, key) return { shape = by[key].shape, dtype = by[key].dtype } end,
    read = function(_, key) return by[key] end, close = function() end,
    meta = function() return { lora_adapter_metadata = config } end }
end
function core.load() return current end
function core.exists(path) return path == "f" and "file" or nil end
function core.log() end
function core.export(_, _, list) current = open(list) end

local function parse(bytes)
  local list, seen, config = {}, {}, bytes:match "^(%b{})\n"
  for line in bytes:gmatch "[^\n]+" do
    local dtype, dims, key = line:match "^(%w+) ([%d,]*) (.+)$"
    local shape, count = {}, 1
    for d in (dims or ""):gmatch "%d+" do
      shape[#shape + 1] = math.tointeger(tonumber(d)) or MOST
      count = count * math.min(shape[#shape], MOST)
    end
    if key and FLOATS[dtype] and count <= MOST and #shape <= 5 and not seen[key] then
      seen[key], list[#list + 1] = true, { key, core.tensor(shape, FLOATS[dtype], 0.25) }
    end
  end
  return list, config
end

local function weight_of(e)
  local l = e.layer
  if e.param == "bias" or l.kind == "norm" then return core.tensor({ l.outputs }, "f32", 0.5) end
  if l.kind == "conv" then return core.tensor({ l.outputs, l.inputs, l.kernel, l.kernel }, "f32", 0.5) end
  if l.kind == "conv1" then return core.tensor({ l.outputs, l.inputs, 1, 1 }, "f32", 0.5) end
  return core.tensor({ l.outputs, l.inputs }, "f32", 0.5)
end

-- f(...), or nil when it was refused with a sentence.
local function try(f, ...)
  local ok, result = pcall(f, ...)
  if ok then return result end
  if not (errors.is(result) and errors.code(result) == 65) then
    error(type(result) == "table" and result.message or result, 0)
  end
end

local function check_deltas(adapters)
  local fits = true
  for _, e in ipairs(adapters) do
    local weight = weight_of(e)
    local d = try(file.delta, e, weight)
    fits = fits and d ~= nil
    if d then
      assert(#d.shape == #weight.shape and d.count == weight.count and d.dtype == "f32")
      assert(e.scale == e.scale and (not e.rank or e.rank >= 1))
    end
  end
  return fits
end

local function check_counts(adapters)
  for _, row in ipairs(consumers.count(adapters)) do
    assert(row.of >= 1 and (row.loads == nil or row.loads >= 0 and row.loads <= row.of))
    assert(consumers.text(row))
  end
end

return function(bytes)
  local list, config = parse(bytes)
  for _, one in ipairs(list) do
    local base, part, tail = keys.split(one[1])
    assert(base == nil or type(part) == "string" and type(tail) == "string" and #base < #one[1])
  end
  current = open(list, config)
  local said = embeddings.describe(current, "f")
  assert(not said or said.vectors >= 0)
  local read = try(file.read, "f", index)
  if not read then return end
  local fits = check_deltas(read.adapters)
  check_counts(read.adapters)
  if not fits or not try(save.write, "g.safetensors", read.adapters, { map = model.map, profile = "none" }) then
    return
  end
  local again = file.read("f", index)
  assert(#again.adapters == #read.adapters, "kohya's names lost an adapter")
end
