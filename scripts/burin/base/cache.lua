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

-- One hash of all tensors and their names; of a single one its own.
local function hash_of(tensors)
  if tensors.value then return tensors.value:hash() end
  local list = {}
  for name, tensor in pairs(tensors) do list[#list + 1] = name .. tensor:hash() end
  table.sort(list)
  return core.hash(table.concat(list))
end

-- What is stored under (kind, key), or make() stored and returned: a tensor, or a table of tensors by name (nil is not
-- stored). Second result: whether it was there.
function cache.get(kind, key, make)
  local folder, name = path_of(kind, key)
  local path = folder .. "/" .. name
  if core.exists(path) then
    local ok, tensors = pcall(function()
      local file, list = core.load(path), {}
      for _, each in ipairs(file:names()) do list[each] = file:read(each):cast() end
      local same = next(list) and file:meta().hash == hash_of(list)
      file:close()
      return same and list or error "damaged"
    end)
    if ok then return tensors.value or tensors, true end
  end
  local made = make()
  if not made then return nil end
  local list, tensors = {}, type(made) == "table" and made or { value = made }
  for each, tensor in pairs(tensors) do list[#list + 1] = { each, tensor } end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  core.in_cache(function()
    core.make_dirs(folder)
    core.export(path, "safetensors", list, { hash = hash_of(tensors) })
  end)
  return made, false
end

return cache
