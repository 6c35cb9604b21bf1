-- SPDX-License-Identifier: MIT
-- files.lua - the files of a model: single-file checkpoints and diffusers folders. open(path) gives
-- the configuration and the opened files, reader(...) one component's tensors under diffusers' names.
local core = require "burin.core"
local families = require "burin.models.families"
local detect = require "burin.models.io.detect"
local folder = require "burin.models.io.folder"
local errors = require "burin.base.errors"
local scaled = require "burin.models.io.scaled"
local settings = require "burin.models.io.settings"
local sums = require "burin.base.sums"
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

-- Takes components out of other files, before the settings are read: they are of the whole model.
-- parts: { [component] = path }
local function complete(config, opened, parts)
  local family = families.get(config.family)
  for component, path in pairs(parts or {}) do
    local index = component ~= "vae" and families.text_index(component)
    if index and not family.text[index] then
      errors.raise("recipe", "%s: %s has no second text encoder", path, family.label)
    end
    local part = files.open_part(path, component, family)
    local file = part.single or part[component]
    local found = detect.part(function(name)
      local info = file:info(name)
      return info and info.shape
    end, component, family, part.single ~= nil)
    if index then config.text[index] = found else config.vae = found end
    opened.parts = opened.parts or {}
    opened.parts[component] = part
  end
end

-- What the files of the parts say of themselves; it goes before what the base says of it.
local function read_parts(config, opened, parts)
  for component, part in pairs(opened.parts or {}) do
    local path, file = parts[component], part.single or part[component]
    local own = file:meta()["burin.config"]
    if own then settings.part(config, component, errors.guard("data", core.json_decode, own, path), path) end
    for _, name in ipairs { "config.json", component .. "/config.json" } do
      name = path .. "/" .. name
      local object = core.exists(path) == "folder" and folder.read_object(name)
      if object then settings.part_folder(config, component, object, name) end
    end
  end
end

local function open_single(path, parts)
  local file = scaled.view(errors.guard("data", sums.load, path), path)
  local config = detected(path, detect.single, function(name)
    local info = file:info(name)
    return info and info.shape
  end)
  local opened = { single = file }
  if not config then return nil, opened end
  complete(config, opened, parts)
  if not read_own(config, file, path) then
    local beside = (path:match "^(.*/)" or "") .. "config.json"
    local object = folder.read_object(beside)
    if object then settings.beside(config, object, beside) end
  end
  read_parts(config, opened, parts)
  return config, opened
end

local function open_folder(path, parts)
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
    complete(config, files, parts)
    for i = 1, #config.text do folder.check_tokenizer(path, i == 1 and "tokenizer" or "tokenizer_" .. i) end
    read_own(config, files.unet, path)
    settings.folder(config, function(name) return folder.read_object(path .. "/" .. name) end, path)
    read_parts(config, files, parts)
  end
  local extras = path .. "/single_file_extras.safetensors"  -- see layout.lua
  if core.exists(extras) then files.extras = errors.guard("data", sums.load, extras) end
  return config, files
end

-- path -> configuration, opened files. parts: { [component] = path }, optional: components from elsewhere, instead of
-- the model's own or because it has none.
function files.open(path, parts)
  if not core.exists(path) then
    errors.raise("input", path .. ": there is no such model")
  end
  local config, opened = (core.exists(path) == "folder" and open_folder or open_single)(path, parts)
  if config then return config, opened end
  local lora = opened.single and table.concat(opened.single:names(), "\n"):find "lora_"
  errors.raise("data", path .. (lora and ": this is a LoRA, not a base model"
    or ": no Stable Diffusion U-Net found in it"))
end

-- Tensors that every file with a component has, under diffusers' names and under a single file's.
local marks = { vae = { "encoder.mid_block.resnets.0.conv1.weight", "encoder.mid.block_1.conv1.weight" },
  clip = { "text_model.final_layer_norm.weight", "text_model.final_layer_norm.weight" },
  openclip = { "text_model.final_layer_norm.weight", "ln_final.weight" } }

-- A file whose names lack the prefix that they have in a single file of a whole model.
local function prefixed(file, prefix)
  local list = {}
  for i, name in ipairs(file:names()) do list[i] = prefix .. name end
  return { names = function() return list end, meta = function() return file:meta() end, scaled = file.scaled,
    info = function(_, name) return file:info(name:sub(#prefix + 1)) end,
    read = function(_, name) return file:read(name:sub(#prefix + 1)) end }
end

-- A component by itself, or a whole model's: a diffusers folder, or a file under diffusers' names, single-file names,
-- or those without their prefix. -> opened files, for layout.items
function files.open_part(path, component, family)
  local rule = component == "vae" and family.vae or family.text[families.text_index(component)]
  local mark = marks[component == "vae" and "vae" or rule.layout]
  if core.exists(path) == "folder" then
    local whole = folder.weights(path, component)
    local alone = folder.weights(path:match "^(.-)/*$" .. "/..", path:match "([^/]*)/*$")
    local file = whole or alone
    if file and file:info(mark[1]) then return { [component] = file } end
  elseif core.exists(path) then
    local file = scaled.view(errors.guard("data", sums.load, path), path)
    if file:info(mark[1]) then return { [component] = file } end
    if file:info(rule.prefix .. mark[2]) then return { single = file } end
    if file:info(mark[2]) then return { single = prefixed(file, rule.prefix) } end
  else
    errors.raise("input", "%s: there is no such %s", path, component == "vae" and "VAE" or "text encoder")
  end
  errors.raise("data", "%s: no %s of %s found in it", path, component == "vae" and "VAE" or "text encoder",
    family.label:match "^SD" and family.label or "Stable Diffusion")
end

-- reader(canonical name) -> tensor in diffusers' layout, out of opened files
function files.reader(opened, map, component)
  opened = opened.parts and opened.parts[component] or opened
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

-- The same reader, which stops at a number that is none: it would make every loss and picture NaN, and name nothing.
function files.finite(reader, path, component)
  return function(name)
    local t = reader(name)
    if t and not t:finite() then
      errors.file(path, "%s.%s holds a NaN or an infinity; the file is damaged, or was saved from a training that had "
        .. "diverged", component, name)
    end
    return t
  end
end

return files
