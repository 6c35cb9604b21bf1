-- SPDX-License-Identifier: MIT
-- Opening, saving and adapting models: what comes back from a file is what went in.
-- Runs as `burin run --trust tests/golden/model_test.lua` from the repository root.
local core = require "burin.core"
local nn = require "burin.nn"
local sd = require "burin.models.sd"
local lora = require "burin.methods.lora"
local full = require "burin.methods.full"

local passed, failed = 0, 0
local function check(ok, ...)
  if ok then passed = passed + 1 return end
  failed = failed + 1
  print("FAIL", ...)
end

local temporary = os.tmpname()

local function same_config(a, b) return core.json_encode(a) == core.json_encode(b) end

local function same_weights(label, a, b)
  for _, component in ipairs(a:components()) do
    local read_a, read_b, wrong = a:reader(component.name), b:reader(component.name), 0
    for _, e in ipairs(component.order) do
      local x, y = read_a(e.name), read_b(e.name)
      if not y or nn.to_device(e, x):distance(nn.to_device(e, y)) > 0 then wrong = wrong + 1 end
    end
    check(wrong == 0 and #component.order > 0, label, component.name, wrong .. " tensors differ")
  end
end

local counts = { tiny_sd1 = 686 + 248 + 52, tiny_sd2 = 686 + 248 + 54, tiny_sdxl = 840 + 248 + 52 + 42 }

for _, name in ipairs { "tiny_sd1", "tiny_sd2", "tiny_sdxl" } do
  local path = "tests/golden/" .. name .. "/model_ldm.safetensors"
  local model = sd.open(path)
  model:save(temporary, { dtype = "f32" })  -- straight from the file
  check(not model.unet:is_declared(), name, "saving leaves no variables behind")
  local copy = sd.open(temporary)
  check(same_config(model.config, copy.config), name, "configuration of the copy")
  model:declare()
  same_weights(name .. " copy", model, copy)

  core.commit()
  model:load()
  model:save(temporary, { dtype = "f32", metadata = { note = "text" } })  -- from the device
  copy = sd.open(temporary)
  same_weights(name .. " from the device", model, copy)
  check(copy.files.single:meta().note == "text", name, "metadata")
  check(copy.files.single:meta().format == "pt", name, "format")
  local source, n = model.files.single, 0
  for _, key in ipairs(copy.files.single:names()) do
    local a, b = source:info(key), copy.files.single:info(key)
    n = n + 1
    check(a and table.concat(a.shape, ",") == table.concat(b.shape, ","), name, key, "name and shape")
  end
  check(n == counts[name], name, n .. " tensors in the file, expected", counts[name])

  -- A LoRA file gives the ranks and alphas of its layers, and comes out as it went in.
  for _, kind in ipairs { "lora", "locon" } do
    local file_path = ("tests/golden/%s/%s_init.safetensors"):format(name, kind)
    if core.exists(file_path) then
      local adapted = sd.open(path, { lora = file_path })
      adapted:declare { "text", "unet" }
      core.commit()
      adapted:load()
      local file, wrong, total = core.load(file_path), 0, 0
      for _, item in ipairs(adapted.lora:export(adapted.map, "f32")) do
        local reference = file:read(item[1])
        total = total + 1
        if not reference or item[2]:distance(reference) > 0 then wrong = wrong + 1 end
      end
      check(wrong == 0 and total == #file:names(), name, kind, wrong .. " of " .. total)
    end
  end
end

-- From scratch: the same seed gives the same weights, whatever else the model has.
local config = sd.open("tests/golden/tiny_sd1/model_ldm.safetensors").config
local function scratch(seed)
  local model = sd.new(core.json_decode(core.json_encode(config)))
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
local again = sd.open(temporary)
check(same_config(a.config, again.config), "configuration of a new model")
local w = a.unet.vars["conv_in.weight"]
check(nn.to_device(w, again:reader "unet" "conv_in.weight"):distance(w.var:read()) == 0, "weights")

-- LoRA starts as the identity, and its files have what other programs look for.
local model = sd.open "tests/golden/tiny_sdxl/model_ldm.safetensors"
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
check(meta.ss_network_dim == "4" and meta.ss_base_model_version == "sdxl_base_v1-0", "LoRA metadata")
check(meta.ss_network_module == "networks.lora" and meta.ss_v2 == "False", "LoRA metadata")
local alpha = file:read "lora_unet_input_blocks_4_1_proj_in.alpha"
check(alpha and #alpha.shape == 0 and alpha:get(1) == 2, "alpha is a tensor without dims")

os.remove(temporary)
print(("%d passed, %d failed"):format(passed, failed))
if failed > 0 then error "model_test failed" end
