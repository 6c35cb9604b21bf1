-- SPDX-License-Identifier: MIT
-- files.lua - the files of a model: single-file checkpoints and diffusers folders. open(path) gives
-- the configuration and the opened files, reader(...) one component's tensors under diffusers' names.
local core = require "burin.core"
local detect = require "burin.models.detect"
local files = {}

local function open_single(path)
  local file = core.load(path)
  local function shape(name)
    local info = file:info(name)
    return info and info.shape
  end
  local metadata = file:meta()
  local config = metadata["burin.config"] and core.json_decode(metadata["burin.config"], path)
  if not config then
    config = detect.single(shape)
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
      if not files[component] and core.exists(file) then files[component] = core.load(file) end
    end
  end
  local config = detect.folder(function(component, name)
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

-- path -> configuration (nil when there is no U-Net), opened files
function files.open(path)
  return (core.exists(path) == "folder" and open_folder or open_single)(path)
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
