-- SPDX-License-Identifier: MIT
-- method.lua - what is trained, and how it changes a layer. A method is a table:
--
--   name, options   defaults { rank = 8 }, or rules { rank = { "integer", default = 8, min = 1 } }
--   targets         function(o, layer) -> true for layers that it adapts (optional: all layers)
--   params          function(o, layer) -> { name = layer:param(name, { outputs, inputs }, init) }
--   forward         function(o, layer, p, x, y) -> the new output; y is the layer's own
--   alpha           function(o, layer) -> number kept beside the parameters in files (optional)
--   kind            "lora": parameters are lora_down and lora_up, and files can have every LoRA layout (optional)
--
-- method.define returns its constructor: lora { rank = 16 } -> an instance, which model:adapt
-- takes.
local class = require "burin.base.class"
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local metadata = require "burin.adapters.metadata"
local nn = require "burin.graph.nn"
local options = require "burin.base.options"

local Instance, new_instance = class "method"

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
  local m, o = self.method, self.options
  if m.targets and not m.targets(o, layer) then return y end
  layer.adapter = self
  return m.forward(o, layer, m.params(o, layer), x, y)
end

-- Before the component is declared: its layers get this method. group: the parameter group of the
-- optimizer.
function Instance:attach(component, group)
  self.groups[component.name] = group or 0
  if self.method.whole then
    if component:is_declared() then error("full training is chosen before a model is traced", 2) end
    component.role = "param"
    self.whole[#self.whole + 1] = component
  else
    component.adapters[#component.adapters + 1] = self
  end
end

-- Back to how it was made: for another trace, of another model.
function Instance:forget()
  self.groups, self.whole = {}, {}
  self.component = nn.component { name = self.name, role = "param" }
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
  for _, component in ipairs(self.whole) do
    for _, e in ipairs(component.order) do
      list[#list + 1] = { name = component.name .. "." .. e.name, var = e.var,
        group = self.groups[component.name] }
    end
  end
  for _, e in ipairs(self.component.order) do
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
    list[#list + 1] = { kohya_key(map, e), nn.to_file(e, t) }
    local layer = map:kohya(e.layer.component, e.layer.name)
    if self.method.alpha and not seen[layer] then
      seen[layer] = true
      local alpha = self.method.alpha(self.options, e.layer)
      list[#list + 1] = { layer .. ".alpha", core.tensor({}, dtype or "f32", alpha) }
    end
  end
  return list
end

-- Reads parameters back from a file that export wrote; the layers must have been traced.
function Instance:load(file, map)
  self.component:load(function(name) return file:read(kohya_key(map, self.component.vars[name])) end)
end

-- { { layer, kind = "lora", parts = { down, up }, rank, alpha } ... }: what lora/save.lua writes.
function Instance:adapters(dtype)
  local list, by_layer = {}, {}
  for _, e in ipairs(self.component.order) do
    local name = e.layer.component .. "." .. e.layer.name
    if not by_layer[name] then
      by_layer[name] = { kind = "lora", parts = {}, alpha = self.method.alpha(self.options, e.layer),
        layer = { component = e.layer.component, module = e.layer.name, kind = e.layer.kind } }
      list[#list + 1] = by_layer[name]
    end
    local t = nn.to_file(e, e.var:read(dtype))
    by_layer[name].parts[e.param:match "^lora_(.*)$"] = t
    if e.param == "lora_down" then by_layer[name].rank = t.shape[1] end
  end
  return list
end

-- Metadata that other programs read; every value is a text.
function Instance:metadata(model)
  local o, m = self.options, self.method
  return metadata.network { family = model.family, prediction = model.prediction, rank = o.rank, alpha = o.alpha,
    module = m.network_module or "networks.lora", args = m.network_args and m.network_args(o) }
end

-- Writes the result, whole and synced or not there at all: the adapter's file, or a checkpoint after full training. o: dtype
-- ("f16"), metadata (texts added to the minimum), format, profile and sidecar as in lora/save.lua
function Instance:save(path, model, o)
  o = o or {}
  if self.method.whole then return model:save(path, o) end
  local all, dtype = self:metadata(model), o.dtype or "f16"
  for k, v in pairs(o.metadata or {}) do all[k] = v end
  if self.method.kind == "lora" then
    return require("burin.adapters.save").write(path, self:adapters(dtype), { map = model.map, metadata = all, format = o.format,
      profile = o.profile, sidecar = o.sidecar })
  end
  core.export(path, "safetensors", self:export(model.map, dtype), all)
end

local method = {}

local constructors = setmetatable({}, { __mode = "k" })

-- Marks a function as the constructor of a method, as burin.NAME finds them.
function method.constructor(f)
  constructors[f] = true
  return f
end

function method.is_constructor(f) return constructors[f] == true end

function method.define(definition)
  local rules, shown = schema(definition.options or {}), kinds.read_only(definition, "a method")
  return method.constructor(function(given)
    local o = options.check(definition.name, given or {}, rules)
    if definition.settle then definition.settle(o) end
    return new_instance { name = definition.name, method = shown, options = o, groups = {},
      whole = {}, component = nn.component { name = definition.name, role = "param" } }
  end)
end

return method
