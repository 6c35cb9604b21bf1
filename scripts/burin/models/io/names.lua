-- SPDX-License-Identifier: MIT
-- names.lua - one tensor, several names. Canonical names are those of diffusers; single-file
-- ("LDM") checkpoints and kohya's LoRA files use others. The tables are generated from a family's
-- record and a model's configuration.
--
--   local map = names.map(families.get(config.family), config)
--   map:to_file("unet", "conv_in.weight")
--     --> "model.diffusion_model.input_blocks.0.0.weight", "copy"
--   map:to_canonical("model.diffusion_model.input_blocks.0.0.weight")
--     --> "unet", { "conv_in.weight" }, "copy"
--   map:kohya("unet", "conv_in") --> "lora_unet_conv_in"
--
-- How the file's tensor becomes the canonical one: "copy"; "slice" a third of the rows (argument 0,
-- 1 or 2); "squeeze" (out, in, 1, 1) to (out, in); "transpose".
local class = require "burin.base.class"
local families = require "burin.models.families"
local names = {}

local Map, new_map = class "names"

local unet_resnet = { norm1 = "in_layers.0", conv1 = "in_layers.2", time_emb_proj = "emb_layers.1",
  norm2 = "out_layers.0", conv2 = "out_layers.3", conv_shortcut = "skip_connection" }

