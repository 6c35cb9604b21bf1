-- SPDX-License-Identifier: MIT
-- files.lua - the files of a model: single-file checkpoints and diffusers folders. open(path) gives
-- the configuration and the opened files, reader(...) one component's tensors under diffusers' names.
local core = require "burin.core"
local detect = require "burin.models.detect"
local guard = require "burin.guard"
local files = {}

-- Configuration from names and shapes; nil when there is no U-Net, an error when it is a torso.
local function detected(path, how, shape)
  local ok, config = pcall(how, shape)
  if ok then return config end
  error({ exit = 65, message = path
    .. ": it has a Stable Diffusion U-Net, but tensors are missing or have unknown shapes" }, 0)
end

local function open_single(path)
  local file = guard(65, core.load, path)
  local function shape(name)
    local info = file:info(name)
    return info and info.shape
  end
  local metadata = file:meta()
  local config = metadata["burin.config"]
    and guard(65, core.json_decode, metadata["burin.config"], path)
  if not config then
    config = detected(path, detect.single, shape)
    local beside = path:match "^(.*/)" or ""
    if config and core.exists(beside .. "config.json") then
      local text = core.read_file(beside .. "config.json")
      detect.apply_config(config, core.json_decode(text, beside .. "config.json"))
    end
  end
  return config, { single = file }
end

local function open_folder(path)
  local files = {}
  for _, component in ipairs { "unet", "vae", "text_encoder", "text_encoder_2" } do
    for _, stem in ipairs { "diffusion_pytorch_model", "model", "diffusion_pytorch_model.fp16",
      "model.fp16" } do
      local file = ("%s/%s/%s.safetensors"):format(path, component, stem)
      if not files[component] and core.exists(file) then
        files[component] = guard(65, core.load, file)
      end
    end
  end
  local config = detected(path, detect.folder, function(component, name)
    local info = files[component] and files[component]:info(name)
    return info and info.shape
  end)
  if config then
    detect.apply_folder(config, function(name)
      local file = path .. "/" .. name
      return core.exists(file) and core.json_decode(core.read_file(file), file) or nil
    end)
  end
  return config, files
end

-- path -> configuration, opened files
function files.open(path)
  if not core.exists(path) then
    error({ exit = 66, message = path .. ": there is no such model" }, 0)
  end
  if not core.exists(path) then
    error({ exit = 66, message = path .. ": there is no such model" }, 0)
  end
  local config, opened = (core.exists(path) == "folder" and open_folder or open_single)(path)
  if config then return config, opened end
  local lora = opened.single and table.concat(opened.single:names(), "\n"):find "lora_"
  error({ exit = 65, message = path .. (lora and ": this is a LoRA, not a base model"
    or ": no Stable Diffusion U-Net found in it") }, 0)
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
