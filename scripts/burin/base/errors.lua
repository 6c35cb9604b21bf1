-- SPDX-License-Identifier: MIT
-- errors.lua - errors with a kind. An error that people are meant to see is { kind =, message = }; a command ends
-- with its kind's exit code (sysexits.h where it has one). Anything else that is raised is a bug of ours: exit 1.
local core = require "burin.core"
local place = require "burin.base.place"
local errors = {}

errors.codes = {
  usage = 2,      -- the command line
  data = 65,      -- what a file holds
  input = 66,     -- a file that is not there
  device = 69,    -- no device that can do it
  internal = 70,  -- a number that is not finite, a broken promise of ours
  memory = 71,    -- Lua would take more of it than it may
  exists = 73,    -- what would be written is there already
  output = 74,    -- writing failed
  busy = 75,      -- another process is at it
  lost = 75,      -- the device
  recipe = 78,    -- what a recipe says
  stopped = 130,  -- by a signal
}

-- errors.raise("data", "%s: damaged", path): without further arguments the text is taken as it is.
function errors.raise(kind, text, ...)
  assert(errors.codes[kind], kind)
  if select("#", ...) > 0 then text = text:format(...) end
  error(core.new_error(kind, text), 0)
end

-- About what a file holds.
function errors.file(path, text, ...)
  errors.raise("data", "%s: %s", path, select("#", ...) > 0 and text:format(...) or text)
end

-- Whether something that was caught is an error for people.
errors.is = core.is_error

-- The sentence of something that was caught. Only our own errors may turn themselves into text: a recipe can raise
-- anything.
function errors.message(e)
  local out, why = core.out_of_memory(e)
  if out then return why end
  if errors.is(e) or type(e) ~= "table" and type(e) ~= "userdata" then return tostring(e) end
  return ("an error that is a %s, not a text"):format(type(e))
end

-- The exit code of something that was caught.
function errors.code(e)
  if core.out_of_memory(e) then return errors.codes.memory end
  return errors.is(e) and errors.codes[e.kind] or 1
end

-- f(...), whose failure has this kind: for calls that can fail on what a user gave or on the disk. A failure that has
-- a kind already keeps it.
function errors.guard(kind, f, ...)
  local results = table.pack(pcall(f, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local why = results[2]
  if core.out_of_memory(why) then kind = "memory" end
  if errors.is(why) and why.kind ~= "failure" then error(why, 0) end
  error(core.new_error(kind, errors.message(why)), 0)
end

-- What was raised, with the recipe's line that was running in front; Lua's own messages, which may have it already and
-- shortened, say it once. otherwise: the line to name when none was running.
local function locate(e, otherwise)
  if core.out_of_memory(e) or errors.is(e) and e.kind ~= "failure" then return e end
  local kind, text = errors.is(e) and e.kind or "recipe", errors.message(e)
  local at, short = core.where()
  for _, known in ipairs { short or "", at or "" } do
    local front = known .. ": "
    while known ~= "" and text:sub(1, #front) == front do text = text:sub(#front + 1) end
  end
  at = at or otherwise
  return core.new_error(kind, at and at .. ": " .. text or text)
end

-- f(...), which runs code of a recipe: whatever it raises that is no error of ours yet is an error of the recipe.
function errors.located(otherwise, f, ...)
  local said, assumed = place.say(nil), place.assume(otherwise)
  core.wait_begin()
  local results = table.pack(xpcall(f, function(e) return locate(e, otherwise) end, ...))
  local out, missing = core.out_of_memory(results[2])  -- said with the limit that is met
  core.wait_end()
  place.say(said)
  place.assume(assumed)
  if results[1] then return table.unpack(results, 2, results.n) end
  if out then errors.raise("memory", missing) end
  local why = results[2]
  error(errors.is(why) and why or locate(why, otherwise), 0)
end

-- A function of a recipe that the library will call, at any time: its failures are those of the recipe's line.
function errors.callback(f)
  local where = core.where(f) or core.where()
  return function(...) return errors.guard("recipe", errors.located, where, f, ...) end
end

return errors
