-- SPDX-License-Identifier: MIT
-- class.lua - classes that nobody reaches through their objects: methods and metatable are two tables, and the metatable
-- is hidden. So an object may be handed to a recipe, which can call its methods and never replace them.
--
--   local Bar, new = class "bar"
--   function Bar:update(n) ... end
--   local bar = new { total = 10 }

-- name: for messages. metamethods: further ones, as { __call = f }. Returns the table of methods and a function that makes an
-- object of a table.
return function(name, metamethods)
  local methods, meta = {}, { __name = name, __metatable = false }
  for event, f in pairs(metamethods or {}) do meta[event] = f end
  meta.__index = methods
  return methods, function(object) return setmetatable(object, meta) end
end
