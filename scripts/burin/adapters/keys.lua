-- SPDX-License-Identifier: MIT
-- keys.lua - the keys of LoRA files. A key is a layer's name, as one of several programs spells it, and the part of an
-- adapter that the tensor is. Both are tables here; index(model) joins them with the layers that a model has. Which
-- program reads which spelling is in consumers.lua.
local names = {}

-- ---- ends of keys -------------------------------------------------------------------------------------------------

-- End of a key -> part, by who writes it. Sources: kohya-ss/sd-scripts networks/lora.py (48d368f); KohakuBlueleaf/
-- LyCORIS 4.1.3 modules/*.py; Hugging Face peft 0.21 utils/save_and_load.py; diffusers loaders/
-- lora_conversion_utils.py; ComfyUI comfy_extras/nodes_lora_extract.py (diff_b) and comfy/lora.py (set_weight);
-- ostris/ai-toolkit toolkit/models/DoRA.py (magnitude). In the last group what is kept is a value, not a difference.
local ends = {
  kohya = { [".lora_down.weight"] = "down", [".lora_up.weight"] = "up", [".alpha"] = "alpha" },
  lycoris = { [".lora_mid.weight"] = "mid", [".dora_scale"] = "dora",
    [".hada_w1_a"] = "w1_a", [".hada_w1_b"] = "w1_b", [".hada_w2_a"] = "w2_a", [".hada_w2_b"] = "w2_b",
    [".hada_t1"] = "t1", [".hada_t2"] = "t2",
    [".lokr_w1"] = "k1", [".lokr_w1_a"] = "k1_a", [".lokr_w1_b"] = "k1_b",
    [".lokr_w2"] = "k2", [".lokr_w2_a"] = "k2_a", [".lokr_w2_b"] = "k2_b", [".lokr_t2"] = "kt" },
  difference = { [".diff"] = "diff", [".diff_b"] = "diff_b", [".w_norm"] = "diff", [".b_norm"] = "diff_b" },
  peft = { [".lora_A.weight"] = "down", [".lora_B.weight"] = "up" },
  magnitude = { [".lora_magnitude_vector"] = "magnitude", [".lora_magnitude_vector.weight"] = "magnitude",
    [".magnitude"] = "magnitude" },
  diffusers = { [".lora.down.weight"] = "down", [".lora.up.weight"] = "up" },  -- 0.22
  transformers = { [".lora_linear_layer.down.weight"] = "down", [".lora_linear_layer.up.weight"] = "up" },
  value = { [".set_weight"] = "value", [".bias"] = "value_b", [".base_layer.bias"] = "value_b",
    [".lora_B.bias"] = "up_b" },
}
names.parts, names.forms = {}, {}
for form, list in pairs(ends) do
  for tail, part in pairs(list) do names.parts[tail], names.forms[tail] = part, form end
end

-- Parts that change a layer's bias: what they are of the adapter of that bias.
names.of_bias = { diff_b = "diff", value_b = "value" }

-- Parts that alone make no LoRA of a file: checkpoints have biases too.
names.weak = { alpha = true, value_b = true }

-- Ends of adapters that cannot be applied -> the algorithm. LyCORIS' OFT and BOFT, kohya's OFT (networks/oft.py) and
-- PEFT's constrain and order their blocks differently under the same names.
names.unsupported = { [".on_input"] = "IA3", [".ia3_l"] = "IA3", [".oft_blocks"] = "OFT", [".oft_diag"] = "OFT",
  [".oft_R"] = "OFT", [".oft_R.weight"] = "OFT", [".boft_R"] = "BOFT", [".boft_s"] = "BOFT", [".a1.weight"] = "GLoRA",
  [".a2.weight"] = "GLoRA", [".b1.weight"] = "GLoRA", [".b2.weight"] = "GLoRA", [".bm.weight"] = "GLoRA",
  [".lora_E"] = "AdaLoRA", [".vera_lambda_b"] = "VeRA", [".vera_lambda_d"] = "VeRA", [".hra_u"] = "HRA",
  [".fourierft_spectrum"] = "FourierFT", [".lora_embedding_A"] = "LoRA of an embedding" }

-- Keys that every consumer passes over without a word: textual inversions that LyCORIS and OneTrainer bundle with a
-- network.
names.ignored = { "^bundle_emb%." }

-- Layers that some families' text encoders have and others do not, where others write them all the same: the projection
-- of pooled text.
names.unused = { "^text_encoders%.[%w_]+%.transformer%.text_projection$", "^clip_[lgh]%.text_projection$",
  "^lora_te%d?_text_projection$" }

-- The algorithm that a key belongs to and that cannot be applied; nil for others. dims: how many its tensor has:
-- LyCORIS' BOFT has one more than its diagonal OFT.
function names.algorithm(key, dims)
  for tail, what in pairs(names.unsupported) do
    if key:sub(-#tail) == tail then
      if tail == ".oft_blocks" then return dims == 4 and "BOFT" or "diag-OFT" end
      return what
    end
  end
end

-- PEFT's names of adapters stand before ".weight", or at the end of what has none.
local function without_adapter(key)
  for _, pattern in ipairs { "^(.+%.lora_[AB])%.([^.]+)(%.weight)$", "^(.+%.lora_[AB])%.([^.]+)(%.bias)$",
    "^(.+%.lora_magnitude_vector)%.([^.]+)(%.weight)$", "^(.+%.hada_[%w_]+)%.([^.]+)()$",
    "^(.+%.lokr_[%w_]+)%.([^.]+)()$", "^(.+%.lora_magnitude_vector)%.([^.]+)()$" } do
    local head, adapter, tail = key:match(pattern)
    if head and not (adapter == "weight" and type(tail) == "number") then
      return head .. (type(tail) == "string" and tail or ""), adapter
    end
  end
  return key
end

-- key -> name of the layer, part, its end as the tables have it, the name of the adapter where it has one; nil when
-- the end is no adapter's
function names.split(key)
  -- attention processors of diffusers before 0.22: <attention>.processor.to_q_lora.down.weight
  local attention, which, part = key:match "^(.*)%.processor%.(to_%a+)_lora%.(%a+)%.weight$"
  if attention and (part == "down" or part == "up") then
    return attention .. "." .. which .. (which == "to_out" and ".0" or ""), part, ".processor"
  end
  local plain, adapter = without_adapter(key)
  local at = #plain
  while at do  -- ends have one to four points
    at = plain:sub(1, at - 1):match "^.*()%."
    local tail = at and plain:sub(at)
    if tail and names.parts[tail] then
      -- the longest end: "x.base_layer.bias" is a bias of x
      local longer = plain:sub(1, at - 1):match "^.*()%."
      if longer and names.parts[plain:sub(longer)] then at, tail = longer, plain:sub(longer) end
      return plain:sub(1, at - 1), names.parts[tail], tail, adapter
    end
  end
end

-- ---- names of layers ----------------------------------------------------------------------------------------------

-- Names in files of ComfyUI and OneTrainer, whose U-Net has the single file's names of modules, and of LyCORIS' wrapper
-- of a U-Net: comfy, omi, lycoris; nil where a component has none.
local function native(map, component, module)
  local rule = map.rules[component]
  if component == "unet" then
    local name = map:module_in_file("unet", module)
    if not name then return nil end
    return "diffusion_model." .. name, "unet." .. name, "lycoris_" .. module:gsub("%.", "_")
  end
  if not rule.native then return nil end
  return ("text_encoders.%s.transformer.%s"):format(rule.native, module), rule.native .. "." .. module
end

-- All spellings of a layer: { { text, style } ... }. Styles:
--   first, kohya, extra   kohya's: the one that is written first, others of the family's record, those that only some
--                         programs write and read
--   lycoris               LyCORIS' own wrapper, as SimpleTuner writes it
--   diffusers, bare       the component and the module; the module alone
--   short                 the same of a text encoder as transformers 5 has it, without a level "text_model"
--   peft                  PEFT's files, of one network or with its name before it
--   comfy, omi            ComfyUI's (LoraSave) and OneTrainer's OMI, with the single file's names of layers
-- Sources of the last two: comfy/lora.py (a125cd84), modules/util/convert_lora_util.py of Nerogar/OneTrainer
-- (23df3832) and its OMI library, which InvokeAI (8e71a8a5) keeps in model_manager/omi.
local function spellings(map, component, module)
  local list = {}
  local function add(text, style) if text then list[#list + 1] = { text, style } end end
  local kohya, own = map:kohya_spellings(component, module)
  for i, text in ipairs(kohya) do add(text, i == 1 and "first" or i <= own and "kohya" or "extra") end
  local short = module:match "^text_model%.(.*)$"
  for _, name in ipairs { module, short } do
    add(component .. "." .. name, name == module and "diffusers" or "short")
    add(component .. ".base_model.model." .. name, "peft")
    add("base_model.model." .. name, "peft")
    add(name, name == module and "bare" or "short")
  end
  local comfy, omi, lycoris = native(map, component, module)
  add(comfy, "comfy")
  add(omi, "omi")
  add(lycoris, "lycoris")
  return list
end

local function describe(component, e)
  local module, s = e.name:match "^(.*)%.weight$", e.shape
  if not module then return nil end
  local layer = { component = component.name, module = module, kind = e.kind, inputs = s[#s - 1], outputs = s[#s],
    kernel = e.kind == "conv" and s[1] or 1, bias = component.vars[module .. ".bias"] ~= nil }
  if e.kind == "vector" then layer.kind, layer.inputs = "norm", nil end
  if e.kind == "table" then layer.inputs, layer.outputs = s[2], s[1] end
  return layer
end

-- Every module with weights of the U-Net and the text encoders, norms and tables too.
local function modules(model)
  local list, components, declared = {}, { table.unpack(model.text) }, {}
  table.insert(components, model.unet)
  for _, component in ipairs(components) do declared[component] = component:is_declared() end
  for _, component in ipairs(components) do
    if not component:is_declared() then  -- takes no memory
      model:declare { component.name:match "^text" or component.name }
    end
    for _, e in ipairs(component.order) do list[#list + 1] = describe(component, e) end
  end
  for component, was in pairs(declared) do
    if not was then component.vars, component.order = {}, {} end
  end
  return list
end

-- { { component, module, kind, inputs, outputs, kernel, bias } ... }: every linear layer and convolution of the U-Net
-- and the text encoders. kind: "linear", "conv", "conv1"; bias: whether it has one.
function names.layers(model)
  local list = {}
  for _, layer in ipairs(modules(model)) do
    if layer.kind ~= "norm" and layer.kind ~= "table" then list[#list + 1] = layer end
  end
  return list
end

-- spelling -> { { layer =, style = } ... } of a model, more than one where two text encoders share bare names. Layers
-- of kind "norm" and "table" are among them.
function names.index(model)
  local index = {}
  for _, layer in ipairs(modules(model)) do
    for _, spelling in ipairs(spellings(model.map, layer.component, layer.module)) do
      local text = spelling[1]
      local list = index[text] or {}
      index[text] = list
      if not (list[#list] and list[#list].layer == layer) then
        list[#list + 1] = { layer = layer, style = spelling[2] }
      end
    end
  end
  return index
end

return names
