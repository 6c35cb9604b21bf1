-- SPDX-License-Identifier: MIT
-- folder.lua - the files of a diffusers folder: weights, whole or in shards, JSON objects. Folders are downloaded, so
-- nothing in them is believed: shards must lie in the folder, and code that comes with a model is never run.
local core = require "burin.core"
local errors = require "burin.base.errors"
local scaled = require "burin.models.io.scaled"
local sums = require "burin.base.sums"
local folder = {}

local JSON_BYTES, INDEX_BYTES = 16 << 20, 4 << 20

local fail = errors.file

-- The JSON object of a file, nil when there is no such file.
function folder.read_object(path, bytes)
  local kind = core.exists(path)
  if not kind then return nil end
  if kind ~= "file" then fail(path, "this is a %s; a file is expected", kind) end
  local text = errors.guard("data", core.read_file, path, bytes or JSON_BYTES)
  local object = errors.guard("data", core.json_decode, text, path)
  if type(object) ~= "table" or #object > 0 then fail(path, "a JSON object is expected") end
  return object
end

-- ---- weights ------------------------------------------------------------------------------------------------------

-- Without links, a shard lies in the folder of its index, or where Hugging Face's cache keeps the files of a snapshot.
local function inside(path, index)
  local top, real = core.real_path(index:match "^(.*)/"), core.real_path(path)
  local repository = top:match "^(.*)/snapshots/[^/]+/[^/]+$"
  local function below(place) return real:sub(1, #place + 1) == place .. "/" end
  return not real or below(top) or (repository and below(repository .. "/blobs"))
end

-- The shards that an index file names, as one file.
local function open_shards(index)
  local map = folder.read_object(index, INDEX_BYTES).weight_map
  local shards, all, list = {}, {}, {}
  if type(map) ~= "table" then fail(index, "no weight_map in it") end
  for name, shard in pairs(map) do
    if type(shard) ~= "string" or shard:find "/" or shard:find "^%.*$" then
      fail(index, "%s is said to be in '%s'; a file name is expected", name, tostring(shard))
    end
    local path = index:match "^(.*)/" .. "/" .. shard
    if not shards[shard] and not inside(path, index) then fail(path, "this link leads out of the model's folder") end
    shards[shard] = shards[shard] or errors.guard("data", sums.load, path)
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
  return file and scaled.view(sharded and open_shards(file) or errors.guard("data", sums.load, file), file)
end

-- ---- what else is in it -------------------------------------------------------------------------------------------

-- Components with code of their own: they would have to be run to be read.
local OURS = { diffusers = true, transformers = true }

function folder.check_index(path)
  local file = path .. "/model_index.json"
  local index = folder.read_object(file) or {}
  for _, name in ipairs { "_class_name", "unet", "vae", "text_encoder", "text_encoder_2" } do
    local entry = index[name]
    local from = type(entry) == "table" and entry[1]
    if name == "_class_name" and type(entry) == "table" or from and from ~= core.null and not OURS[from] then
      fail(file, "%s comes with code of its own (%s); Burin never runs code from a model", name,
        core.json_encode(entry))
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
  local lines = errors.guard("data", core.read_file, file, JSON_BYTES)
  lines = lines:gsub("\r", ""):gsub("^#version[^\n]*\n", ""):gsub("\n*$", "\n")
  local known = core.merges():gsub("^[^\n]*\n", "", 1)
  if known:sub(1, #lines) ~= lines or select(2, lines:gsub("\n", "")) ~= MERGES then
    fail(file, "these are not CLIP's %d merges, and another tokenizer is not supported", MERGES)
  end
end

return folder
