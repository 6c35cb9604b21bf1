-- SPDX-License-Identifier: MIT
-- settings.lua - what a checked recipe asks for as a flat table of texts, { ["optimizer.lr"] = "0.001" ... }: what
-- tells two recipes apart, field by field, whatever their files look like.
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local place = require "burin.base.place"
local settings = {}

-- What a run that goes on may have changed: nothing that was learnt depends on it.
local free = { name = true, steps = true, epochs = true, save = true, sample = true, state = true,
  on_nonfinite = true, max_nonfinite = true }

-- Of pictures, base and the file that a run begins from the bytes count, which have hashes of their own; of a budget
-- what it chose counts (plan.settings).
local elsewhere = { "^from$", "^base%.path$", "^concepts%[%d+%]%.images$", "^concepts%[%d+%]%.prior%.images$",
  "^budget$", "^precision$", "^base_precision$", "^checkpoint$" }

local standard = {}  -- names that are no recipe's
for name in pairs(_G) do standard[name] = true end

local function sorted_keys(t)
  local list = {}
  for key in next, t do list[#list + 1] = key end
  table.sort(list, function(a, b) return tostring(a) < tostring(b) end)
  return list
end

-- A number as short as it can be written, 1 and 1.0 alike.
local function text_of_number(x)
  local short = ("%.14g"):format(x)
  return tonumber(short) == x and short or ("%.17g"):format(x)
end

-- The settings that made a handle.
local function parts_of_handle(handle)
  local value, list = kinds.value(handle), {}
  for key, x in next, value do if type(x) ~= "table" then list[key] = x end end
  for key, x in next, type(value.options) == "table" and value.options or {} do list[key] = x end
  for key, x in next, type(value.definition) == "table" and value.definition or {} do
    if type(x) == "function" then list[key .. "()"] = x end  -- an option may have the same name
  end
  return list
end

-- ---- functions ------------------------------------------------------------------------------------------------------

local describe

-- What a recipe's function does follows from its text and from what it has taken from around it.
local function describe_function(f, out, seen)
  local own = core.where(f) ~= nil
  if own then out[#out + 1] = place.text_of(f) end
  for i = 1, 255 do
    local name, value = debug.getupvalue(f, i)
    if not name then break end
    if own and name == "_ENV" then
      for _, key in ipairs(sorted_keys(value)) do
        if not standard[key] then describe(tostring(key), value[key], out, seen) end
      end
    elseif own or type(value) == "function" then  -- the library's own hold those of the recipe
      describe(own and name or nil, value, out, seen)
    end
  end
end

-- name: nil where there is nothing to be told but functions of the recipe
function describe(name, value, out, seen)
  if kinds.of(value) then value = parts_of_handle(value) end
  if type(value) == "table" then
    if seen[value] or getmetatable(value) ~= nil then return end
    seen[value] = true
    for _, key in ipairs(sorted_keys(value)) do describe(("%s.%s"):format(name, key), value[key], out, seen) end
  elseif type(value) == "function" then
    if seen[value] then return end
    seen[value] = true
    describe_function(value, out, seen)
  elseif name then
    out[#out + 1] = ("%s = %s"):format(name, type(value) == "number" and text_of_number(value) or tostring(value))
  end
end

-- "function 0123456789abcdef"; nil for one of the library in which no function of a recipe is.
local function text_of_function(f)
  local out = {}
  describe_function(f, out, { [f] = true })
  return #out > 0 and "function " .. core.hash(table.concat(out, "\n")) or nil
end

-- ---- recipes --------------------------------------------------------------------------------------------------------

local function flatten(value, name, out)
  if kinds.of(value) then value = parts_of_handle(value) end
  if type(value) == "table" then
    if getmetatable(value) ~= nil then return end
    for _, key in ipairs(sorted_keys(value)) do
      local inner = math.type(key) == "integer" and ("%s[%d]"):format(name,
        key) or name == "" and key or name .. "." .. key
      flatten(value[key], inner, out)
    end
  elseif type(value) == "function" then
    out[name] = text_of_function(value)
  else
    out[name] = type(value) == "number" and text_of_number(value) or tostring(value)
  end
end

-- All settings of a checked recipe but where its run lies.
function settings.of(recipe)
  local out = {}
  flatten(recipe, "", out)
  out.folder, out.output = nil, nil
  return out
end

-- Those that what was learnt depends on. chosen: plan.settings
function settings.binding(recipe, chosen)
  local out = {}
  for name, text in pairs(settings.of(recipe)) do
    local counts = not free[name:match "^[%w_]+"]
    for _, pattern in ipairs(elsewhere) do counts = counts and not name:match(pattern) end
    if counts then out[name] = text end
  end
  for name, value in pairs(chosen) do out[name] = tostring(value) end
  return out
end

-- { "seed was 7 and is 8" ... }
function settings.differences(before, now)
  local names, list = {}, {}
  for name in pairs(before) do names[name] = true end
  for name in pairs(now) do names[name] = true end
  for _, name in ipairs(sorted_keys(names)) do
    local a, b = before[name], now[name]
    if a ~= b then
      local function is_function(x) return x and x:match "^function %x+$" end
      list[#list + 1] = is_function(a) and is_function(b) and ("the function %s is another one"):format(name)
        or ("%s was %s and is %s"):format(name, a or "not set", b or "not set")
    end
  end
  return list
end

return settings
