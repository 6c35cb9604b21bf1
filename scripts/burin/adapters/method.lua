-- SPDX-License-Identifier: MIT
-- method.lua - what is trained, and how it changes a layer. A method is a table:
--
--   name, options   defaults { rank = 8 }, or rules { rank = { "integer", default = 8, min = 1 } }
--   targets         function(o, layer) -> true for layers that it adapts (optional: all layers)
--   params          function(o, layer) -> { name = layer:param(name, { outputs, inputs }, init) }
--   forward         function(o, layer, p, x, y) -> the new output; y is the layer's own
--   alpha           function(o, layer) -> number kept beside the parameters in files (optional)
--   settle          function(o) that fills options which follow from others (optional)
--   kind            "lora": parameters are lora_down and lora_up, and files can have every LoRA layout (optional)
--   whole           true: nothing is added, the layers' own variables are trained
--
-- method.define returns its constructor: lora { rank = 16 } -> a description, which nothing changes. What a training
-- changes is an instance of it, which model:adapt makes.
local class = require "burin.base.class"
local components = require "burin.graph.component"
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local metadata = require "burin.adapters.metadata"
local nn = require "burin.graph.nn"
local options = require "burin.base.options"
local place = require "burin.base.place"
local sums = require "burin.base.sums"

local Instance, new_instance = class("method", {
  "name", "definition", "options", "whole",
  "place",       -- what a recipe's mistake in it is said of
  "component",   -- the parameters that it adds
  "components",  -- those that are trained whole
  "groups",      -- name of a component -> parameter group of the optimizer
})

local function schema(defaults)
  local rules = {}
  for name, v in pairs(defaults) do
    if type(v) == "table" and type(v[1]) == "string" then
      rules[name] = v
    else
      rules[name] = { math.type(v) == "float" and "number" or math.type(v) or type(v), default = v }
    end
  end
  rules.text_encoder = rules.text_encoder
    or { "boolean", default = true, help = "train the text encoders too" }
  rules.unet = rules.unet or { "boolean", default = true, help = "train the U-Net" }
  return rules
end

-- What layers call while a graph is traced (nn.lua).
function Instance:apply(layer, x, y)
  local m, o = self.definition, self.options
  if m.targets and not m.targets(o, layer) then return y end
  layer.adapter = self
  local out = m.forward(o, layer, m.params(o, layer), x, y)
  if not nn.is_node(out, y.shape, y.graph) then
    options.fail_at(self.place, "method '%s': forward must give a node of y's shape (%s), not %s (%s.%s)", self.name,
      table.concat(y.shape, ", "), nn.describe(out, y.graph), layer.component, layer.name)
  end
  return out
end

