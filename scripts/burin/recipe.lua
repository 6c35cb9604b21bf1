-- SPDX-License-Identifier: MIT
-- recipe.lua - from a file name to a recipe object.
local core = require "burin.core"
local recipe = {}

-- Runs the file in the sandbox. Returns the recipe, its text.
function recipe.load(path, trust)
  if not core.exists(path) then
    error({ exit = 66, message = path .. ": there is no such recipe" }, 0)
  end
  local text = core.read_file(path)
  local ok, result = pcall(core.run_recipe, path, trust)
  if not ok then
    if type(result) == "table" then error(result, 0) end
    error({ exit = 78, message = tostring(result) }, 0)
  end
  if type(result) ~= "table" or not result.is_train_recipe then
    error({ exit = 78, message = path .. ": a recipe ends with: return burin.train { ... }" }, 0)
  end
  return result, text
end

return recipe
