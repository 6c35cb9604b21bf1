-- SPDX-License-Identifier: MIT
-- consumers.lua - which program reads which LoRA file: one table of the spellings and parts (keys.lua) that each of
-- them knows. A layer counts when all of its tensors are read; the rest these programs drop, most of them without
-- stopping.
local consumers = {}

local function set(list)
  local out = {}
  for _, name in ipairs(list) do out[name] = true end
  return out
end

local function is_unet(layer) return layer.component == "unet" end
local function is_text(layer) return not is_unet(layer) end
-- What LoRAs adapt of text encoders; ComfyUI lists them by name.
local function inner(layer) return layer.module:match "%.self_attn%.[%w_]+$" or layer.module:match "%.mlp%.fc%d$" end

-- ComfyUI knows diffusers' names of attention only with "processor." before them.
local function comfy_diffusers(layer, form)
  if is_text(layer) then return inner(layer) end
  return form == "processor" or not layer.module:match "%.to_%a+[%.0]*$"
end

local comfy = {
  first = true, kohya = true, extra = true, lycoris = true, comfy = true,
  diffusers = comfy_diffusers,
  bare = function(layer, form) return is_unet(layer) and comfy_diffusers(layer, form) end,
}
local comfy_forms = { kohya = true, lycoris = true, difference = true, peft = true, diffusers = true,
  transformers = true, processor = true }

-- name, styles: style -> true or function(layer, form) -> whether it reads it; forms: form -> true or the parts of it.
-- unknown: forms of which it was not found out. from: what was read, and in which revision; the counts of published
-- models were compared with these programs' own (tests/golden/consumers_test.lua).
consumers.list = {
  { name = "A1111", from = "AUTOMATIC1111's webui extensions-builtin/Lora/networks.py, 1da05297",
    styles = { first = true, kohya = true, extra = true },
    forms = { kohya = true, lycoris = true, difference = true } },
  { name = "Forge", from = "its copy of ComfyUI's lora.py", styles = comfy, forms = comfy_forms },
  { name = "ComfyUI", from = "comfyanonymous/ComfyUI comfy/lora.py, comfy/weight_adapter/lora.py, a125cd84",
    styles = comfy, forms = comfy_forms },
  { name = "sd-scripts", from = "kohya-ss/sd-scripts networks/lora.py, 48d368f", styles = { first = true },
    forms = { kohya = true } },
  { name = "diffusers", from = "diffusers 0.42.1 loaders/lora_conversion_utils.py, lora_pipeline.py",
    styles = { first = true, kohya = true, diffusers = true, short = true },
    forms = { kohya = true, lycoris = set { "dora" }, peft = true, magnitude = true, diffusers = true,
      transformers = true, processor = true } },
  { name = "InvokeAI", from = "invoke-ai/InvokeAI backend/patches/lora_conversions, model_manager/omi, 8e71a8a5",
    styles = { first = true, kohya = true, omi = true }, forms = { kohya = true, lycoris = true, difference = true } },
  { name = "sd.cpp", from = "leejet's sd.cpp 0.4.7, its name conversion",
    styles = { first = true, kohya = true, diffusers = is_unet }, forms = { kohya = true, peft = true },
    unknown = set { "lycoris", "difference", "magnitude", "diffusers", "transformers", "processor", "value" } },
  { name = "PEFT", from = "peft 0.21 utils/save_and_load.py", styles = { peft = true, short = true },
    forms = { peft = true, magnitude = true, lycoris = set { "w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2", "k1", "k1_a",
      "k1_b", "k2", "k2_a", "k2_b", "kt" }, value = set { "value", "up_b" } } },
}

local function asked(rule, ...) return rule == true or rule and rule(...) and true or false end

-- Whether a program reads an adapter whole: true, false, or nil where that is not known.
local function reads(program, e)
  if not asked(program.styles[e.style], e.layer, e.spelt[1].form) then return false end
  for _, s in ipairs(e.spelt) do
    local parts = program.forms[s.form]
    if program.unknown and program.unknown[s.form] then return nil end
    if not parts or parts ~= true and not parts[s.part] then return false end
  end
  return true
end

-- adapters: of file.read -> { { program =, loads = layers or nil where that is not known, of = all layers } ... }.
-- Weight and bias of a layer are one.
function consumers.count(adapters)
  local list, total = {}, 0
  local seen = {}
  for _, e in ipairs(adapters) do
    local name = e.layer.component .. "." .. e.layer.module
    total, seen[name] = total + (seen[name] and 0 or 1), true
  end
  for i, program in ipairs(consumers.list) do
    local lost, known, loads = {}, true, total
    for _, e in ipairs(adapters) do
      local name, ok = e.layer.component .. "." .. e.layer.module, reads(program, e)
      known = known and ok ~= nil
      if ok == false and not lost[name] then lost[name], loads = true, loads - 1 end
    end
    list[i] = { program = program.name, loads = known and loads or nil, of = total }
  end
  return list
end

-- "264 of 264 layers", for people
function consumers.text(row)
  return row.loads and ("%d of %d layers"):format(row.loads, row.of) or "not known"
end

return consumers
