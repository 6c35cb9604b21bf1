-- SPDX-License-Identifier: MIT
-- handle.lua - burin.model: which files a model is of, opened when the recipe is planned or run.
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local options = require "burin.base.options"
local place = require "burin.base.place"
local handles = {}

local schema = {
  file = { "string", required = true, help = "a checkpoint's file or folder; written first, without a name" },
  vae = { "string", help = "file or folder to take the VAE from" },
  text_encoder = { "string", help = "file or folder to take the text encoder from" },
  text_encoder_2 = { "string", help = "SDXL: the same for the second one" },
}

-- parts: { [component] = path }
local function new(path, parts, at)
  local value = { path = path, parts = parts }
  function value.open(_, o)
    local all = { parts = parts }
    for k, v in pairs(o or {}) do all[k] = v end
    return require("burin.models.model").open(path, all)
  end
  -- A hash of all files, for what must not change while a run lasts. content("unet", "vae" or "text"): that of the
  -- weights, for what is a folder.
  function value.key(_, content)
    local key, names = core.exists(path) == "file" and core.hash_file(path) or content "unet", {}
    for name in pairs(parts) do names[#names + 1] = name end
    table.sort(names)
    for _, name in ipairs(names) do
      local from = parts[name]
      key = key .. name .. (core.exists(from) == "file" and core.hash_file(from)
        or content(name == "vae" and "vae" or "text"))
    end
    return #names == 0 and key or core.hash(key)
  end
  return kinds.new("model", value, at)
end

-- burin.model "file.safetensors", or with parts from elsewhere: burin.model { "file.safetensors", vae = "vae.pt" }
function handles.model(given)
  local here = place.here "model"
  if type(given) == "string" then return new(given, {}, here) end
  if type(given) ~= "table" or kinds.of(given) then
    options.fail("burin.model takes the path of a checkpoint, not %s", kinds.describe(given))
  end
  local named = {}
  for k, v in pairs(given) do named[k == 1 and "file" or k] = v end
  local o = options.check("burin.model", named, schema, here)
  return new(o.file, { vae = o.vae, text_encoder = o.text_encoder, text_encoder_2 = o.text_encoder_2 }, here)
end
kinds.constructor("model", "model", handles.model)

-- The same model with another VAE.
function handles.with_vae(model, vae)
  local parts = { vae = vae }
  for name, path in pairs(model.parts) do parts[name] = parts[name] or path end
  return new(model.path, parts, kinds.place(model))
end

return handles
