-- SPDX-License-Identifier: MIT
-- sums.lua - hashes in the files that Burin writes, by which every flipped bit is found: of all that comes before the
-- data, and of each tensor (plugins/safetensors/st.h has their form). Other programs do not look at them; one that
-- changes the metadata, or copies them into another file, leaves sums that are not that file's. So a header that its
-- sum does not agree with is only said when a file is used; where it agrees, a tensor that does not is an error.
local core = require "burin.core"
local errors = require "burin.base.errors"
local sums = {}

local KEY, DIGITS, PART = "burin.sums", 16, 1 << 20

-- Asks for sums: adds what core.export's metadata say then. Returns them.
function sums.ask(metadata)
  metadata[KEY] = ""
  return metadata
end

-- The bytes of a safetensors file before its data.
local function head_of(path)
  local n, parts = 8 + ("<I8"):unpack(core.read_part(path, 0, 8)), {}
  for at = 0, n - 1, PART do parts[#parts + 1] = core.read_part(path, at, math.min(PART, n - at)) end
  return table.concat(parts)
end

-- { [name] = sum } of a file, nil where they are not its own; its names, nil where it has no sums.
local function read(file, path)
  local text = file:meta()[KEY]
  if not text then return nil end
  local names, list = file:names(), {}
  if #text ~= DIGITS * (#names + 1) then return nil, names end
  local head, before = head_of(path), ('"%s":"'):format(KEY)
  local at = select(2, head:find(before .. text, 1, true))
  if not at then return nil, names end
  at = at - #text
  if core.hash(head:sub(1, at) .. ("0"):rep(DIGITS) .. head:sub(at + DIGITS + 1)) ~= text:sub(1, DIGITS) then
    return nil, names
  end
  for i, name in ipairs(names) do list[name] = text:sub(DIGITS * i + 1, DIGITS * (i + 1)) end
  return list, names
end

-- core.load, whose tensors are compared with their sums as they are read; a damaged one is an error of this file. The
-- sums themselves are not among its metadata.
function sums.load(path)
  local file = core.load(path)
  local list, names = read(file, path)
  if not names then return file end
  if not list then
    core.log("warn", ("%s: its sums are not its own: it is damaged, or another program has changed it; its tensors are "
      .. "not compared with them (burin hash --verify)"):format(path))
  end
  local view, checked = {}, {}
  function view.names() return file:names() end
  function view.info(_, name) return file:info(name) end
  function view.close() file:close() end
  function view.meta()
    local meta = file:meta()
    meta[KEY] = nil
    return meta
  end
  function view.read(_, name)
    local t = file:read(name)
    if t and list and not checked[name] then
      if t:hash() ~= list[name] then
        errors.file(path, "the file is damaged: tensor '%s' does not match its sum (burin hash --verify)", name)
      end
      checked[name] = true
    end
    return t
  end
  return view
end

-- Compares all of a file with its sums: { sentences } of what is damaged, none when it is whole; nil when it carries no
-- sums. A file that cannot be read is damaged.
function sums.verify(path)
  local ok, file = pcall(core.load, path)
  if not ok then return { errors.message(file) } end
  local list, names = read(file, path)
  local damaged = {}
  if names and not list then
    damaged[1] = "its header, or its sums are not its own: another program has changed it"
  end
  for _, name in ipairs(list and names or {}) do
    local good, t = pcall(file.read, file, name)
    if not good or t:hash() ~= list[name] then damaged[#damaged + 1] = ("tensor '%s'"):format(name) end
  end
  file:close()
  return names and damaged
end

return sums
