-- SPDX-License-Identifier: MIT
-- nn.lua - what networks are written in: scopes name their layers, and a layer declares its weights (component.lua) and
-- gives its nodes. Activations are (N, H, W, C) or (B, N, C).
local class = require "burin.base.class"
local components = require "burin.graph.component"
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local nn = { component = components.new }

local Scope, new_scope = class "scope"
local Layer, new_layer_table = class "layer"

-- Whether x is a node of this shape and graph.
function nn.is_node(x, shape, graph)
  local kind, of = core.graph_type(x)
  return kind == "node" and of == graph and components.same_shape(x.shape, shape)
end

-- What a recipe gave instead of one.
function nn.describe(x, graph)
  local kind, of = core.graph_type(x)
  if kind == "closed node" then return "a node of an earlier trace" end
  return kinds.describe(x) .. (kind == "node" and of ~= graph and " of another trace" or "")
end

function components.methods:trace(graph)
  graph:label(self.name)
  return new_scope { component = self, graph = graph, path = "", group = "none" }
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
