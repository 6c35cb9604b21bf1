-- SPDX-License-Identifier: MIT
-- nn.lua - components and scopes. A component is the named variables of one network; they are
-- declared on first use while tracing, so the model file is the list of weights. Names and file
-- layouts are those of diffusers:
--
--   kind     on the device         in a file
--   linear   (in, out)             (out, in)
--   conv1    (in, out)             (out, in, 1, 1)     a matrix product over channels
--   conv     (KH, KW, in, out)     (out, in, KH, KW)
--   vector, table                  the same
--
-- Activations are (N, H, W, C) or (B, N, C).
local class = require "burin.base.class"
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local nn = {}

local Component, new_component = class "component"
local Scope, new_scope = class "scope"
local Layer, new_layer_table = class "layer"

-- o: name, dtype of the variables, role ("weight" frozen, "param" trained), compute (type of
-- activations), int8 (frozen matrices and kernels take 8 bits and a scale per output).
function nn.component(o)
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

local function same_shape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do if a[i] ~= b[i] then return false end end
  return true
end

-- Whether x is a node of this shape and graph.
function nn.is_node(x, shape, graph)
  local kind, of = core.graph_type(x)
  return kind == "node" and of == graph and same_shape(x.shape, shape)
end

-- What a recipe gave instead of one.
function nn.describe(x, graph)
  local kind, of = core.graph_type(x)
  if kind == "closed node" then return "a node of an earlier trace" end
  return kinds.describe(x) .. (kind == "node" and of ~= graph and " of another trace" or "")
end

