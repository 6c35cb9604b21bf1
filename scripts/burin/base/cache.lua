-- SPDX-License-Identifier: MIT
-- cache.lua - computed tensors on disk, keyed by content: what went in (image bytes, size, caption) and what
-- computed it (the weights). A damaged or foreign file, and one of another format, counts as absent and is written
-- again. What there is, and what may go: caches.lua.
local core = require "burin.core"
local cache = { format = "2" }  -- of the entries: what their metadata say

-- The folder of the caches of tensors; that of the drivers' pipelines is core.cache_root()'s.
function cache.root() return core.env "BURIN_CACHE" or core.cache_root() or "/tmp/.cache/burin" end

local function path_of(kind, key)
  return ("%s/%s/%s"):format(cache.root(), kind, key:sub(1, 2)), key .. ".safetensors"
end

-- One hash of all tensors and their names; of a single one its own.
local function hash_of(tensors)
  if tensors.value then return tensors.value:hash() end
  local list = {}
  for name, tensor in pairs(tensors) do list[#list + 1] = name .. tensor:hash() end
  table.sort(list)
  return core.hash(table.concat(list))
end

-- What an entry's file holds, as it was stored, { name = tensor }; nil when it is damaged.
function cache.read(path)
  local ok, tensors = pcall(function()
    local file, list = core.load(path), {}
    for _, each in ipairs(file:names()) do list[each] = file:read(each):cast() end
    local meta = file:meta()
    local same = next(list) and meta.format == cache.format and meta.hash == hash_of(list)
    file:close()
    return same and list or error "damaged"
  end)
  return ok and tensors or nil
end

-- What is stored under (kind, key), or make() stored and returned: a tensor, or a table of tensors by name (nil is not
-- stored). about: { of = what it was computed from, for people; needs = what it cannot be used without (the codec of a
-- picture) }, optional. Second result: whether it was there.
function cache.get(kind, key, make, about)
  local folder, name = path_of(kind, key)
  local path = folder .. "/" .. name
  local tensors = core.exists(path) and cache.read(path)
  if tensors then
    core.in_cache(core.touch, path)  -- so that what is used is not the oldest
    return tensors.value or tensors, true
  end
  local made = make()
  if not made then return nil end
  local list = {}
  tensors = type(made) == "table" and made or { value = made }
  for each, tensor in pairs(tensors) do list[#list + 1] = { each, tensor } end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  local meta = { format = cache.format, hash = hash_of(tensors) }
  for field, text in pairs(about or {}) do meta[field] = core.shown(text) end  -- UTF-8, whatever a file's name is
  core.in_cache(function()
    core.make_dirs(folder)
    core.export(path, "safetensors", list, meta)
  end)
  return made, false
end

return cache
