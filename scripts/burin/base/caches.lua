-- SPDX-License-Identifier: MIT
-- caches.lua - what is in the cache folders: tensors (cache.lua) and the drivers' pipelines (core/gpu/kernel.c). Files
-- that are neither are never touched.
local cache = require "burin.base.cache"
local core = require "burin.core"
local caches = {}

local PIPELINES = "pipelines"

-- ---- finding --------------------------------------------------------------------------------------------------------

local function is_kind(folder) return folder:match "^%l[%l%d]*$" and folder ~= PIPELINES end

local function files_in(folder)
  local list = core.exists(folder) == "folder" and core.list(folder) or {}
  local at = 0
  return function()
    at = at + 1
    return list[at], list[at] and folder .. "/" .. list[at]
  end
end

-- A file that was not finished, by a process that is not there any more.
local function is_left(name)
  local pid = name:match "%.tmp%-(%d+)%-%d+$"
  return pid and not core.exists("/proc/" .. pid)
end

-- The plugins that there are, as what entries need begins: "stb_image 1.0 ".
local function plugins()
  local list = {}
  for _, p in ipairs(core.plugins()) do list[#list + 1] = ("%s %s "):format(p.name, p.version or "") end
  return list
end

-- Why an entry with these metadata can be of no use any more, or nil.
local function useless(meta, known)
  if meta.format ~= cache.format then return "it was made by another version of Burin" end
  if not meta.needs then return nil end
  for _, front in ipairs(known) do if meta.needs:sub(1, #front) == front then return nil end end
  return "there is no plugin any more that read its picture: " .. meta.needs:match "^[^,]*"
end

local function tensor_entry(kind, path, known)
  local _, bytes, used = core.exists(path)
  local entry = { kind = kind, path = path, bytes = bytes, used = used }
  local ok, meta = pcall(function()
    local file = core.load(path)
    local all = file:meta()
    file:close()
    return all
  end)
  if ok then
    entry.of, entry.useless = meta.of, useless(meta, known)
  else
    entry.damaged = true
  end
  return entry
end

-- { { kind, path, bytes, used = seconds since 1970, of = what it is of, useless = why it can go, damaged = true }
-- ... }, the longest unused first. Whether what an entry holds is what was stored, `verify` says.
function caches.list()
  local list, known, root = {}, plugins(), cache.root()
  local function left(kind, name, path)
    if not is_left(name) then return end
    local _, bytes, used = core.exists(path)
    list[#list + 1] = { kind = kind, path = path, bytes = bytes, used = used,
      useless = "it was not finished: its process has ended" }
  end
  for kind, folder in files_in(root) do
    for part, inner in files_in(is_kind(kind) and folder or "") do
      for name, path in files_in(part:match "^%x%x$" and inner or "") do
        if name:match "^%x+%.safetensors$" then list[#list + 1] = tensor_entry(kind, path, known)
        else left(kind, name, path) end
      end
    end
  end
  for name, path in files_in((core.cache_root() or root) .. "/" .. PIPELINES) do
    local _, bytes, used = core.exists(path)
    if name:match "%.bin$" then list[#list + 1] = { kind = PIPELINES, path = path, bytes = bytes, used = used }
    else left(PIPELINES, name, path) end
  end
  table.sort(list, function(a, b)
    if a.used ~= b.used then return a.used < b.used end
    return a.path < b.path
  end)
  return list
end

-- ---- checking, removing ---------------------------------------------------------------------------------------------

-- A header of 24 bytes: a mark, the hash of the rest and its length (core/gpu/kernel.c).
local function pipelines_are_whole(path)
  local ok, text = pcall(core.read_file, path, 1 << 28)
  if not ok or #text < 24 or text:sub(1, 8) ~= "burinpc1" then return false end
  local hash, bytes = ("<I8I8"):unpack(text, 9)
  return bytes == #text - 24 and core.hash(text:sub(25)) == ("%016x"):format(hash)
end

-- Reads every entry and marks those as damaged that are not what was stored. Entries that nobody will use are passed
-- over.
function caches.verify(list, each)
  for i, entry in ipairs(list) do
    if not entry.useless and not entry.damaged then
      local whole
      if entry.kind == PIPELINES then whole = pipelines_are_whole(entry.path) else whole = cache.read(entry.path) end
      entry.damaged = not whole or nil
    end
    if each then each(i) end
  end
end

-- Which entries go, in this order, each with `why`: those of no use or damaged; those that were not used for so many
-- days; then the longest unused ones, until the rest has at most o.bytes. o: days, bytes
function caches.choose(list, o)
  local out, rest, total, now = {}, {}, 0, select(2, core.date())
  for _, entry in ipairs(list) do
    local old = o.days and now - entry.used > o.days * 86400
    entry.why = entry.useless or entry.damaged and "it is damaged" or old and "it is old" or nil
    if entry.why then
      out[#out + 1] = entry
    else
      rest[#rest + 1], total = entry, total + entry.bytes
    end
  end
  for _, entry in ipairs(rest) do
    if not o.bytes or total <= o.bytes then break end
    entry.why, total = "the cache is larger than it may be", total - entry.bytes
    out[#out + 1] = entry
  end
  return out
end

-- Entries that are being read elsewhere stay whole there: a mapped file is there until it is let go.
function caches.remove(entries)
  for _, entry in ipairs(entries) do core.remove_file(entry.path) end
end

return caches
