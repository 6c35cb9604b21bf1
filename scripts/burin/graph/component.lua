-- SPDX-License-Identifier: MIT
-- component.lua - the named variables of one network: declared on first use while tracing (nn.lua), so that the model
-- file is the list of weights; first values, loading, export. Names and file layouts are those of diffusers:
--
--   kind     on the device         in a file
--   linear   (in, out)             (out, in)
--   conv1    (in, out)             (out, in, 1, 1)     a matrix product over channels
--   conv     (KH, KW, in, out)     (out, in, KH, KW)
--   vector, table                  the same
local class = require "burin.base.class"
local core = require "burin.core"
local components = {}

local Component, new_component = class "component"
components.methods = Component  -- nn.lua adds what traces

-- o: name, dtype of the variables, role ("weight" frozen, "param" trained), compute (type of
-- activations), int8 (frozen matrices and kernels take 8 bits and a scale per output).
function components.new(o)
  return new_component { name = o.name, dtype = o.dtype or "f32", role = o.role or "weight",
    compute = o.compute or "f32", int8 = o.int8, vars = {}, order = {}, adapters = {} }
end

local function count(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

local function file_shape(kind, s)
  if kind == "linear" then return { s[2], s[1] } end
  if kind == "conv1" then return { s[2], s[1], 1, 1 } end
  if kind == "conv" then return { s[4], s[3], s[1], s[2] } end
  return s
end

function components.same_shape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do if a[i] ~= b[i] then return false end end
  return true
end

-- Whether a variable is stored as 8 bits and a scale per output (burin_var_upload).
local function is_int8(self, kind, shape)
  if not self.int8 or self.role == "param" or kind == "vector" or kind == "table" then
    return false
  end
  local outputs = shape[#shape]
  return outputs % 4 == 0 and count(shape) // outputs % 4 == 0
end

-- The entry { name, var, kind, shape, init, fan_in, scale } of a variable, made on first use.
function Component:declare(name, kind, shape, init, fan_in)
  local e = self.vars[name]
  if e then
    if not components.same_shape(e.shape, shape) then
      error(("%s: %s is (%s) here and (%s) elsewhere"):format(self.name, name,
        table.concat(shape, ", "), table.concat(e.shape, ", ")), 2)
    end
    return e
  end
  local int8 = is_int8(self, kind, shape)
  local dtype = int8 and "i8" or self.role == "param" and "f32" or self.dtype
  local path = self.name .. "." .. name
  e = { name = name, kind = kind, shape = shape, init = init, fan_in = fan_in or shape[1],
    var = core.var(path, shape, dtype, self.role),
    scale = int8 and core.var(path .. ".scale", { shape[#shape] }, "f32", self.role) or nil }
  self.vars[name] = e
  self.order[#self.order + 1] = e
  return e
end

-- Whether the network is, or is to be, on the device.
function Component:is_declared() return #self.order > 0 and not self.absent end

-- Gives every variable its first value, each from a stream of its own name: adding a layer changes
-- no other.
function Component:init(seed)
  for _, e in ipairs(self.order) do
    local t = core.tensor(e.shape, "f32")
    local stream = tonumber("0x" .. core.hash(self.name .. "." .. e.name))
    local bound = 1 / math.sqrt(e.fan_in)
    if e.init == "kaiming" then t:fill_uniform(seed, stream, -bound, bound)
    elseif e.init == "ones" then t = core.tensor(e.shape, "f32", 1)
    elseif type(e.init) == "number" then t:fill_normal(seed, stream, e.init)
    elseif e.init ~= "zeros" then error("unknown initialisation '" .. tostring(e.init) .. "'") end
    e.var:write(t)
  end
end

-- A tensor in file layout to device layout. 1x1 convolutions and linear layers are taken for each
-- other.
function components.to_device(e, t)
  local s = file_shape(e.kind, e.shape)
  local have = t.shape
  if count(have) ~= count(s) then return nil end
  if e.kind == "linear" or e.kind == "conv1" then
    if have[1] ~= e.shape[2] or have[2] ~= e.shape[1] then return nil end
    return t:reshape { e.shape[2], e.shape[1] }:permute { 2, 1 }
  end
  if not components.same_shape(have, s) then return nil end
  return e.kind == "conv" and t:permute { 3, 4, 2, 1 } or t
end

-- The shape that an entry's tensor has in files.
function components.file_shape(e) return file_shape(e.kind, e.shape) end

function components.to_file(e, t)
  if e.kind == "linear" then return t:permute { 2, 1 } end
  if e.kind == "conv1" then return t:permute { 2, 1 }:reshape(file_shape(e.kind, e.shape)) end
  return e.kind == "conv" and t:permute { 4, 3, 1, 2 } or t
end

-- Whether a tensor of this shape is the variable's in file layout, as in components.to_device.
function components.fits(e, have)
  if e.kind == "linear" or e.kind == "conv1" then
    return count(have) == count(e.shape) and have[1] == e.shape[2] and have[2] == e.shape[1]
  end
  return components.same_shape(have, file_shape(e.kind, e.shape))
end

-- Fills a variable from a tensor in file layout, which is read once and in pieces.
local function upload(e, t)
  if e.kind == "vector" or e.kind == "table" then return e.var:write(t) end
  local s = e.shape
  local inputs, outputs = s[#s - 1], s[#s]
  e.var:upload(t, outputs, inputs, count(s) // (inputs * outputs), e.scale)
end

-- Takes the variables off the device, or lets them back to it: then they must be loaded again.
function Component:set_absent(absent)
  self.absent = absent
  for _, e in ipairs(self.order) do
    e.var:absent(absent)
    if e.scale then e.scale:absent(absent) end
  end
end

-- Uploads reader(name) -> tensor in file layout for every declared variable.
function Component:load(reader)
  local missing = {}
  for _, e in ipairs(self.order) do
    local t = reader(e.name)
    if not t then
      missing[#missing + 1] = e.name
    else
      if not components.fits(e, t.shape) then
        error(("%s: %s has shape (%s), expected (%s)"):format(self.name, e.name,
          table.concat(t.shape, ", "), table.concat(file_shape(e.kind, e.shape), ", ")), 0)
      end
      upload(e, t)
    end
  end
  if #missing > 0 then
    local n = #missing
    error(("%s: the file lacks %d of %d tensors: %s%s"):format(self.name, n, #self.order,
      table.concat(missing, ", ", 1, math.min(n, 8)), n > 8 and ", ..." or ""), 0)
  end
end

-- { { name, tensor in file layout } ... } in the order of declaration.
function Component:export(dtype)
  local list = {}
  for i, e in ipairs(self.order) do
    if e.scale then error(self.name .. " is on the device in 8 bits: save it from its file", 0) end
    list[i] = { e.name, components.to_file(e, e.var:read(dtype)) }
  end
  return list
end

-- The leaves of all variables in a graph, in the order of declaration.
function Component:leaves(graph)
  local list = {}
  for i, e in ipairs(self.order) do list[i] = graph:leaf(e.var) end
  return list
end

return components
