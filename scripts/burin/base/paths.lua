-- SPDX-License-Identifier: MIT
-- paths.lua - where the files are that a recipe names: what it writes lies in its run's folder, what it reads is
-- looked for there first.
local core = require "burin.core"
local errors = require "burin.base.errors"
local options = require "burin.base.options"
local paths = {}

local run_folder, trusted

-- Once the run's folder is known: nothing else is written to. Without it a recipe writes nowhere.
function paths.begin(folder, trust)
  run_folder, trusted = folder, trust
  core.confine_to(folder)
end

local function is_inside(path)
  return path ~= "" and path:sub(1, 1) ~= "/" and not ("/" .. path .. "/"):find("/../", 1, true)
end

-- Stops unless this is a folder below the working one, as a recipe may name it.
function paths.check_output(path)
  if not is_inside(path) then
    errors.raise("recipe", "output '%s': a recipe names a folder below the working one; for others use --output", path)
  end
end

local function check(path)
  if type(path) ~= "string" then options.fail("the path of a file is a text, not a %s", type(path)) end
end

-- What a recipe calls "states/a.safetensors" -> where it is written.
function paths.output(path)
  check(path)
  if not run_folder then options.fail "a recipe cannot write before its run begins" end
  local front = run_folder .. "/"
  if path:sub(1, #front) == front and is_inside(path:sub(#front + 1)) then return path end  -- it says so already
  if is_inside(path) then return front .. path end
  if not trusted then
    options.fail("'%s': a recipe writes into its run's folder (%s), by paths without '..' from there", path, run_folder)
  end
  return path
end

-- The same of something to be read: in the run's folder, or else in the working folder.
function paths.input(path)
  check(path)
  local own = run_folder and is_inside(path) and run_folder .. "/" .. path
  return own and core.exists(own) and own or path
end

return paths