-- Whether a variable is stored as 8 bits and a scale per output (burin_var_upload).
local function is_int8(component, kind, shape)
  if not component.int8 or component.role == "param" or kind == "vector" or kind == "table" then
    return false
  end
  local outputs = shape[#shape]
  return outputs % 4 == 0 and count(shape) // outputs % 4 == 0
end

-- The entry { name, var, kind, shape, init, fan_in, scale } of a variable, made on first use.
function Component:declare(name, kind, shape, init, fan_in)
  local e = self.vars[name]
  if e then
    if not same_shape(e.shape, shape) then
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

function Component:trace(graph)
  graph:label(self.name)
  return new_scope { component = self, graph = graph, path = "", group = "none" }
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
function nn.to_device(e, t)
  local s = file_shape(e.kind, e.shape)
  local have = t.shape
  if count(have) ~= count(s) then return nil end
  if e.kind == "linear" or e.kind == "conv1" then
    if have[1] ~= e.shape[2] or have[2] ~= e.shape[1] then return nil end
    return t:reshape { e.shape[2], e.shape[1] }:permute { 2, 1 }
  end
  if not same_shape(have, s) then return nil end
  return e.kind == "conv" and t:permute { 3, 4, 2, 1 } or t
end

-- The shape that an entry's tensor has in files.
function nn.file_shape(e) return file_shape(e.kind, e.shape) end

function nn.to_file(e, t)
  if e.kind == "linear" then return t:permute { 2, 1 } end
  if e.kind == "conv1" then return t:permute { 2, 1 }:reshape(file_shape(e.kind, e.shape)) end
  return e.kind == "conv" and t:permute { 4, 3, 1, 2 } or t
end

-- Whether a tensor of this shape is the variable's in file layout, as in nn.to_device.
function nn.fits(e, have)
  if e.kind == "linear" or e.kind == "conv1" then
    return count(have) == count(e.shape) and have[1] == e.shape[2] and have[2] == e.shape[1]
  end
  return same_shape(have, file_shape(e.kind, e.shape))
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
      if not nn.fits(e, t.shape) then
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
    list[i] = { e.name, nn.to_file(e, e.var:read(dtype)) }
  end
  return list
end

-- The leaves of all variables in a graph, in the order of declaration.
function Component:leaves(graph)
  local list = {}
  for i, e in ipairs(self.order) do list[i] = graph:leaf(e.var) end
  return list
end

-- ---- scopes -------------------------------------------------------------------------------------

-- Nodes belong to the layer that makes them, those between two layers to the scope that was entered last or whose
-- layer came last: what is said when one of them goes wrong.
local function label(scope, name)
  local path = name and (scope.path == "" and name or scope.path .. "." .. name) or scope.path
  scope.graph:label(path == "" and scope.component.name or scope.component.name .. "." .. path)
end

-- scope:at("resnets", 0) -> the child "resnets.0"
function Scope:at(...)
  local path = self.path == "" and "" or self.path .. "."
  local child = new_scope { component = self.component, graph = self.graph, group = self.group,
    path = path .. table.concat({ ... }, ".") }
  label(child)
  return child
end

-- The same scope whose layers belong to another group; methods choose their targets by it.
function Scope:in_group(group)
  return new_scope { component = self.component, graph = self.graph, group = group,
    path = self.path }
end

local function join(scope, name) return scope.path == "" and name or scope.path .. "." .. name end

-- Keeps a value under the scope's path when component.marks is a table; for checks of single
-- blocks.
function Scope:mark(x, name)
  local marks = self.component.marks
  if marks then marks[name and join(self, name) or self.path] = x end
  return x
end

-- Runs f(...) so that its inner values are recomputed in the backward pass, when the configuration
-- asks for it.
function Scope:region(on, f, ...)
  if on then return self.graph:checkpoint(f, ...) end
  return f(...)
end

-- kind: "vector" or "table"; init: "zeros", "ones", "kaiming" or the standard deviation of a normal
-- distribution.
function Scope:param(name, shape, kind, init)
  kind = kind or (#shape == 1 and "vector" or "table")
  local e = self.component:declare(join(self, name), kind, shape, init or 0.02)
  return self.graph:leaf(e.var)
end

local function new_layer(scope, name, kind, inputs, outputs)
  return new_layer_table { name = join(scope, name), component = scope.component.name, kind = kind,
    inputs = inputs, outputs = outputs, kernel = 1, stride = 1, pad = { 0, 0, 0, 0 },
    group = scope.group, graph = scope.graph, kinds = {}, names = {} }
end

local function bias_and_adapters(scope, name, layer, x, y, bias, fan_in)
  if bias ~= false then
    local path = join(scope, name) .. ".bias"
    local e = scope.component:declare(path, "vector", { layer.outputs }, "kaiming", fan_in)
    y = y + scope.graph:leaf(e.var)
  end
  for _, adapter in ipairs(scope.component.adapters) do y = adapter:apply(layer, x, y) end
  label(scope)
  return y
end

-- The product with an 8-bit weight still lacks the scale of each output.
local function scaled(scope, e, y)
  return e.scale and y * scope.graph:leaf(e.scale) or y
end

-- o: bias (true)
function Scope:linear(x, name, out, o)
  local shape = x.shape
  local inputs = shape[#shape]
  local layer = new_layer(self, name, "linear", inputs, out)
  label(self, name)
  local e = self.component:declare(layer.name .. ".weight", "linear", { inputs, out }, "kaiming")
  local y = scaled(self, e, x:matmul(self.graph:leaf(e.var)))
  return bias_and_adapters(self, name, layer, x, y, o and o.bias, inputs)
end

-- o: kernel (3), stride (1), pad (kernel // 2, or { top, left, bottom, right }), bias (true)
function Scope:conv(x, name, out, o)
  o = o or {}
  local shape = x.shape
  local inputs, k = shape[#shape], o.kernel or 3
  local layer = new_layer(self, name, "conv", inputs, out)
  label(self, name)
  local p = o.pad or k // 2
  layer.kernel, layer.stride = k, o.stride or 1
  layer.pad = type(p) == "table" and p or { p, p, p, p }
  local kind, dims = "conv", { k, k, inputs, out }
  if k == 1 then kind, dims = "conv1", { inputs, out } end
  local e = self.component:declare(layer.name .. ".weight", kind, dims, "kaiming", k * k * inputs)
  local y = scaled(self, e, layer:product(self.graph:leaf(e.var), e.kind, x))
  return bias_and_adapters(self, name, layer, x, y, o.bias, k * k * inputs)
end

local function affine(scope, name, width)
  local path = join(scope, name)
  local gamma = scope.component:declare(path .. ".weight", "vector", { width }, "ones")
  local beta = scope.component:declare(path .. ".bias", "vector", { width }, "zeros")
  return scope.graph:leaf(gamma.var), scope.graph:leaf(beta.var)
end

-- make() gives the nodes of a layer without adapters.
local function labelled(scope, name, make)
  label(scope, name)
  local y = make()
  label(scope)
  return y
end

function Scope:group_norm(x, name, o)
  local shape = x.shape
  local gamma, beta = affine(self, name, shape[#shape])
  return labelled(self, name, function() return x:group_norm(gamma, beta, { groups = o.groups, eps = o.eps }) end)
end

function Scope:layer_norm(x, name, o)
  local shape = x.shape
  local gamma, beta = affine(self, name, shape[#shape])
  return labelled(self, name, function() return x:layer_norm(gamma, beta, { eps = o and o.eps or 1e-5 }) end)
end

-- ids (..) -> (.., width) in the component's compute type
function Scope:embedding(ids, name, rows, width)
  local rows_of = self:param(name .. ".weight", { rows, width }, "table", 0.02)
  return labelled(self, name, function() return self:cast(rows_of:embedding(ids)) end)
end

-- Brings an input to the component's compute type.
function Scope:cast(x)
  if x.dtype == self.component.compute then return x end
  return x:cast(self.component.compute)
end

-- ---- layers, as methods see them ----------------------------------------------------------------

function Layer:product(weight, kind, x)
  if kind ~= "conv" then return x:matmul(weight) end
  local p = self.pad
  return x:conv2d(weight, { stride = self.stride, top = p[1], left = p[2], bottom = p[3],
    right = p[4] })
end

-- A variable of the adapter that is being applied: { outputs, inputs } a matrix, { n } a vector.
-- For a convolution o.kernel takes the layer's kernel, stride and padding; without it the variable
-- is a 1x1 convolution.
function Layer:param(name, dims, init, o)
  local kind, shape, fan_in = "vector", dims, dims[1]
  if #dims == 2 then
    local k = o and o.kernel and self.kernel or 1
    kind = self.kind == "linear" and "linear" or k == 1 and "conv1" or "conv"
    shape = kind == "conv" and { k, k, dims[2], dims[1] } or { dims[2], dims[1] }
    fan_in = k * k * dims[2]
  end
  local owner = self.adapter.component
  local path = ("%s.%s.%s"):format(self.component, self.name, name)
  local e = owner:declare(path, kind, shape, init, fan_in)
  e.param = name  -- without the graph, which must not outlive its trace
  e.layer = { component = self.component, name = self.name, kind = self.kind, kernel = self.kernel,
    group = self.group }
  local node = self.graph:leaf(e.var)
  self.kinds[node], self.names[node] = kind, name
  return node
end

-- The product of a variable made by layer:param with x.
function Layer:apply(node, x)
  local kind = self.kinds[node] or error("layer:apply takes what layer:param returned", 2)
  local path = self.component .. "." .. self.name
  self.graph:label(path .. "." .. self.names[node])
  local y = self:product(node, kind, x)
  self.graph:label(path)
  return y
end

return nn
