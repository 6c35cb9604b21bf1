-- SPDX-License-Identifier: MIT
-- folder.lua - the files of a diffusers folder: weights, whole or in shards, and settings. Folders are downloaded, so
-- nothing in them is believed: settings must agree with the tensors, shards must lie in the folder, and code that comes
-- with a model is never run.
local core = require "burin.core"
local guard = require "burin.guard"
local folder = {}

local JSON_BYTES, INDEX_BYTES = 16 << 20, 64 << 20

local function fail(path, why, ...) error({ exit = 65, message = path .. ": " .. why:format(...) }, 0) end

-- The JSON object of a file, nil when there is no such file.
local function read_object(path, bytes)
  local kind = core.exists(path)
  if not kind then return nil end
  if kind ~= "file" then fail(path, "this is a %s; a file is expected", kind) end
  local object = guard(65, core.json_decode, guard(65, core.read_file, path, bytes or JSON_BYTES), path)
  if type(object) ~= "table" or #object > 0 then fail(path, "a JSON object is expected") end
  return object
end

-- ---- weights ----------------------------------------------------------------------------------------------------------

-- Without links, a shard lies in the folder of its index, or where Hugging Face's cache keeps the files of a snapshot.
local function inside(path, index)
  local top, real = core.real_path(index:match "^(.*)/"), core.real_path(path)
  local repository = top:match "^(.*)/snapshots/[^/]+/[^/]+$"
  local function below(place) return real:sub(1, #place + 1) == place .. "/" end
  return not real or below(top) or (repository and below(repository .. "/blobs"))
end

-- The shards that an index file names, as one file.
local function open_shards(index)
  local map = read_object(index, INDEX_BYTES).weight_map
  local shards, all, list = {}, {}, {}
  if type(map) ~= "table" then fail(index, "no weight_map in it") end
  for name, shard in pairs(map) do
    if type(shard) ~= "string" or shard:find "/" or shard:find "^%.*$" then
      fail(index, "%s is said to be in '%s'; a file name is expected", name, tostring(shard))
    end
    local path = index:match "^(.*)/" .. "/" .. shard
    if not shards[shard] and not inside(path, index) then fail(path, "this link leads out of the model's folder") end
    shards[shard] = shards[shard] or guard(65, core.load, path)
    if not shards[shard]:info(name) then fail(index, "%s is not in %s", name, shard) end
    all[name], list[#list + 1] = shards[shard], name
  end
  table.sort(list)
  return { names = function() return list end, meta = function() return {} end,
    info = function(_, name) return all[name] and all[name]:info(name) end,
    read = function(_, name) return all[name] and all[name]:read(name) end }
end

-- The file or index with the weights, the full ones before .fp16. and other variants.
local function find_weights(place, extension)
  for _, variant in ipairs { "", ".fp16", ".bf16", ".non_ema" } do
    for _, stem in ipairs { "diffusion_pytorch_model", "model", "pytorch_model" } do
      local file = ("%s/%s%s.%s"):format(place, stem, variant, extension)
      if core.exists(file) then return file end
      local index = ("%s/%s.%s.index%s.json"):format(place, stem, extension, variant)
      if core.exists(index) then return index, true end
    end
  end
end

-- The weights of one component, nil when the folder has none. safetensors go before PyTorch's .bin.
function folder.weights(path, component)
  local place = path .. "/" .. component
  local file, sharded = find_weights(place, "safetensors")
  local torch, torch_sharded = find_weights(place, "bin")
  if file and torch then
    core.log("info", ("%s is read, not %s beside it"):format(file, torch:match "[^/]*$"))
  elseif torch then
    file, sharded = torch, torch_sharded
  end
  return file and (sharded and open_shards(file) or guard(65, core.load, file))
end

-- ---- settings ---------------------------------------------------------------------------------------------------------

local function integer(low, high)
  return function(v) return math.type(v) == "integer" and v >= low and v <= high, ("an integer from %d to %d"):format(low, high) end
end
local function number(low, high)
  return function(v) return type(v) == "number" and v > low and v < high, ("a number between %g and %g"):format(low, high) end
end
local function one_of(...)
  local list = { ... }
  return function(v)
    for _, known in ipairs(list) do if v == known then return true end end
    return false, "one of " .. table.concat(list, ", ")
  end
end
local function text_of(v)
  return type(v) == "table" and core.json_encode(v) or type(v) == "string" and '"' .. v .. '"' or tostring(v)
end
local function equal(want) return function(v) return text_of(v) == text_of(want), text_of(want) .. ", as the tensors have it," end end

-- Numbers of heads: one for all levels or, in a U-Net, a list; each divides its level's channels.
local function heads(channels)
  return function(v)
    local ok = type(v) ~= "table" or #v == #channels and #v > 1
    for i, c in ipairs(channels) do
      local h = type(v) == "table" and v[i] or v
      ok = ok and math.type(h) == "integer" and h >= 1 and h <= c and c % h == 0
    end
    return ok, "divisors of " .. table.concat(channels, ", ")
  end
end

local function text_rules(t)
  return { hidden_size = equal(t.width), num_hidden_layers = equal(t.layers), vocab_size = equal(t.vocab),
    num_attention_heads = heads { t.width }, hidden_act = one_of("gelu", "quick_gelu") }
end

-- The rules of each file, from the configuration that the tensors showed. A function says whether a value is right, and
-- what was expected.
local function rules(config)
  local u, v, all = config.unet, config.vae, {}
  local groups = integer(1, 4096)
  all["unet/config.json"] = { in_channels = equal(u.in_channels), out_channels = equal(u.out_channels),
    block_out_channels = equal(u.channels), layers_per_block = equal(u.layers), cross_attention_dim = equal(u.context),
    attention_head_dim = heads(u.channels), num_attention_heads = heads(u.channels), norm_num_groups = groups,
    sample_size = integer(1, 4096), addition_time_embed_dim = integer(2, 65536) }
  if v then
    all["vae/config.json"] = { block_out_channels = equal(v.channels), layers_per_block = equal(v.layers),
      latent_channels = equal(v.latent_channels), norm_num_groups = groups, scaling_factor = number(0, 1000) }
  end
  all["scheduler/scheduler_config.json"] = { beta_start = number(0, 1), beta_end = number(0, 1),
    num_train_timesteps = integer(2, 1000000), prediction_type = one_of("epsilon", "v_prediction") }
  for i, t in ipairs(config.text) do all["text_encoder" .. (i == 1 and "" or "_" .. i) .. "/config.json"] = text_rules(t) end
  return all
end

-- Noise is always added as Stable Diffusion does it.
local BETAS = { beta_start = 0.00085, beta_end = 0.012, beta_schedule = "scaled_linear", num_train_timesteps = 1000 }
local function mention_betas(file, object)
  for field, ours in pairs(BETAS) do
    if object[field] ~= nil and object[field] ~= ours then
      core.log("warn", ("%s: %s is %s, but %s is used, as in Stable Diffusion"):format(file, field, text_of(object[field]), ours))
    end
  end
end

-- read(name) -> the checked settings of a file in the folder, nil when it has none
function folder.settings(path, config)
  local all = rules(config)
  return function(name)
    local file = path .. "/" .. name
    local object = read_object(file)
    for field, rule in pairs(object and all[name] or {}) do
      local value = object[field]
      if value == core.null then value = nil end
      local ok, expected = true, nil
      if value ~= nil then ok, expected = rule(value) end
      if not ok then fail(file, "%s is %s; %s was expected", field, text_of(value), expected) end
      object[field] = value
    end
    if object and name:find "^scheduler/" then mention_betas(file, object) end
    return object
  end
end

-- Components with code of their own: they would have to be run to be read.
local OURS = { diffusers = true, transformers = true }

function folder.check_index(path)
  local file = path .. "/model_index.json"
  local index = read_object(file) or {}
  for _, name in ipairs { "_class_name", "unet", "vae", "text_encoder", "text_encoder_2" } do
    local entry = index[name]
    local from = type(entry) == "table" and entry[1]
    if name == "_class_name" and type(entry) == "table" or from and from ~= core.null and not OURS[from] then
      fail(file, "%s comes with code of its own (%s); Burin never runs code from a model", name, text_of(entry))
    end
  end
end

-- Prompts are always cut into CLIP's tokens, so a folder with another tokenizer would be misread.
local MERGES = 48894
function folder.check_tokenizer(path, name)
  local file = ("%s/%s/merges.txt"):format(path, name)
  local kind = core.exists(file)
  if not kind then return end
  if kind ~= "file" then fail(file, "this is a %s; a file is expected", kind) end
  local lines = guard(65, core.read_file, file, JSON_BYTES):gsub("\r", ""):gsub("^#version[^\n]*\n", ""):gsub("\n*$", "\n")
  local known = core.merges():gsub("^[^\n]*\n", "", 1)
  if known:sub(1, #lines) ~= lines or select(2, lines:gsub("\n", "")) ~= MERGES then
    fail(file, "these are not CLIP's %d merges, and another tokenizer is not supported", MERGES)
  end
end

folder.read_object = read_object
return folder
