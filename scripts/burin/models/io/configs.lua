-- SPDX-License-Identifier: MIT
-- configs.lua - the JSON files and vocabularies of a diffusers folder, from a model's configuration. Fields and values
-- are those of the published models' folders; what differs between families is in their records.
local core = require "burin.core"
local families = require "burin.models.families"
local noise = require "burin.models.noise"
local configs = {}

local VERSION = "0.25.0"  -- the oldest diffusers that these files were read with

local function merge(...)
  local all = {}
  for _, t in ipairs { ... } do for k, v in pairs(t) do all[k] = v end end
  return all
end

-- The same number for all levels is written as one.
local function levels(list)
  for _, v in ipairs(list) do if v ~= list[1] then return list end end
  return list[1]
end

local function unet(c, config, family)
  local n, down, up, depth = #c.channels, {}, {}, {}
  for i = 1, n do
    local attends = c.depth[i] > 0
    down[i] = attends and "CrossAttnDownBlock2D" or "DownBlock2D"
    up[n + 1 - i] = attends and "CrossAttnUpBlock2D" or "UpBlock2D"
    depth[i] = attends and c.depth[i] or i == n and c.mid_depth or 1  -- the middle block takes the last level's
  end
  return merge({ _class_name = "UNet2DConditionModel", _diffusers_version = VERSION, act_fn = "silu",
    attention_head_dim = levels(c.heads), block_out_channels = c.channels, center_input_sample = false,
    cross_attention_dim = c.context, down_block_types = down, downsample_padding = 1, flip_sin_to_cos = true,
    freq_shift = 0, in_channels = c.in_channels, layers_per_block = c.layers, mid_block_scale_factor = 1,
    norm_eps = 1e-5, norm_num_groups = c.groups, out_channels = c.out_channels,
    sample_size = config.sample_size and config.sample_size // 8, transformer_layers_per_block = levels(depth),
    up_block_types = up, use_linear_projection = c.linear_projection,
    upcast_attention = family.unet.upcast_attention or false }, c.added and { addition_embed_type = "text_time",
    addition_time_embed_dim = c.time_ids_width, projection_class_embeddings_input_dim = c.added } or {})
end

local function vae(c, config, family)
  local down, up = {}, {}
  for i = 1, #c.channels do down[i], up[i] = "DownEncoderBlock2D", "UpDecoderBlock2D" end
  return { _class_name = "AutoencoderKL", _diffusers_version = VERSION, act_fn = "silu",
    block_out_channels = c.channels, down_block_types = down, up_block_types = up, in_channels = 3, out_channels = 3,
    latent_channels = c.latent_channels, layers_per_block = c.layers, norm_num_groups = c.groups,
    sample_size = config.sample_size, scaling_factor = config.scaling_factor,
    force_upcast = family.vae.force_upcast or false }
end

-- bos_token_id and eos_token_id are the published files' 0 and 2, by which transformers knows to find the end of a text
-- as its greatest id.
local function text(c)
  return { architectures = { c.projection and "CLIPTextModelWithProjection" or "CLIPTextModel" },
    attention_dropout = 0.0, bos_token_id = 0, eos_token_id = 2, pad_token_id = 1, hidden_act = c.act,
    hidden_size = c.width, initializer_factor = 1.0, initializer_range = 0.02, intermediate_size = c.mlp,
    layer_norm_eps = 1e-5, max_position_embeddings = c.tokens, model_type = "clip_text_model",
    num_attention_heads = c.heads, num_hidden_layers = c.layers, projection_dim = c.projection or c.width,
      vocab_size = c.vocab }
end

local function scheduler(config, family)
  local betas = noise.new(family.noise).settings
  return merge({ _diffusers_version = VERSION, beta_start = betas.beta_start, beta_end = betas.beta_end,
    beta_schedule = "scaled_linear", num_train_timesteps = betas.steps, steps_offset = 1, clip_sample = false,
    prediction_type = config.prediction == "v" and "v_prediction" or config.prediction,
    rescale_betas_zero_snr = config.zero_snr }, family.diffusers.scheduler)
