-- SPDX-License-Identifier: MIT
-- families.lua - the model families. A family is a record, the only place that knows its name: a file beside this one
-- and a row of the list below.
--
--   name, label    in files and messages of ours; for people
--   mark           a tensor that only single files of this family have (optional)
--   fits           function(unet) -> whether a U-Net of these shapes is of this family (optional: the mark says it)
--   unet           prefix in single files; lora: kohya's prefix; spellings of its layers in kohya's files ("diffusers"
--                  or "file", the single file's), the one that is written first; extra_spellings: that only some
--                  programs use; upcast_attention, for diffusers
--   vae            prefix, scaling_factor (where files do not say), force_upcast, for diffusers
--   text           a list of text encoders:
--     prefix, lora      as above; native: what ComfyUI and OneTrainer call it
--     layout            of single files: "clip" or "openclip"; bare: old ones leave out "text_model."
--     unused_layers     layers that single files hold and nobody uses, with a projection nobody uses either
--     projection        false: what files have of it is not used
--     act               activation
--     flavour, pad      of the tokenizer; padding id, or "eos"
--     clip_skip         the n-th last layer gives the states; fixed: whatever a recipe says
--     final_norm        the states are normed
--     pooled            its projected end token is the pooled text
--   conditioning   sizes: the numbers that the U-Net is told beside the pooled text (optional)
--   noise          the noise process (noise.lua)
--   prediction     "epsilon" or "v"; prediction_guess: what is said where that is only likely and files do not tell
--   sample_size    pixels, where files do not say
--   lora           whose a LoRA is: keys that only its files have, likely: keys that its files have most often;
--                  version: pattern of ss_base_model_version; the widths are those of `published`
--   metadata       of LoRA files, kohya's and ModelSpec's words; v: what differs in models that predict v
--   seen_as        program -> { what it calls this family, function(metadata) -> whether it takes a LoRA for one }
--                  (optional)
--   diffusers      pipeline, scheduler, index: further fields of model_index.json, absent: components that it has not
--   published      function() -> a new configuration { unet, vae, text } of the model that was published
local kinds = require "burin.base.kinds"
local families = {}

-- Asked in this order: what takes whatever is left comes last.
local files = {
  "sdxl",
  "sd2",
  "sd1",
}

local list = {}
for i, name in ipairs(files) do  -- read-only: an opened model shows its family to recipes
  list[i] = kinds.read_only(require("burin.models." .. name), "the record of a family")
end

function families.each() return ipairs(list) end

-- The record of this name, nil when there is none.
function families.get(name)
  for _, family in ipairs(list) do if family.name == name then return family end end
end

function families.names()
  local names = {}
  for i, family in ipairs(list) do names[i] = family.name end
  table.sort(names)
  return names
end

-- A new configuration of the published model.
function families.published(family)
  local config = family.published()
  config.family = family.name
  return config
end

-- What LoRA files say of a family and a prediction: base_model_version, v2, architecture, implementation, resolution.
function families.metadata(family, prediction)
  local differs = family.metadata[prediction]
  if not differs then return family.metadata end
  local all = {}
  for name, value in pairs(family.metadata) do all[name] = value end
  for name, value in pairs(differs) do all[name] = value end
  return all
end

-- A program's name for a family; nil when it has none.
function families.called_by(program, family)
  local rule = family.seen_as and family.seen_as[program]
  return rule and rule[1]
end

-- What a program (A1111, Forge) takes a LoRA with these metadata for; nil when it does not know.
function families.seen_as(program, metadata)
  for _, family in ipairs(list) do
    local name = families.called_by(program, family)
    if name and family.seen_as[program][2](metadata) then return name end
  end
end

-- The name of the i-th text encoder among a model's components.
function families.text_name(i) return i == 1 and "text_encoder" or "text_encoder_" .. i end

-- The other way round.
function families.text_index(name) return name == "text_encoder" and 1 or tonumber(name:match "^text_encoder_(%d)$") end

return families
