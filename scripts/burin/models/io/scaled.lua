-- SPDX-License-Identifier: MIT
-- scaled.lua - files whose weights were made smaller with one scale per tensor, as ComfyUI and others write 8-bit
-- floats: beside "NAME.weight" lies "NAME.scale_weight" or "NAME.weight_scale". Seen through this view the weight is
-- their product, in f32, and what only tells other programs how to compute is not there.
local core = require "burin.core"
local errors = require "burin.base.errors"
local scaled = {}

local fail = errors.file
-- Element types that weights have.
scaled.floats = { f32 = true, f16 = true, bf16 = true, f64 = true, f8_e4m3 = true, f8_e5m2 = true }
local words = { "scale_weight", "weight_scale" }

-- What goes with a scaled weight and changes no number of it: scales of activations, marks.
local function is_mark(name)
  return name:match "%.scale_input$" or name:match "%.input_scale$" or name:match "%f[^.\0]scaled_fp8$"
    or name:match "%.comfy_quant$"
end

-- ComfyUI says beside a weight how it was packed.
local function check_format(file, name, path)
  local ok, how = pcall(core.json_decode, file:read(name):bytes(), path)
  local format = ok and type(how) == "table" and how.format
  if format ~= "float8_e4m3fn" and format ~= "float8_e5m2" then
    fail(path, "%s: weights packed as '%s' are not read; 8-bit floats with one scale per tensor are", name,
      tostring(format or "?"))
  end
end

-- The factor of a weight.
local function read_scale(file, name, weight, path)
  local info, of = file:info(name), file:info(weight)
  if not of then fail(path, "%s is a scale, but there is no %s", name, weight) end
  if not scaled.floats[of.dtype] then
    fail(path, "%s is %s with a scale; scales are read of 8-bit floats (f8_e4m3, f8_e5m2)", weight, of.dtype)
  end
  local t = file:read(name)
  if t.count ~= 1 or not scaled.floats[info.dtype] then
    fail(path, "%s has the shape (%s) and the type %s; one number for the whole of %s is read", name,
      table.concat(info.shape, ", "), info.dtype, weight)
  end
  local scale = t:get(1)
  if not (scale > 0 and scale < math.huge) then
    fail(path, "%s is %g; a scale is a number above 0", name, scale)
  end
  return scale
end

-- file (names, info, read, meta) -> itself where it has no scales, else a view of it
function scaled.view(file, path)
  local scales, hidden, list, found = {}, {}, {}, false
  for _, name in ipairs(file:names()) do
    local is_scale = false
    for _, word in ipairs(words) do
      local layer = name:match("^(.*)%." .. word .. "$")
      if layer then
        local weight = layer .. ".weight"
        scales[weight], is_scale, found = read_scale(file, name, weight, path), true, true
      end
    end
    if name:match "%.comfy_quant$" then check_format(file, name, path) end
    hidden[name] = is_scale or is_mark(name) ~= nil
    if not hidden[name] then list[#list + 1] = name end
  end
  if not found then return file end
  local view = { scaled = scales }
  function view.names() return list end
  function view.meta() return file:meta() end
  function view.info(_, name)
    local info = not hidden[name] and file:info(name) or nil
    if info and scales[name] then info.dtype = "f32" end
    return info
  end
  function view.read(_, name)
    local t = not hidden[name] and file:read(name) or nil
    return t and scales[name] and t:affine(scales[name], 0, "f32") or t
  end
  return view
end

return scaled
