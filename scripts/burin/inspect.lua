-- SPDX-License-Identifier: MIT
-- inspect.lua - what a file is, and what other programs will take it for.
local convert = require "burin.convert"
local core = require "burin.core"
local file = require "burin.lora.file"
local files = require "burin.models.files"
local guard = require "burin.guard"
local names = require "burin.lora.names"
local tools = require "burin.lora.tools"
local inspect = {}

-- { { file =, name = component or nil } ... } behind a path
function inspect.open(path)
  if not core.exists(path) then error({ exit = 66, message = path .. ": there is no such file or folder" }, 0) end
  if core.exists(path) == "file" then return { { file = guard(65, core.load, path) } } end
  local list = {}
  if tools.is_lora(path) then
    for i, source in ipairs(file.sources(path)) do list[i] = { file = guard(65, core.load, source.path), name = source.component } end
  else
    local _, opened = files.open(path)
    for name, f in pairs(opened) do list[#list + 1] = { file = f, name = name } end
    table.sort(list, function(a, b) return a.name < b.name end)
  end
  return list
end

-- A1111's rule (extensions-builtin/Lora/network.py) and Forge's (modules_forge): by metadata alone.
local function lora_consumers(meta)
  local a1111, arch = "Unknown", meta["modelspec.architecture"] or ""
  if (meta.ss_base_model_version or ""):match "^sdxl_" then a1111 = "SDXL"
  elseif meta.ss_v2 == "True" then a1111 = "SD2"
  elseif next(meta) then a1111 = "SD1" end
  local forge = "Unknown"
  if (meta.ss_base_model_version or ""):match "^sdxl_" or arch:match "^stable%-diffusion%-xl%-v1%-base" then forge = "SDXL"
  elseif meta.ss_v2 == "True" then forge = "SD2"
  elseif meta.ss_base_model_version or arch:match "^stable%-diffusion%-v1" then forge = "SD1" end
  return { { "A1111", a1111 }, { "Forge", forge } }
end

local function range(list)
  table.sort(list)
  if #list == 0 then return nil end
  local function text(v) return ("%g"):format(v) end
  return list[1] == list[#list] and text(list[1]) or text(list[1]) .. " to " .. text(list[#list])
end

local function lora_facts(path, base)
  local parts, meta = inspect.open(path), {}
  for _, p in ipairs(parts) do for k, v in pairs(p.file:meta()) do meta[k] = v end end
  local facts = { consumers = lora_consumers(meta) }
  local known, model = pcall(tools.model, path, base)
  if not known then
    facts.what = "LoRA of an unknown model; --base MODEL says more"
    return facts
  end
  facts.what, facts.prediction = model.family .. " LoRA", meta["modelspec.prediction_type"]
  local ok, read = pcall(file.read, path, names.index(model))
  if not ok then
    facts.what = facts.what .. ", with tensors that do not fit: " .. (type(read) == "table" and read.message or tostring(read))
    return facts
  end
  local kinds, ranks, alphas, by = {}, {}, {}, {}
  for _, e in ipairs(read.adapters) do
    local kind = e.kind .. ((e.parts.dora or e.parts.magnitude) and " with DoRA" or e.parts.mid and " with middle kernels" or "")
    kinds[kind] = (kinds[kind] or 0) + 1
    by[e.layer.component] = (by[e.layer.component] or 0) + 1
    ranks[#ranks + 1], alphas[#alphas + 1] = e.rank, e.alpha
  end
  local function counts(t)
    local list = {}
    for k, n in pairs(t) do list[#list + 1] = n .. " " .. k end
    table.sort(list)
    return table.concat(list, ", ")
  end
  facts.rank, facts.alpha, facts.kinds, facts.layers = range(ranks), range(alphas), counts(kinds), counts(by)
  local kohya, first = read.adapters[1].base:match "^lora_", read.adapters[1].keys[1]
  facts.spelling = kohya and "kohya" or first:match "lora_[AB]" and "PEFT or diffusers" or "older diffusers"
  -- What ComfyUI would report as not loaded: keys under names that are none of this model's layers. file.read refuses
  -- such files, so there are none here.
  table.insert(facts.consumers, { "ComfyUI", #read.adapters .. " layers, no key left over" })
  return facts
end

local labels = { sd1 = "Stable Diffusion 1.x", sd2 = "Stable Diffusion 2.x", sdxl = "SDXL" }

-- { what =, prediction =, consumers = { { program, what it sees } ... }, unknown = { names }, ... } of a checkpoint or LoRA
function inspect.facts(path, base)
  if tools.is_lora(path) then return lora_facts(path, base) end
  local opens, model, _, extras = pcall(convert.open, path)
  if not opens then
    local why = type(model) == "table" and model.message or tostring(model)
    return { what = "no whole Stable Diffusion model: " .. why }
  end
  local facts = { what = labels[model.family] .. " checkpoint, " .. (model.files.single and "single file" or "diffusers folder"),
    prediction = model.prediction, unknown = {} }
  if #extras > 0 then facts.what = ("%s, %d tensors that no network reads"):format(facts.what, #extras) end
  return facts
end

return inspect
