-- SPDX-License-Identifier: MIT
-- method.lua - what is trained, and how it changes a layer. A method is a table:
--
--   name, options   defaults { rank = 8 }, or rules { rank = { "integer", default = 8, min = 1 } }
--   targets         function(o, layer) -> true for layers that it adapts (optional: all layers)
--   params          function(o, layer) -> { name = layer:param(name, { outputs, inputs }, init) }
--   forward         function(o, layer, p, x, y) -> the new output; y is the layer's own
--   alpha           function(o, layer) -> number kept beside the parameters in files (optional)
--
-- method.define returns its constructor: lora { rank = 16 } -> an instance, which model:adapt
-- takes.
local core = require "burin.core"
local nn = require "burin.nn"
local options = require "burin.options"

local Instance = {}
Instance.__index = Instance

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

-- First values of the adapter, after core.commit: random, or those of the file it was made from.
function Instance:init(seed)
  if self.options.file then return self:load(self.options.file, self.options.map) end
  self.component:init(seed)
end

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

-- Reads parameters back from a file that holds them under any known spelling; the layers must have
-- been traced.
function Instance:load(file, map)
  local reader = self.method.reader
  self.component:load(function(name)
    local e = self.component.vars[name]
    if reader then return reader(file, map, e) end
    return file:read(kohya_key(map, e))
  end)
end

local base_versions = { sd1 = "sd_v1", sd2 = "sd_v2", sdxl = "sdxl_base_v1-0" }

-- Metadata that other programs read; every value is a text.
function Instance:metadata(model)
  local o, version = self.options, base_versions[model.family]
  if model.family == "sd2" and model.prediction == "v" then version = "sd_v2_v" end
  local args = self.method.network_args and self.method.network_args(o) or {}
  return {
    ss_v2 = model.family == "sd2" and "True" or "False", ss_base_model_version = version,
    ss_network_module = self.method.network_module or "networks.lora",
    ss_network_dim = o.rank and tostring(o.rank), ss_network_alpha = o.alpha and tostring(o.alpha),
    ss_network_args = next(args) and core.json_encode(args) or "{}",
  }
end

-- Writes the result, whole and synced or not there at all: a kohya file of the adapter, or a
-- checkpoint after full training. o: dtype ("f16"), metadata (texts added to the minimum)
function Instance:save(path, model, o)
  if self.method.whole then return model:save(path, o) end
  local metadata = self:metadata(model)
  for k, v in pairs(o and o.metadata or {}) do metadata[k] = v end
  core.export(path, "safetensors", self:export(model.map, o and o.dtype or "f16"), metadata)
end

local method = {}

function method.define(definition)
  local rules = schema(definition.options or {})
  return function(given, internal)
    local o = options.check(definition.name, given or {}, rules)
    if definition.settle then definition.settle(o) end
    for k, v in pairs(internal or {}) do o[k] = v end
    return setmetatable({ name = definition.name, method = definition, options = o, groups = {},
      whole = {}, component = nn.component { name = definition.name, role = "param" } }, Instance)
  end
end

return setmetatable(method, { __call = function(_, definition)
  return method.define(definition)
end })