-- pairs of module names { canonical, file }; longer ones may extend shorter ones
local function unet_modules(c)
  local list = {}
  local function add(a, b) list[#list + 1] = { a, b } end
  local function resnet(a, b)
    for from, to in pairs(unet_resnet) do add(a .. "." .. from, b .. "." .. to) end
  end
  add("conv_in", "input_blocks.0.0")
  add("time_embedding.linear_1", "time_embed.0")
  add("time_embedding.linear_2", "time_embed.2")
  add("add_embedding.linear_1", "label_emb.0.0")
  add("add_embedding.linear_2", "label_emb.0.2")
  add("conv_norm_out", "out.0")
  add("conv_out", "out.2")
  resnet("mid_block.resnets.0", "middle_block.0")
  add("mid_block.attentions.0", "middle_block.1")
  resnet("mid_block.resnets.1", "middle_block.2")
  local levels, n = #c.channels, 0
  for i = 1, levels do
    for j = 0, c.layers - 1 do
      n = n + 1
      local from = ("down_blocks.%d."):format(i - 1)
      resnet(from .. "resnets." .. j, ("input_blocks.%d.0"):format(n))
      add(from .. "attentions." .. j, ("input_blocks.%d.1"):format(n))
    end
    if i < levels then
      n = n + 1
      add(("down_blocks.%d.downsamplers.0.conv"):format(i - 1), ("input_blocks.%d.0.op"):format(n))
    end
  end
  n = 0
  for i = levels, 1, -1 do
    local from, attends = ("up_blocks.%d."):format(levels - i), c.depth[i] > 0
    for j = 0, c.layers do
      resnet(from .. "resnets." .. j, ("output_blocks.%d.0"):format(n))
      if attends then add(from .. "attentions." .. j, ("output_blocks.%d.1"):format(n)) end
      if j == c.layers and i > 1 then
        add(from .. "upsamplers.0.conv", ("output_blocks.%d.%d.conv"):format(n, attends and 2 or 1))
      end
      n = n + 1
    end
  end
  return list
end

local vae_attention = { group_norm = "norm", to_q = "q", to_k = "k", to_v = "v",
  ["to_out.0"] = "proj_out" }
-- names in diffusers folders written before version 0.17
local vae_old_attention = { to_q = "query", to_k = "key", to_v = "value",
  ["to_out.0"] = "proj_attn" }

local function vae_modules(c)
  local list, levels = {}, #c.channels
  local function add(a, b) list[#list + 1] = { a, b } end
  local function resnet(a, b)
    for _, part in ipairs { "norm1", "conv1", "norm2", "conv2" } do
      add(a .. "." .. part, b .. "." .. part)
    end
    add(a .. ".conv_shortcut", b .. ".nin_shortcut")
  end
  for _, side in ipairs { "encoder", "decoder" } do
    add(side .. ".conv_in", side .. ".conv_in")
    add(side .. ".conv_norm_out", side .. ".norm_out")
    add(side .. ".conv_out", side .. ".conv_out")
    resnet(side .. ".mid_block.resnets.0", side .. ".mid.block_1")
    resnet(side .. ".mid_block.resnets.1", side .. ".mid.block_2")
    for from, to in pairs(vae_attention) do
      add(side .. ".mid_block.attentions.0." .. from, side .. ".mid.attn_1." .. to)
    end
  end
  for i = 0, levels - 1 do
    local down = ("encoder.down_blocks.%d."):format(i)
    local up = ("decoder.up_blocks.%d."):format(levels - 1 - i)
    for j = 0, c.layers - 1 do
      resnet(down .. "resnets." .. j, ("encoder.down.%d.block.%d"):format(i, j))
    end
    for j = 0, c.layers do
      resnet(up .. "resnets." .. j, ("decoder.up.%d.block.%d"):format(i, j))
    end
    add(down .. "downsamplers.0.conv", ("encoder.down.%d.downsample.conv"):format(i))
    add(up .. "upsamplers.0.conv", ("decoder.up.%d.upsample.conv"):format(i))
  end
  add("quant_conv", "quant_conv")
  add("post_quant_conv", "post_quant_conv")
  return list
end

local function clip_modules(c)
  local list = {}
  for _, s in ipairs { "embeddings.token_embedding", "embeddings.position_embedding",
    "embeddings.position_ids", "final_layer_norm" } do
    list[#list + 1] = { "text_model." .. s, "text_model." .. s }
  end
  for i = 0, c.layers - 1 do
    local s = "text_model.encoder.layers." .. i
    list[#list + 1] = { s, s }
  end
  return list
end

local openclip_parts = { layer_norm1 = "ln_1", layer_norm2 = "ln_2", ["mlp.fc1"] = "mlp.c_fc",
  ["mlp.fc2"] = "mlp.c_proj", ["self_attn.out_proj"] = "attn.out_proj" }

local function openclip_modules(c)
  local list = { { "text_model.embeddings.token_embedding", "token_embedding" },
    { "text_model.final_layer_norm", "ln_final" } }
  for i = 0, c.layers - 1 do
    for from, to in pairs(openclip_parts) do
      list[#list + 1] = { ("text_model.encoder.layers.%d.%s"):format(i, from),
        ("transformer.resblocks.%d.%s"):format(i, to) }
    end
  end
  return list
end

local function new_table(prefix, modules)
  local t = { prefix = prefix, forward = {}, back = {} }
  for _, pair in ipairs(modules) do
    t.forward[pair[1]] = pair[2]
    t.back[pair[2]] = pair[1]
  end
  return t
end

-- Replaces the longest leading module of `name` that the table knows.
local function replace(map, name)
  local head, tail = name, ""
  while head do
    if map[head] then return map[head] .. tail end
    local cut = head:match "^(.*)%.[^.]*$"
    tail = cut and name:sub(#cut + 1) or tail
    head = cut
  end
end

-- family: a record; config: { unet =, vae =, text = { ... } } as detect.lua makes it
function names.map(family, config)
  local self = new_map { family = family, tables = {}, rules = { unet = family.unet, vae = family.vae } }
  self.tables.unet = new_table(family.unet.prefix, unet_modules(config.unet))
  if config.vae then self.tables.vae = new_table(family.vae.prefix, vae_modules(config.vae)) end
  for i, text in ipairs(config.text or {}) do
    local name, rule = families.text_name(i), family.text[i]
    local open = rule.layout == "openclip"
    self.rules[name] = rule
    self.tables[name] = new_table(rule.prefix, open and openclip_modules(text) or clip_modules(text))
    self.tables[name].open = open and text
  end
  return self
end

local slices = { q = 0, k = 1, v = 2 }

local position = "text_model.embeddings.position_embedding.weight"

local function openclip_to_file(name)
  if name == position then return "positional_embedding", "copy" end
  if name == "text_projection.weight" then return "text_projection", "transpose" end
  local i, rest = name:match "^text_model%.encoder%.layers%.(%d+)%.self_attn%.(.*)$"
  local part, kind = (rest or ""):match "^([qkv])_proj%.(%a+)$"
  if part then
    return ("transformer.resblocks.%s.attn.in_proj_%s"):format(i, kind), "slice", slices[part]
  end
end

-- -> name in a single-file checkpoint, operation, argument; nil when it has none
function Map:to_file(component, name)
  local t = self.tables[component]
  if not t then return nil end
  if t.open then
    local file, op, at = openclip_to_file(name)
    if file then return t.prefix .. file, op, at end
  end
  local file = replace(t.forward, name)
  if not file then return nil end
  local squeeze = component == "vae" and name:match "attentions%.0%.to_.*%.weight$"
  return t.prefix .. file, squeeze and "squeeze" or "copy"
end

local function openclip_to_canonical(config, file)
  if file == "positional_embedding" then return { position }, "copy" end
  if file == "text_projection" and config.projection then
    return { "text_projection.weight" }, "transpose"
  end
  local i, kind = file:match "^transformer%.resblocks%.(%d+)%.attn%.in_proj_(%a+)$"
  -- a layer that files have and nobody uses
  if not i or tonumber(i) >= config.layers then return nil end
  local list = {}
  for part, at in pairs(slices) do
    list[at + 1] = ("text_model.encoder.layers.%s.self_attn.%s_proj.%s"):format(i, part, kind)
  end
  return list, "slice"
end

-- -> component, { canonical names }, operation; nil for what no network has (schedules, position
-- ids)
function Map:to_canonical(file)
  for component, t in pairs(self.tables) do
    if file:sub(1, #t.prefix) == t.prefix then
      local rest = file:sub(#t.prefix + 1)
      if t.open then
        local list, op = openclip_to_canonical(t.open, rest)
        if list then return component, list, op end
      end
      local name = replace(t.back, rest)
      if not name or name:match "position_ids$" then return nil end
      local squeeze = component == "vae" and name:match "attentions%.0%.to_.*%.weight$"
      return component, { name }, squeeze and "squeeze" or "copy"
    end
  end
end

-- Further names under which files are known to hold the tensor that to_file names: merges of 2022 have no
-- "text_model.".
function Map:alternatives(file)
  for _, rule in ipairs(self.family.text) do
    local head = rule.prefix .. "text_model."
    if rule.bare and file:sub(1, #head) == head then return { rule.prefix .. file:sub(#head + 1) } end
  end
  return {}
end

-- The name of which `file` is such an alternative, nil when it is none.
function Map:from_alternative(file)
  for _, rule in ipairs(self.family.text) do
    local p = rule.prefix
    if rule.bare and file:sub(1, #p) == p then return p .. "text_model." .. file:sub(#p + 1) end
  end
end

-- Names in a diffusers folder: the canonical one first.
function Map:in_folder(component, name)
  local list = { name }
  if component == "vae" then
    for new, old in pairs(vae_old_attention) do
      local head, tail = name:match("^(.*%.attentions%.0%.)" .. new:gsub("%.", "%%.") .. "(%.%a+)$")
      if head then list[2] = head .. old .. tail end
    end
  end
  return list
end

-- The canonical name of a tensor in a diffusers folder.
function Map:from_folder(component, name)
  if component == "vae" then
    for new, old in pairs(vae_old_attention) do
      local head, tail = name:match("^(.*%.attentions%.0%.)" .. old .. "(%.%a+)$")
      if head then return head .. new .. tail end
    end
  end
  return name
end

-- Spellings of a layer in kohya's LoRA files, the one that is written first; module names are diffusers' or, where the
-- family's record says so, the single file's. Second result: how many of them are the family's; the rest is only found
-- in files of some programs.
function Map:kohya_spellings(component, module)
  local rule, list = self.rules[component], {}
  local function add(spellings)
    for _, spelling in ipairs(spellings) do
      local name = spelling == "file" and self:module_in_file(component, module) or module
      list[#list + 1] = rule.lora .. name:gsub("%.", "_")
    end
  end
  if not (rule and rule.lora) then return list, 0 end
  add(rule.spellings or { "diffusers" })
  local own = #list
  add(rule.extra_spellings or {})
  return list, own
end

-- A module's name in single files, without their prefix; nil when there is none.
function Map:module_in_file(component, module) return replace(self.tables[component].forward, module) end

-- kohya's name of a layer; nil for a component that has no LoRAs.
function Map:kohya(component, module) return self:kohya_spellings(component, module)[1] end

return names
