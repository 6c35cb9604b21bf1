-- SPDX-License-Identifier: MIT
-- save.lua - a model as a single-file checkpoint that every other program reads. Components that
-- are on the device are read from it; the others are copied from the file that the model was opened
-- from.
local core = require "burin.core"
local nn = require "burin.nn"

-- { { canonical name, tensor in diffusers' layout } ... }
local function component_tensors(model, component, dtype, on_device)
  if on_device then return component:export(dtype) end
  if not model.files then
    error(component.name .. " has no values to save: it was never declared", 0)
  end
  local reader, list = model:reader(component.name), {}
  local part = component.name:match "^text" and "text" or component.name
  if not component:is_declared() then model:declare { part } end  -- memory is taken on use only
  for i, e in ipairs(component.order) do
    local t = reader(e.name) or error(component.name .. ": the file lacks " .. e.name, 0)
    list[i] = { e.name, nn.to_file(e, nn.to_device(e, t)):cast(dtype) }
  end
  return list
end

-- in_proj of OpenCLIP: three tensors one after the other
local function join(parts)
  local s = parts[1].shape
  local count = parts[1].count
  local t = core.tensor(s[2] and { 3 * s[1], s[2] } or { 3 * s[1] }, parts[1].dtype)
  for i = 1, 3 do t:copy_into((i - 1) * count + 1, parts[i]) end
  return t
end

-- SD 2.x files hold one text layer more than is used, and a projection. Without a source the layer
-- repeats the last used one and the projection is the identity, which no program looks at.
local function unused_text(model, list, dtype)
  local file, config = model.files and model.files.single, model.config.text[1]
  local prefix = "cond_stage_model.model."
  local block = ("%stransformer.resblocks.%%d."):format(prefix)
  local last, unused = block:format(config.layers - 1), block:format(config.layers)
  local extra = {}
  for _, item in ipairs(list) do
    if item[1]:sub(1, #last) == last then
      local name = unused .. item[1]:sub(#last + 1)
      local t = file and file:read(name)
      extra[#extra + 1] = { name, t and t:cast(dtype) or item[2] }
    end
  end
  local projection = file and file:read(prefix .. "text_projection")
  if not projection then
    projection = core.tensor({ config.width, config.width }, "f32")
    for i = 0, config.width - 1 do projection:set(i * config.width + i + 1, 1) end
  end
  extra[#extra + 1] = { prefix .. "text_projection", projection:cast(dtype) }
  local scale = file and file:read(prefix .. "logit_scale") or core.tensor({}, "f32", 4.60517)
  extra[#extra + 1] = { prefix .. "logit_scale", scale:cast(dtype) }
  for _, item in ipairs(extra) do list[#list + 1] = item end
end

return function(model, path, o)
  o = o or {}
  local dtype, list, slices, on_device = o.dtype or "f16", {}, {}, {}
  for _, component in ipairs(model:components()) do
    on_device[component] = component:is_declared()
  end
  for _, component in ipairs(model:components()) do
    for _, item in ipairs(component_tensors(model, component, dtype, on_device[component])) do
      local name, t = item[1], item[2]
      local key, op, at = model.map:to_file(component.name, name)
      if op == "slice" then
        if not slices[key] then
          slices[key] = {}
          list[#list + 1] = { key, slices[key] }
        end
        slices[key][at + 1] = t
      else
        local s = t.shape
        if op == "squeeze" then t = t:reshape { s[1], s[2], 1, 1 } end
        list[#list + 1] = { key, op == "transpose" and t:permute { 2, 1 } or t }
      end
    end
  end
  for component, was in pairs(on_device) do
    if not was then component.vars, component.order = {}, {} end
  end
  for _, item in ipairs(list) do
    if slices[item[1]] then item[2] = join(item[2]) end
  end
  local source = model.files and model.files.single
  if model.family == "sd2" then unused_text(model, list, dtype) end
  local scale_key = "conditioner.embedders.1.model.logit_scale"
  local scale = model.family == "sdxl" and source and source:read(scale_key)
  if scale then list[#list + 1] = { scale_key, scale:cast(dtype) } end
  local config = {}
  for k, v in pairs(model.config) do config[k] = v end
  local metadata = { format = "pt", ["burin.config"] = core.json_encode(config) }
  for k, v in pairs(o.metadata or {}) do metadata[k] = v end
  core.export(path, "safetensors", list, metadata)
end
