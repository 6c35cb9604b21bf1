-- SPDX-License-Identifier: MIT
-- files.lua - the files of a model: single-file checkpoints and diffusers folders. open(path) gives
-- the configuration and the opened files, reader(...) one component's tensors under diffusers' names.
local core = require "burin.core"
local detect = require "burin.models.io.detect"
local folder = require "burin.models.io.folder"
local errors = require "burin.base.errors"
local scaled = require "burin.models.io.scaled"
local settings = require "burin.models.io.settings"
local files = {}

-- Configuration from names and shapes; nil when there is no U-Net, an error when it is a torso.
local function detected(path, how, shape)
  local ok, config = pcall(how, shape)
  if ok then return config end
  errors.raise("data", path
    .. ": it has a Stable Diffusion U-Net, but tensors are missing or have unknown shapes")
end

-- What Burin wrote into a file of its own, or false.
local function read_own(config, file, path)
  local own = file:meta()["burin.config"]
  if own then settings.own(config, errors.guard("data", core.json_decode, own, path), path) end
  return own ~= nil
end

local function open_single(path)
  local file = scaled.view(errors.guard("data", core.load, path), path)
  local config = detected(path, detect.single, function(name)
    local info = file:info(name)
    return info and info.shape
  end)
  if config and not read_own(config, file, path) then
    local beside = (path:match "^(.*/)" or "") .. "config.json"
    local object = folder.read_object(beside)
    if object then settings.beside(config, object, beside) end
  end
  return config, { single = file }
end

local function open_folder(path)
  local files = {}
  folder.check_index(path)
  for _, component in ipairs { "unet", "vae", "text_encoder", "text_encoder_2" } do
    files[component] = folder.weights(path, component)
  end
  local config = detected(path, detect.folder, function(component, name)
    local info = files[component] and files[component]:info(name)
    return info and info.shape
  end)
  if config then
    for i = 1, #config.text do folder.check_tokenizer(path, i == 1 and "tokenizer" or "tokenizer_" .. i) end
    read_own(config, files.unet, path)
    settings.folder(config, function(name) return folder.read_object(path .. "/" .. name) end, path)
  end
  local extras = path .. "/single_file_extras.safetensors"  -- see layout.lua
  if core.exists(extras) then files.extras = errors.guard("data", core.load, extras) end
  return config, files
end

-- path -> configuration, opened files
function files.open(path)
  if not core.exists(path) then
    errors.raise("input", path .. ": there is no such model")
  end
  local config, opened = (core.exists(path) == "folder" and open_folder or open_single)(path)
  if config then return config, opened end
  local lora = opened.single and table.concat(opened.single:names(), "\n"):find "lora_"
  errors.raise("data", path .. (lora and ": this is a LoRA, not a base model"
    or ": no Stable Diffusion U-Net found in it"))
end

-- A VAE by itself: a diffusers folder of one, or a file under diffusers' names, single-file names, or those without
-- their prefix. -> opened files, for layout.items
function files.open_vae(path, prefix)
  if core.exists(path) == "folder" then
    local whole = folder.weights(path, "vae")
    local alone = folder.weights(path:match "^(.-)/*$" .. "/..", path:match "([^/]*)/*$")
    local vae = whole or alone
    if vae then return { vae = vae } end
  elseif core.exists(path) then
    local file = scaled.view(errors.guard("data", core.load, path), path)
    if file:info "encoder.mid_block.resnets.0.conv1.weight" then return { vae = file } end
    if file:info(prefix .. "encoder.mid.block_1.conv1.weight") then return { single = file } end
    if file:info "encoder.mid.block_1.conv1.weight" then
      local list = {}
      for i, name in ipairs(file:names()) do list[i] = prefix .. name end
      return { single = { names = function() return list end, meta = function() return {} end,
        info = function(_, name) return file:info(name:sub(#prefix + 1)) end,
        read = function(_, name) return file:read(name:sub(#prefix + 1)) end } }
    end
  else
    errors.raise("input", path .. ": there is no such VAE")
  end
  errors.raise("data", path .. ": no VAE of Stable Diffusion found in it")
end

-- reader(canonical name) -> tensor in diffusers' layout, out of opened files
function files.reader(opened, map, component)
  if not opened.single then
    local file = opened[component]
    return function(name)
      for _, n in ipairs(map:in_folder(component, name)) do
        local t = file and file:read(n)
        if t then return t end
      end
    end
  end
  return function(name)
    local key, op, at = map:to_file(component, name)
    if not key then return nil end
    local t = opened.single:read(key)
    for _, other in ipairs(not t and map:alternatives(key) or {}) do
      t = t or opened.single:read(other)
    end
    if t and op == "slice" then
      local rows = t.shape[1] // 3
      return t:rows(at * rows + 1, (at + 1) * rows)
    end
    return t and op == "transpose" and t:permute { 2, 1 } or t
  end
end

return files