-- Before the component is declared: its layers get this method. group: the parameter group of the
-- optimizer.
function Instance:attach(component, group)
  self.groups[component.name] = group or 0
  if self.whole then
    if component:is_declared() then error("full training is chosen before a model is traced", 2) end
    component.role = "param"
    self.components[#self.components + 1] = component
  else
    component.adapters[#component.adapters + 1] = self
  end
end

function Instance:detach(component)
  for i = #component.adapters, 1, -1 do
    if component.adapters[i] == self then table.remove(component.adapters, i) end
  end
end

-- { { name =, var =, group = } ... } of everything that has been traced, in the order of
-- declaration.
function Instance:params()
  local list = {}
  for _, component in ipairs(self.components) do
    for _, e in ipairs(component.order) do
      list[#list + 1] = { name = component.name .. "." .. e.name, var = e.var,
        group = self.groups[component.name] }
    end
  end
  for _, e in ipairs(self.component.order) do
    if self.definition.kind == "lora" and e.param ~= "lora_down" and e.param ~= "lora_up" then
      options.fail_at(self.place, "method '%s' is of kind 'lora': its parameters are lora_down and lora_up, not '%s'",
        self.name, e.param)
    end
    list[#list + 1] = { name = e.name, var = e.var, group = self.groups[e.layer.component] }
  end
  return list
end

function Instance:trains_text() return self.options.text_encoder end

-- First values of the adapter, after core.commit.
function Instance:init(seed) self.component:init(seed) end

-- Keys of a layer's parameter in kohya's files.
local function kohya_key(map, e)
  return map:kohya(e.layer.component, e.layer.name) .. "." .. e.param .. ".weight"
end

-- { { key, tensor } ... } under kohya's names with one alpha per layer. read: var -> tensor, to
-- export something else than the values (gradients, averages).
function Instance:export(map, dtype, read)
  local list, seen = {}, {}
  for _, e in ipairs(self.component.order) do
    local t = read and read(e.var) or e.var:read(dtype)
    list[#list + 1] = { kohya_key(map, e), components.to_file(e, t) }
    local layer = map:kohya(e.layer.component, e.layer.name)
    if self.definition.alpha and not seen[layer] then
      seen[layer] = true
      local alpha = self.definition.alpha(self.options, e.layer)
      list[#list + 1] = { layer .. ".alpha", core.tensor({}, dtype or "f32", alpha) }
    end
  end
  return list
end

-- reader(name of a parameter) -> its tensor in a file that export wrote, and the set of keys that it has asked for.
function Instance:reader(file, map)
  local used = {}
  return function(name)
    local key = kohya_key(map, self.component.vars[name])
    used[key] = true
    return file:read(key)
  end, used
end

-- Reads parameters back from a file that export wrote; the layers must have been traced.
function Instance:load(file, map) self.component:load((self:reader(file, map))) end

-- { { layer, kind = "lora", parts = { down, up }, rank, alpha } ... }: what lora/save.lua writes.
function Instance:adapters(dtype)
  local list, by_layer = {}, {}
  for _, e in ipairs(self.component.order) do
    local name = e.layer.component .. "." .. e.layer.name
    if not by_layer[name] then
      by_layer[name] = { kind = "lora", parts = {}, alpha = self.definition.alpha(self.options, e.layer),
        layer = { component = e.layer.component, module = e.layer.name, kind = e.layer.kind, kernel = e.layer.kernel } }
      list[#list + 1] = by_layer[name]
    end
    local t = components.to_file(e, e.var:read(dtype))
    by_layer[name].parts[e.param:match "^lora_(.*)$"] = t
    if e.param == "lora_down" then by_layer[name].rank = t.shape[1] end
  end
  return list
end

-- Metadata that other programs read; every value is a text.
function Instance:metadata(model)
  local o, m = self.options, self.definition
  return metadata.network(model, { rank = o.rank, alpha = o.alpha, module = m.network_module or "networks.lora",
    args = m.network_args and m.network_args(o) })
end

-- Writes the result, whole and synced or not there at all: the adapter's file, or a checkpoint after full training.
-- o: dtype ("f16"), metadata (texts added to the minimum), format, profile and sidecar as in lora/save.lua
function Instance:save(path, model, o)
  o = o or {}
  if self.whole then return model:save(path, o) end
  local all, dtype = self:metadata(model), o.dtype or "f16"
  for k, v in pairs(o.metadata or {}) do all[k] = v end
  if self.definition.kind == "lora" then
    return require("burin.adapters.save").write(path, self:adapters(dtype), { map = model.map, metadata = all,
      format = o.format, profile = o.profile, sidecar = o.sidecar, mark = o.mark })
  end
  core.export(path, "safetensors", self:export(model.map, dtype), sums.ask(all))
end

local method = {}

-- Constructors by their functions, as burin.NAME finds them.
function method.is_constructor(f) return kinds.constructor_of(f) == "method" end

-- What a training changes, of a description: parameters, and the components that it was attached to.
function method.instance(description)
  local d = kinds.value(description)
  return new_instance { name = d.name, definition = description.definition, options = description.options,
    whole = d.whole,
    place = d.definition.place or kinds.place(description), groups = {}, components = {},
    component = nn.component { name = d.name, role = "param" } }
end

-- A description of a method with its options, as a recipe holds it.
local function describe(definition, o, at)
  local handle
  handle = kinds.new("method", { name = definition.name, options = o, definition = definition,
    whole = definition.whole or false, instance = function() return method.instance(handle) end }, at)
  return handle
end

-- The constructor of a method. call: how it is called, where that is not burin.NAME {} (own.lua).
function method.define(definition, call)
  local rules = schema(definition.options or {})
  return kinds.constructor("method", not call and definition.name or nil, function(given)
    local at = place.here(definition.name)
    local o = options.check(definition.name, given or {}, rules, at)
    if definition.settle then definition.settle(o) end
    return describe(definition, o, at)
  end, call)
end

return method
