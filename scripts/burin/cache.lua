-- SPDX-License-Identifier: MIT
-- cache.lua - computed tensors on disk, keyed by content: what went in (image bytes, size, caption) and what
-- computed it (the weights). A damaged or foreign file counts as absent and is written again.
local core = require "burin.core"
local cache = {}

local function path_of(kind, key)
  local root = core.env "BURIN_CACHE"
  if not root then
    local home = core.env "XDG_CACHE_HOME" or ((core.env "HOME" or "/tmp") .. "/.cache")
    root = home .. "/burin"
  end
  return root .. "/" .. kind .. "/" .. key:sub(1, 2), key .. ".safetensors"
end

-- The tensor stored under (kind, key), or make() stored and returned (nil is not stored). Second result: whether it
-- was there.
function cache.get(kind, key, make)
  local folder, name = path_of(kind, key)
  local path = folder .. "/" .. name
  if core.exists(path) then
    local ok, tensor = pcall(function()
      local file = core.load(path)
      local t = file:read "value":cast()
      local same = file:meta().hash == t:hash()
      file:close()
      return same and t or error "damaged"
    end)
    if ok then return tensor, true end
  end
  local tensor = make()
  if not tensor then return nil end
  core.make_dirs(folder)
  core.export(path, "safetensors", { { "value", tensor } }, { hash = tensor:hash() })
  return tensor, false
end

return cache
