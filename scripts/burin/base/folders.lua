-- SPDX-License-Identifier: MIT
-- folders.lua - results that are folders: there as a whole, or not at all.
local core = require "burin.core"
local errors = require "burin.base.errors"
local folders = {}

-- Makes the folder `path`: fill(place) writes into a folder of another name, which gets this one when all of it is
-- there. Returns what fill does.
function folders.write(path, fill)
  if core.exists(path) then errors.raise("exists", path .. ": exists already; a folder is never written over") end
  local temporary = path .. ".tmp-0-0"
  core.remove_tree(temporary)
  core.begin_temporary(temporary)
  local ok, result = pcall(errors.guard, "output", function()
    core.make_dirs(temporary)
    local result = fill(temporary)
    core.rename(temporary, path)
    return result
  end)
  if ok then return result end
  core.remove_tree(temporary)
  error(result, 0)
end

return folders