end

-- ---- CLIP's tokenizer ---------------------------------------------------------------------------------

-- Every symbol in the order of its id: 256 bytes as printable characters, the same ending a word, one per merge, two
-- marks.
local function vocabulary(merges)
  local list, others = {}, {}
  for b = 0, 255 do
    if b >= 33 and b <= 126 or b >= 161 and b <= 172 or b >= 174 then list[#list + 1] = utf8.char(b)
    else others[#others + 1] = utf8.char(256 + #others) end
  end
  table.move(others, 1, #others, #list + 1, list)
  for i = 1, 256 do list[256 + i] = list[i] .. "</w>" end
  for _, line in ipairs(merges) do list[#list + 1] = line:gsub(" ", "", 1) end
  list[#list + 1], list[#list + 2] = "<|startoftext|>", "<|endoftext|>"
  return list
end

local MERGES = 48894

-- pad: an id, or "eos"
local function tokenizer(folder, pad, files)
  local merges, ids = {}, {}
  for line in core.merges():gsub("^[^\n]*\n", "", 1):gmatch "[^\n]+" do
    if #merges < MERGES then merges[#merges + 1] = line end
  end
  local symbols = vocabulary(merges)
  for i, symbol in ipairs(symbols) do ids[symbol] = i - 1 end
  local function mark(content)
    return { content = content, lstrip = false, normalized = true, rstrip = false, single_word = false }
  end
  local special = { bos_token = mark "<|startoftext|>", eos_token = mark "<|endoftext|>",
    unk_token = mark "<|endoftext|>", pad_token = pad == "eos" and "<|endoftext|>" or symbols[pad + 1] }
  files[folder .. "/vocab.json"] = core.json_encode(ids)
  files[folder .. "/merges.txt"] = "#version: 0.2\n" .. table.concat(merges, "\n") .. "\n"
  files[folder .. "/special_tokens_map.json"] = core.json_encode(special, 2) .. "\n"
  files[folder .. "/tokenizer_config.json"] = core.json_encode(merge(special, { add_prefix_space = false,
    do_lower_case = true, errors = "replace", model_max_length = 77, tokenizer_class = "CLIPTokenizer" }), 2) .. "\n"
end

-- config, the components that are written -> { [name in the folder] = text }. A text encoder of another vocabulary than
-- CLIP's gets no tokenizer; the pipeline then takes embeddings only.
function configs.folder(config, parts)
  local files, none, family = {}, { core.null, core.null }, families.get(config.family)
  local index = merge({ _class_name = family.diffusers.pipeline, _diffusers_version = VERSION,
    scheduler = { "diffusers", family.diffusers.scheduler._class_name }, unet = { "diffusers", "UNet2DConditionModel" },
    vae = parts.vae and { "diffusers", "AutoencoderKL" } or none }, family.diffusers.index)
  for _, name in ipairs(family.diffusers.absent or {}) do index[name] = none end
  local function put(name, value) files[name] = core.json_encode(value, 2) .. "\n" end
  put("unet/config.json", unet(config.unet, config, family))
  if parts.vae then put("vae/config.json", vae(config.vae, config, family)) end
  put("scheduler/scheduler_config.json", scheduler(config, family))
  for i, t in ipairs(config.text) do
    local tail = families.text_name(i):match "^text_encoder(.*)$"
    index["text_encoder" .. tail], index["tokenizer" .. tail] = none, none
    if parts["text_encoder" .. tail] then
      put("text_encoder" .. tail .. "/config.json", text(t))
      index["text_encoder" .. tail] = { "transformers",
        t.projection and "CLIPTextModelWithProjection" or "CLIPTextModel" }
      if t.vocab == MERGES + 514 then
        index["tokenizer" .. tail] = { "transformers", "CLIPTokenizer" }
        tokenizer("tokenizer" .. tail, family.text[i].pad, files)
      end
    end
  end
  put("model_index.json", index)
  return files
end

return configs
