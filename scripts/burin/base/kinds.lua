-- SPDX-License-Identifier: MIT
-- kinds.lua - what a recipe's constructors return: a handle, which has a kind ("optimizer", "loss", "model" ...), knows the
-- line that made it, and shows its value without letting anybody change it. options.check knows kinds, so a loss in the
-- place of an optimizer is an error of that line.
local core = require "burin.core"
local kinds = {}

local handles = setmetatable({}, { __mode = "k" })  -- handle -> { kind =, value =, where = }

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

-- A handle of this kind for a table that the caller keeps to itself.
function kinds.new(kind, value)
  local handle = kinds.read_only(value, "a " .. kind)
  handles[handle] = { kind = kind, value = value, where = core.where() }
  return handle
end

-- "optimizer" of what kinds.new made, else nil.
function kinds.of(x) return handles[x] and handles[x].kind end

-- The value behind a handle: for the library, which may change it.
function kinds.value(handle) return handles[handle].value end

-- "recipe.lua:12": the line that made a handle.
function kinds.where(handle) return handles[handle] and handles[handle].where end

return kinds
