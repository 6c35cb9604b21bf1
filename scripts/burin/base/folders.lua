-- SPDX-License-Identifier: MIT
-- folders.lua - results that are folders: there as a whole, or not at all; and what is in a folder.
local core = require "burin.core"
local errors = require "burin.base.errors"
local folders = {}

-- In the folders that a training wrote: a later save of the same name takes their place, and of no others.
local MARK = "/.burin"
local TEXT = "Written by a training with Burin. A later save of this name, after a resume, replaces the whole folder.\n"

-- Removes a folder that folders.write marked; another one is an error.
function folders.remove_own(path)
  if not core.exists(path) then return end
  if not core.exists(path .. MARK) then
    errors.raise("exists", "%s exists and was not written by a training (it has no %s); move it away", path,
      MARK:sub(2))
  end
  core.remove_tree(path)
end

-- Makes the folder `path`: fill(place) writes into a folder of another name, which gets this one when all of it is
-- there. mark: a training's, see above. Returns what fill does.
function folders.write(path, fill, mark)
  if core.exists(path) then errors.raise("exists", path .. ": exists already; a folder is never written over") end
  local temporary = path .. ".tmp-0-0"
  core.remove_tree(temporary)
  core.begin_temporary(temporary)
  local ok, result = pcall(errors.guard, "output", function()
    core.make_dirs(temporary)
    local result = fill(temporary)
    if mark then core.write_file(temporary .. MARK, TEXT) end
    core.rename(temporary, path)
    return result
  end)
  if ok then return result end
  core.remove_tree(temporary)
  error(result, 0)
end

-- The files of a folder and of those in it, sorted; added to a list.
function folders.walk(folder, list)
  list = list or {}
  for _, name in ipairs(core.list(folder)) do
    local path = folder .. "/" .. name
    local kind = core.exists(path)
    if kind == "folder" then folders.walk(path, list) elseif kind == "file" then list[#list + 1] = path end
  end
  return list
end

return folders
