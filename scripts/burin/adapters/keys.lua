-- SPDX-License-Identifier: MIT
-- keys.lua - the keys of LoRA files. A key is a layer's name, as one of several programs spells it, and the part of an
-- adapter that the tensor is. Both are tables here; index(model) joins them with the layers that a model has.
local names = {}

-- End of a key -> part. Sources: kohya-ss/sd-scripts networks/lora.py; KohakuBlueleaf/LyCORIS modules/*.py; Hugging
-- Face peft utils/save_and_load.py; diffusers loaders/lora_conversion_utils.py.
names.parts = {
  [".lora_down.weight"] = "down", [".lora_up.weight"] = "up", [".lora_mid.weight"] = "mid",        -- kohya, LoCon
  [".alpha"] = "alpha", [".dora_scale"] = "dora", [".diff"] = "diff",
  [".hada_w1_a"] = "w1_a", [".hada_w1_b"] = "w1_b", [".hada_w2_a"] = "w2_a", [".hada_w2_b"] = "w2_b",        -- LoHa
  [".hada_t1"] = "t1", [".hada_t2"] = "t2",
  [".lokr_w1"] = "k1", [".lokr_w1_a"] = "k1_a", [".lokr_w1_b"] = "k1_b",                                     -- LoKr
  [".lokr_w2"] = "k2", [".lokr_w2_a"] = "k2_a", [".lokr_w2_b"] = "k2_b", [".lokr_t2"] = "kt",
  [".lora_A.weight"] = "down", [".lora_B.weight"] = "up",                                                    -- PEFT
  [".lora_A.default.weight"] = "down", [".lora_B.default.weight"] = "up",
  [".lora_magnitude_vector"] = "magnitude", [".lora_magnitude_vector.weight"] = "magnitude",
  [".lora_magnitude_vector.default.weight"] = "magnitude",
  [".lora.down.weight"] = "down", [".lora.up.weight"] = "up",                                       -- diffusers 0.22
  [".lora_linear_layer.down.weight"] = "down", [".lora_linear_layer.up.weight"] = "up",
}
-- Ends that are known but not supported, for the error.
names.unsupported = { [".diff_b"] = "bias difference", [".w_norm"] = "norm difference", [".b_norm"] = "norm difference",
  [".on_input"] = "IA3", [".oft_blocks"] = "OFT", [".oft_diag"] = "OFT", [".a1.weight"] = "GLoRA",
  [".a2.weight"] = "GLoRA", [".b1.weight"] = "GLoRA", [".b2.weight"] = "GLoRA" }
-- Keys that every consumer passes over without a word: textual inversions that LyCORIS bundles with a network.
names.ignored = { "^bundle_emb%." }

-- key -> name of the layer, part; nil when the end is no adapter's
function names.split(key)
  -- attention processors of diffusers before 0.22: <attention>.processor.to_q_lora.down.weight
  local attention, which, part = key:match "^(.*)%.processor%.(to_%a+)_lora%.(%a+)%.weight$"
  if attention and (part == "down" or part == "up") then
    return attention .. "." .. which .. (which == "to_out" and ".0" or ""), part
  end
  local at = #key
  while at do  -- ends have one to four points
    at = key:sub(1, at - 1):match "^.*()%."
    local found = at and names.parts[key:sub(at)]
    if found then return key:sub(1, at - 1), found end
  end
end

-- All spellings of a layer: kohya's, diffusers', PEFT's own files of one network, and bare module names.
local function spellings(map, component, module)
  local list, modules = map:kohya_spellings(component, module), { module }
  modules[2] = module:match "^text_model%.(.*)$"  -- transformers 5 has no such level
  for _, name in ipairs(modules) do
    for _, form in ipairs { component .. ".%s", component .. ".base_model.model.%s", "base_model.model.%s", "%s" } do
      list[#list + 1] = form:format(name)
    end
  end
  return list
end

-- { { component, module, kind, inputs, outputs, kernel } ... }: every linear layer and convolution of the U-Net and the
-- text encoders.
function names.layers(model)
  local list, components, declared = {}, { table.unpack(model.text) }, {}
  table.insert(components, model.unet)
  for _, component in ipairs(components) do declared[component] = component:is_declared() end
  for _, component in ipairs(components) do
    if not component:is_declared() then  -- takes no memory
      model:declare { component.name:match "^text" or component.name }
    end
    for _, e in ipairs(component.order) do
      local module, s = e.name:match "^(.*)%.weight$", e.shape
      if module and e.kind ~= "vector" and e.kind ~= "table" then
        list[#list + 1] = { component = component.name, module = module, kind = e.kind, inputs = s[#s - 1],
          outputs = s[#s], kernel = e.kind == "conv" and s[1] or 1 }
      end
    end
  end
  for component, was in pairs(declared) do
    if not was then component.vars, component.order = {}, {} end
  end
  return list
end

-- spelling -> { layers } of a model, more than one where two text encoders share bare names.
function names.index(model)
  local index = {}
  for _, layer in ipairs(names.layers(model)) do
    for _, base in ipairs(spellings(model.map, layer.component, layer.module)) do
      index[base] = index[base] or {}
      table.insert(index[base], layer)
    end
  end
  return index
end

return names
