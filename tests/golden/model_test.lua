-- SPDX-License-Identifier: MIT
-- Opening, saving and adapting models: what comes back from a file is what went in.
-- Runs as `burin run --trust tests/golden/model_test.lua` from the repository root.
local core = require "burin.core"
local components = require "burin.graph.component"
local models = require "burin.models.model"
local lora = require "burin.adapters.lora"
local full = require "burin.adapters.full"

local T = dofile "tests/check.lua"
local check = T.check

local temporary = os.tmpname()

local function same_config(a, b) return core.json_encode(a) == core.json_encode(b) end

local function same_weights(label, a, b)
  for _, component in ipairs(a:components()) do
    local read_a, read_b, wrong = a:reader(component.name), b:reader(component.name), 0
    for _, e in ipairs(component.order) do
      local x, y = read_a(e.name), read_b(e.name)
      if not y or components.to_device(e, x):distance(components.to_device(e, y)) > 0 then wrong = wrong + 1 end
    end
    check(wrong == 0 and #component.order > 0, label, component.name, wrong .. " tensors differ")
  end
end

local counts = { tiny_sd1 = 686 + 248 + 52, tiny_sd2 = 686 + 248 + 54,
  tiny_sdxl = 840 + 248 + 52 + 42 }

for _, name in ipairs { "tiny_sd1", "tiny_sd2", "tiny_sdxl" } do
  local path = "tests/golden/" .. name .. "/model_ldm.safetensors"
  local model = models.open(path)
  model:save(temporary, { dtype = "f32" })  -- straight from the file
  check(not model.unet:is_declared(), name, "saving leaves no variables behind")
  local copy = models.open(temporary)
  check(same_config(model.config, copy.config), name, "configuration of the copy")
  model:declare()
  same_weights(name .. " copy", model, copy)

  core.commit()
  model:load()
  model:save(temporary, { dtype = "f32", metadata = { note = "text" } })  -- from the device
  copy = models.open(temporary)
  same_weights(name .. " from the device", model, copy)
  check(copy.files.single:meta().note == "text", name, "metadata")
  check(copy.files.single:meta().format == "pt", name, "format")
  local source, n = model.files.single, 0
  for _, key in ipairs(copy.files.single:names()) do
    local a, b = source:info(key), copy.files.single:info(key)
    n = n + 1
    local same = a and table.concat(a.shape, ",") == table.concat(b.shape, ",")
    check(same, name, key, "name and shape")
  end
  check(n == counts[name], name, n .. " tensors in the file, expected", counts[name])

end

-- From scratch: the same seed gives the same weights, whatever else the model has.
local config = models.open("tests/golden/tiny_sd1/model_ldm.safetensors").config
local function scratch(seed)
  local model = models.new(core.json_decode(core.json_encode(config)))
  model:adapt(full { text_encoder = true })
  model:declare()
  core.commit()
  model:init(seed)
  return model
end
local a, b, c = scratch(3), scratch(3), scratch(4)
for i, e in ipairs(a.unet.order) do
  local x = e.var:read()
  check(x:distance(b.unet.order[i].var:read()) == 0, "same seed", e.name)
  if e.init == "kaiming" then
    local s, bound = x:stats(), 1 / math.sqrt(e.fan_in)
    check(x:distance(c.unet.order[i].var:read()) > 0, "another seed", e.name)
    check(s.max <= bound and s.min >= -bound, "bounds", e.name)
  end
end
a:save(temporary, { dtype = "f32" })
local again = models.open(temporary)
check(same_config(a.config, again.config), "configuration of a new model")
local w = a.unet.vars["conv_in.weight"]
check(components.to_device(w, again:reader "unet" "conv_in.weight"):distance(w.var:read()) == 0, "weights")

local known, why = pcall(models.new, { family = "sd9", unet = {}, text = {} })
check(not known and why.kind == "recipe" and why.message:find "no model family 'sd9'; there are sd1, sd2, sdxl",
  "unknown family", why)

-- LoRA starts as the identity, and its files have what other programs look for.
local model = models.open "tests/golden/tiny_sdxl/model_ldm.safetensors"
local method = model:adapt(lora { rank = 4, alpha = 2 })
model:declare { "text", "unet" }
core.commit()
method:init(1)
for _, e in ipairs(method.component.order) do
  local norm = e.var:read():stats().norm
  check((norm == 0) == (e.param == "lora_up"), e.name, "first values", norm)
end
method:save(temporary, model)
local file = core.load(temporary)
local meta = file:meta()
check(meta.ss_network_dim == "4" and meta.ss_network_alpha == "2", "LoRA metadata")
check(meta.ss_base_model_version == "sdxl_base_v1-0", "LoRA metadata")
check(meta.ss_network_module == "networks.lora" and meta.ss_v2 == "False", "LoRA metadata")
local alpha = file:read "lora_unet_input_blocks_4_1_proj_in.alpha"
check(alpha and #alpha.shape == 0 and alpha:get(1) == 2, "alpha is a tensor without dims")

-- The published models: every tensor and the number of parameters, without any memory for them.
local families = require "burin.models.families"
local published = {
  { file = "sd15", family = "sd1", unet_count = 859520964, text_count = 123060480 },
  { file = "sd21", family = "sd2", unet_count = 865910724, text_count = 340387840 },
  { file = "sdxl_base", family = "sdxl", unet_count = 2567463684, text_count = 123060480 + 694659840 },
}

local function canonical_names(path)
  local set, n = {}, 0
  for line in io.lines(path) do
    local component, key = line:match "^[^\t]*\t([^\t]*)\t([^\t]*)"
    if component ~= "-" then
      set[component .. "." .. key] = true
      n = n + 1
    end
  end
  return set, n
end

for _, p in ipairs(published) do
  local big = models.new(families.published(families.get(p.family)))
  big:declare()
  local set, n = canonical_names("tests/data/keys_" .. p.file .. ".tsv")
  local total, seen = {}, 0
  for _, component in ipairs(big:components()) do
    local kind = component.name:match "^text" and "text" or component.name
    for _, e in ipairs(component.order) do
      local size = 1
      for _, d in ipairs(e.shape) do size = size * d end
      total[kind] = (total[kind] or 0) + size
      seen = seen + 1
      check(set[component.name .. "." .. e.name], p.file, component.name, e.name, "is not listed")
    end
  end
  check(seen == n, p.file, seen .. " tensors, published are", n)
  check(total.unet == p.unet_count, p.file, "U-Net", total.unet, p.unet_count)
  check(total.text == p.text_count, p.file, "text encoders", total.text, p.text_count)
  check(total.vae == 83653863, p.file, "VAE", total.vae)
end

-- What LoRA and LoCon adapt, name for name and kind for kind against the lists of sd-scripts: 264, 330 and 986 modules,
-- and 86, 86 and 66 more. Under PEFT's and diffusers' names too.
local modules = { sd15 = { 264, 86 }, sd21 = { 330, 86 }, sdxl_base = { 986, 66 } }
for _, p in ipairs(published) do
  for _, convolutions in ipairs { false, true } do
    local wanted, n = {}, 0
    for line in io.lines("tests/data/lora_keys_" .. p.file .. ".tsv") do
      local name, group, kind, component, module = line:match "^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)"
      if convolutions or not group:match "^unet_locon" then
        local rank = group:match "conv3x3" and 2 or 4
        wanted[name] = { kind = kind, rank = rank, peft = component .. "." .. module }
        n = n + 1
      end
    end
    check(n == modules[p.file][1] + (convolutions and modules[p.file][2] or 0), p.file, n .. " modules in the list")
    local big = models.new(families.published(families.get(p.family)))
    local adapter = big:adapt(lora { rank = 4, conv_rank = convolutions and 2 or nil })
    big:declare { "text", "unet" }
    local seen, extra, wrong = {}, 0, 0
    for _, e in ipairs(adapter.component.order) do
      local name = big.map:kohya(e.layer.component, e.layer.name)
      local w, s = wanted[name], components.file_shape(e)
      if not w then extra = extra + 1
      else
        seen[name] = (seen[name] or 0) + 1
        local rank = e.param == "lora_down" and s[1] or s[2]
        local conv = #s == 4 and (e.param == "lora_up" and s[3] == 1 or e.param == "lora_down")
        if rank ~= w.rank or (w.kind == "linear") ~= (#s == 2) or w.kind ~= "linear" and not conv
          or w.peft ~= e.layer.component .. "." .. e.layer.name then wrong = wrong + 1 end
      end
    end
    local complete = 0
    for name in pairs(wanted) do if seen[name] == 2 then complete = complete + 1 end end
    check(extra == 0 and wrong == 0 and complete == n, p.file, convolutions, complete .. " of " .. n, extra .. " extra",
      wrong .. " wrong")
  end
end

os.remove(temporary)
T.finish()
