-- SPDX-License-Identifier: MIT
-- save.lua - LoRA files under kohya's names (one file), diffusers' (one file) and PEFT's (a folder with one for each
-- network and its adapter_config.json). An adapter is { layer = { component, module, kind }, kind, parts, alpha, rank
-- }, as file.lua reads them and methods give them; its parts are host tensors in the layout of files.
local core = require "burin.core"
local errors = require "burin.base.errors"
local folders = require "burin.base.folders"
local families = require "burin.models.families"
local metadata = require "burin.adapters.metadata"
local sums = require "burin.base.sums"
local save = {}

-- part -> end of kohya's and LyCORIS' keys, in the order of a layer's keys
local kohya = { down = ".lora_down.weight", up = ".lora_up.weight", mid = ".lora_mid.weight",
  w1_a = ".hada_w1_a", w1_b = ".hada_w1_b", w2_a = ".hada_w2_a", w2_b = ".hada_w2_b", t1 = ".hada_t1", t2 = ".hada_t2",
  k1 = ".lokr_w1", k1_a = ".lokr_w1_a", k1_b = ".lokr_w1_b", k2 = ".lokr_w2", k2_a = ".lokr_w2_a", k2_b = ".lokr_w2_b",
  kt = ".lokr_t2", dora = ".dora_scale" }
-- Of differences: of a weight and a bias, of a layer and a norm (ComfyUI and LyCORIS).
local differences = { weight = { layer = ".diff", norm = ".w_norm" }, bias = { layer = ".diff_b", norm = ".b_norm" } }
local peft = { down = ".lora_A.weight", up = ".lora_B.weight", magnitude = ".lora_magnitude_vector" }

-- Linear layers have matrices, convolutions kernels, whatever the source wrote.
local function shaped(e, part, t)
  if e.kind ~= "lora" or part ~= "down" and part ~= "up" then return t end
  local s = t.shape
  if e.layer.kind == "linear" and #s == 4 and s[3] * s[4] == 1 then return t:reshape { s[1], s[2] } end
  if e.layer.kind ~= "linear" and #s == 2 then return t:reshape { s[1], s[2], 1, 1 } end
  return t
end

local function typed(t, dtype) return dtype and dtype ~= "keep" and t.dtype ~= dtype and t:cast(dtype) or t end

