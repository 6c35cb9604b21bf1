-- SPDX-License-Identifier: MIT
-- convert.lua - from one layout and element type to another: checkpoints here, LoRAs in adapters/convert.lua. Nothing
-- is computed, so there is no need of a device; networks are traced on the null device to know their tensors.
local core = require "burin.core"
local device = require "burin.graph.device"
local errors = require "burin.base.errors"
local files = require "burin.models.io.files"
local layout = require "burin.models.io.layout"
local models = require "burin.models.model"
local options = require "burin.base.options"
local reports = require "burin.models.io.report"
local convert = {}

local refuse = errors.file

-- The small files of a diffusers folder: configurations, vocabularies, the pipeline's index.
function convert.texts_of(folder)
  local texts = {}
  for _, name in ipairs(core.list(folder)) do
    local path = folder .. "/" .. name
    if core.exists(path) == "file" and name == "model_index.json" then
      -- the checker's weights are not taken over
      texts[name] = core.read_file(path):gsub('("safety_checker"%s*:%s*)%b[]', "%1[null, null]")
    elseif core.exists(path) == "folder" and name ~= "safety_checker" then
      for _, inner in ipairs(core.list(path)) do
        local is_index = inner:match "%.index%.[%w.]*json$" or inner:match "%.index%.json$"
        if (inner:match "%.json$" or inner:match "%.txt$") and not is_index then
          texts[name .. "/" .. inner] = core.read_file(path .. "/" .. inner)
        end
      end
    end
  end
  return texts
end

-- Opens a model, traced, with its tensors listed; a tensor missing is an error, one too many a warning. parts:
-- components from other files (files.open).
-- -> model, items, extras
function convert.open(path, parts)
  device.null()
  local model = models.open(path, { parts = parts })
  local report = model:look()
  model:declare()
  reports.check_tensors(report)
  if #report.unknown > 0 then
    refuse(path, "%d tensors belong to no network: %s", #report.unknown, reports.some(report.unknown))
  end
  if #report.strange > 0 then
    core.log("warn", ("%s: %d tensors are none of Stable Diffusion's; they are carried along: %s"):format(path,
      #report.strange, reports.some(report.strange)))
  end
  return model, report.items, report.extras
end

-- The items with the VAE of another file, which must have the same shapes.
local function replace_vae(items, path, model)
  local other, have, list = layout.items(files.open_part(path, "vae", model.family), model.map), {}, {}
  for _, item in ipairs(other) do if item.component == "vae" then have[item.name] = item end end
  for _, item in ipairs(items) do
    if item.component ~= "vae" then
      list[#list + 1] = item
    else
      local new = have[item.name] or refuse(path, "it lacks %s", item.name)
      if table.concat(new.shape, ",") ~= table.concat(item.shape, ",") then
        refuse(path, "%s has the shape (%s), the checkpoint's (%s)", item.name, table.concat(new.shape, ", "),
          table.concat(item.shape, ", "))
      end
      list[#list + 1] = new
    end
  end
  return list
end

-- o: to, dtype, vae, extras -> { what =, layout =, tensors = }
function convert.run(input, output, o)
  local model, items, extras = convert.open(input)
  local adds = o.vae and not model.vae  -- then there are no shapes that it must have
  if adds then model, items, extras = convert.open(input, { vae = o.vae }) end
  local to = options.one_of("--to", o.to or (output:match "%.safetensors$" and "single" or "diffusers"),
    { "single", "diffusers" })
  if o.vae and not adds then items = replace_vae(items, o.vae, model) end
  if o.dtype == "keep" then layout.check_keep(input, model.files, items) else items = layout.cast(items, o.dtype) end
  if not o.extras then extras = {} end
  local source = {}
  for k, v in pairs(model.files.single and model.files.single:meta() or {}) do
    if k ~= "format" and k ~= "burin.config" then source[k] = v end
  end
  local folder = core.exists(input) == "folder"
  local write = to == "single" and layout.write_single or layout.write_folder
  write(output, items, model.map, model.config, { metadata = source, extras = extras,
    texts = folder and convert.texts_of(input) or nil })
  return { what = model.family.name .. " checkpoint", layout = to, tensors = #items + #extras }
end

return convert
