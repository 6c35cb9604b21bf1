-- SPDX-License-Identifier: MIT
-- kinds.lua - what a recipe's constructors return: a handle, which has a kind ("optimizer", "loss", "model" ...),
-- knows the line that made it, and shows its value without letting anybody change it. options.check knows kinds, so a
-- loss in the place of an optimizer is an error of that line.
local core = require "burin.core"
local place = require "burin.base.place"
local kinds = {}

local handles = setmetatable({}, { __mode = "k" })       -- handle -> { kind =, value =, place = }
local values = setmetatable({}, { __mode = "k" })        -- value -> the same
local constructors = setmetatable({}, { __mode = "k" })  -- function -> { kind =, name =, call = }

-- What each kind is made with, for messages.
local examples = { optimizer = "burin.adamw {}", schedule = "burin.cosine {}", loss = "burin.mse {}",
  method = "burin.lora {}", model = 'burin.model "file.safetensors"', recipe = "burin.train { ... }" }

-- A view of a table that cannot be written to, nor what lies in it; other values, and objects of a class, as they are.
local function view(t)
  if type(t) ~= "table" or getmetatable(t) ~= nil then return t end
  return kinds.read_only(t)
end

-- name: for messages
function kinds.read_only(t, name)
  return setmetatable({}, {
    __index = function(_, key) return view(t[key]) end,
    __newindex = function() error((name or "this table") .. " cannot be changed", 2) end,
    __len = function() return #t end,
    __pairs = function()
      return function(_, key)
        local value
        key, value = next(t, key)
        return key, view(value)
      end, nil, nil
    end,
    __metatable = false,
  })
end

-- "an optimizer", "a loss"
function kinds.a(word) return (word:match "^[aeiou]" and "an " or "a ") .. word end

-- A handle of this kind for a table that the caller keeps to itself. at: the place that made it; the running line.
function kinds.new(kind, value, at)
  local handle = kinds.read_only(value, kinds.a(kind))
  local entry = { kind = kind, value = value, place = at or place.here(value.name) }
  handles[handle], values[value] = entry, entry
  return handle
end

-- "optimizer" of what kinds.new made, else nil.
function kinds.of(x) return handles[x] and handles[x].kind end

-- The value behind a handle: for the library, which may change it.
function kinds.value(handle) return handles[handle].value end

-- The place that made a handle, given it or its value, or that of a field in it: kinds.place(recipe, "sample",
-- "prompts", 2).
function kinds.place(x, ...)
  local entry = handles[x] or values[x]
  return entry and entry.place:at(...) or place.here()
end

-- "recipe.lua:12": the line that made a handle; nil when no recipe did.
function kinds.where(handle) return handles[handle] and handles[handle].place:line() end

-- How a kind is made: 'burin.adamw {}'; nil for what is no kind.
function kinds.example(kind) return examples[kind] end

-- Registers a function that makes handles of a kind, and returns it. name: that of the library's own in recipes
-- ("adamw"); call: how it is called, for messages.
function kinds.constructor(kind, name, f, call)
  constructors[f] = { kind = kind, name = name, call = call or ("burin.%s {}"):format(name) }
  return f
end

-- "optimizer", "burin.adamw {}" of a registered function, else nil.
function kinds.constructor_of(f)
  local made = constructors[f]
  if made then return made.kind, made.call end
end

-- Whether a kind has a constructor of this name.
function kinds.has(kind, name)
  for _, made in pairs(constructors) do
    if made.kind == kind and made.name == name then return true end
  end
  return false
end

-- Whether x is a table in which nothing has a name.
function kinds.is_list(x)
  if type(x) ~= "table" or kinds.of(x) then return false end
  local count = 0
  for _ in pairs(x) do count = count + 1 end
  return count == #x
end

-- What a value is, for people: "an optimizer (made at recipe.lua:7)", "a list", "a string".
function kinds.describe(x)
  local kind = kinds.of(x)
  if kind then
    local where = kinds.where(x)
    return kinds.a(kind) .. (where and (" (made at %s)"):format(where) or "")
  end
  local makes = type(x) == "function" and kinds.constructor_of(x)
  if makes then return "a function that makes " .. kinds.a(makes) end
  if x == nil then return "nothing" end
  if math.type(x) == "integer" then return "an integer" end
  if kinds.is_list(x) and #x > 0 then return "a list" end
  if core.graph_type(x) == "node" then return ("a node (%s)"):format(table.concat(x.shape, ", ")) end
  if type(x) == "number" and (x ~= x or x - x ~= 0) then return x ~= x and "NaN" or tostring(x) end
  return kinds.a(type(x))
end

return kinds