local function put(list, name, t, dtype) list[#list + 1] = { name, typed(t, dtype) } end

-- The end of a part's key, and the tensor as it is kept.
local function kohya_part(e, part, t)
  if part == "diff" then
    return differences[e.param or "weight"][e.layer.kind == "norm" and "norm" or "layer"], t
  elseif part == "magnitude" then  -- PEFT's are one per output: LyCORIS' (out, 1) or (out, 1, 1, 1)
    return kohya.dora, t:reshape(e.layer.kind == "linear" and { t.count, 1 } or { t.count, 1, 1, 1 })
  end
  return kohya[part], shaped(e, part, t)
end

local function kohya_list(adapters, o)
  local list = {}
  for _, e in ipairs(adapters) do
    local base = o.map:kohya(e.layer.component, e.layer.module)
    local any
    for part, t in pairs(e.parts) do
      local tail, kept = kohya_part(e, part, t)
      put(list, base .. tail, kept, o.dtype)
      any = any or t.dtype
    end
    if e.alpha then
      local same = not o.dtype or o.dtype == "keep"
      list[#list + 1] = { base .. ".alpha", core.tensor({}, same and (e.alpha_dtype or any) or o.dtype, e.alpha) }
    end
  end
  return list
end

local kinds = { loha = "LoHa", lokr = "LoKr", diff = "a difference of weights", value = "a trained value of PEFT" }

-- Stops for what has no names in a layout.
local function check_names(adapters, format)
  local function none(e, what, other)
    errors.raise("data", "%s.%s: %s has no names in %s files%s", e.layer.component, e.layer.module, what, format, other)
  end
  for _, e in ipairs(adapters) do
    if e.kind == "value" then none(e, kinds.value, "; merging it into a checkpoint works") end
    if format ~= "kohya" then
      local m = e.parts.dora
      if e.kind ~= "lora" then none(e, kinds[e.kind], "; --to kohya has") end
      if e.parts.mid then none(e, "LoCon with a middle kernel", "; --to kohya has") end
      if m and m.count ~= e.parts.up.shape[1] then none(e, "DoRA with a norm per input", "; --to kohya has") end
    end
  end
end

-- scale: what up is multiplied by, where a file cannot say alpha
local function peft_entries(list, base, e, dtype, scale)
  for part, t in pairs(e.parts) do
    if part == "dora" then t, part = t:reshape { t.count }, "magnitude" end
    local x = shaped(e, part, t)
    if part == "up" and scale ~= 1 then
      x = typed(x:affine(scale, 0, "f32"), dtype == "keep" and t.dtype or dtype or t.dtype)
    end
    put(list, base .. peft[part], x, dtype)
  end
end

local function most_frequent(counts)
  local best
  for v, n in pairs(counts) do
    if not best or n > counts[best] or n == counts[best] and v < best then best = v end
  end
  return best
end

-- transformers 5 has no level text_model in CLIPTextModel, only in CLIPTextModelWithProjection. PEFT takes a target for
-- every module that ends in it, so there this name serves both; the tensors are named as transformers 5 has them.
local function target(e) return (e.layer.module:gsub("^text_model%.", "")) end

-- PEFT's description of one network's adapters (peft tuners/lora/config.py).
function save.adapter_config(adapters)
  local ranks, alphas, modules, dora = {}, {}, {}, false
  for _, e in ipairs(adapters) do
    ranks[e.rank] = (ranks[e.rank] or 0) + 1
    alphas[e.alpha] = (alphas[e.alpha] or 0) + 1
    modules[#modules + 1] = target(e)
    dora = dora or e.parts.dora ~= nil or e.parts.magnitude ~= nil
  end
  table.sort(modules)
  local function whole(x) return math.tointeger(x) or x end
  local rank, alpha, rank_pattern, alpha_pattern = most_frequent(ranks), most_frequent(alphas), {}, {}
  for _, e in ipairs(adapters) do
    if e.rank ~= rank then rank_pattern[target(e)] = e.rank end
    if e.alpha ~= alpha then alpha_pattern[target(e)] = whole(e.alpha) end
  end
  return { peft_type = "LORA", task_type = core.null, base_model_name_or_path = core.null, inference_mode = true,
    bias = "none", fan_in_fan_out = false, init_lora_weights = true, lora_dropout = 0.0, modules_to_save = core.null,
    use_rslora = false, use_dora = dora, r = rank, lora_alpha = whole(alpha), rank_pattern = rank_pattern,
    alpha_pattern = alpha_pattern, target_modules = modules }
end

-- Adds hashes and sums, where a profile has room for them, and writes.
local function export(path, list, all, profile)
  if (profile or "full") == "full" then
    metadata.add_hashes(path, all, function(file, few) core.export(file, "safetensors", list, few) end)
  end
  core.export(path, "safetensors", list, profile == "none" and all or sums.ask(all))
  return #list
end

local function copy(all)
  local own = {}
  for k, v in pairs(all) do own[k] = v end
  return own
end

local function save_peft(path, adapters, o, all)
  local parts = {}
  for _, e in ipairs(adapters) do
    parts[e.layer.component] = parts[e.layer.component] or {}
    table.insert(parts[e.layer.component], e)
  end
  return folders.write(path, function(place)
    local n = 0
    for component, list in pairs(parts) do
      local folder, tensors, own = place .. "/" .. component, {}, copy(all)
      core.make_dirs(folder)
      for _, e in ipairs(list) do
        local module = component == "text_encoder" and target(e) or e.layer.module
        peft_entries(tensors, "base_model.model." .. module, e, o.dtype, 1)
      end
      own.format = "pt"
      n = n + export(folder .. "/adapter_model.safetensors", tensors, own, o.profile)
      core.write_file(folder .. "/adapter_config.json", core.json_encode(save.adapter_config(list), 2) .. "\n")
    end
    return n
  end, o.mark)
end

-- What A1111 shows and inserts for a network: <stem>.json beside it.
local function sidecar(path, all, o)
  core.write_file(path:gsub("%.safetensors$", "") .. ".json", core.json_encode({ description = o.description or "",
    ["sd version"] = families.called_by("A1111", o.map.family),
    ["activation text"] = all["modelspec.trigger_phrase"] or "",
    ["preferred weight"] = 0, ["negative text"] = "", notes = "" }, 4) .. "\n")
end

save.formats = { "kohya", "diffusers", "peft" }

local function diffusers_list(adapters, o)
  local list = {}
  for _, e in ipairs(adapters) do
    peft_entries(list, e.layer.component .. "." .. e.layer.module, e, o.dtype, e.alpha / e.rank)
  end
  return list
end

-- Writes adapters. o: map (names.map of the family), format ("kohya"), dtype ("keep"), metadata (texts), profile
-- ("full"), sidecar (boolean), mark (of folders: a training's, folders.lua) -> number of tensors. What the file says of
-- itself comes from metadata.identify, in every layout: its stem becomes ss_output_name, which is what A1111 inserts
-- into prompts.
local function write(path, adapters, o)
  local format, all = o.format or "kohya", copy(o.metadata or {})
  check_names(adapters, format)
  metadata.identify(all, path:match "([^/]*)/*$":gsub("%.safetensors$", ""), adapters)
  local said = metadata.profile(all, o.profile)
  if format == "peft" then return save_peft(path, adapters, o, said) end
  if format == "diffusers" then said.format = "pt" end
  local n = export(path, (format == "diffusers" and diffusers_list or kohya_list)(adapters, o), said, o.profile)
  if o.sidecar then sidecar(path, all, o) end  -- of a file that is there
  return n
end

function save.write(path, adapters, o) return errors.guard("output", write, path, adapters, o) end

return save
