-- SPDX-License-Identifier: MIT
-- save.lua - a model as a checkpoint that every other program reads, in either layout. Components that are on the
-- device are read from it; the others are copied from the file that the model was opened from.
local components = require "burin.graph.component"
local layout = require "burin.models.io.layout"

-- o: dtype ("f16"), metadata (texts), format: "checkpoint" (one file, the default) or "diffusers" (a folder)
return function(model, path, o)
  o = o or {}
  local items, extras, map = {}, {}, model.map
  local dtype = o.dtype or "f16"
  if model.files then
    local all
    items, all = layout.items(model.files, map)
    items = layout.cast(items, dtype)
    for _, e in ipairs(layout.cast(all, dtype)) do  -- what OpenCLIP has besides the network that is used
      for _, rule in ipairs(model.family.text) do
        local p = rule.prefix
        if rule.layout == "openclip" and e.key:sub(1, #p) == p then extras[#extras + 1] = e end
      end
    end
  end
  local list = {}
  for _, item in ipairs(items) do
    if not model:component(item.component):is_declared() then list[#list + 1] = item end
  end
  for _, component in ipairs(model:components()) do
    if not component:is_declared() and not model.files then
      error(component.name .. " has no values to save: it was never declared", 0)
    end
    for _, e in ipairs(component:is_declared() and component.order or {}) do
      list[#list + 1] = { component = component.name, name = e.name, dtype = dtype, shape = components.file_shape(e),
        read = function() return components.to_file(e, e.var:read(dtype)) end }
    end
  end
  local write = o.format == "diffusers" and layout.write_folder or layout.write_single
  write(path, list, map, model.config, { metadata = o.metadata, mark = o.mark,
    extras = o.format ~= "diffusers" and extras or nil })
end
