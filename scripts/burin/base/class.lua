-- SPDX-License-Identifier: MIT
-- class.lua - classes that nobody reaches through their objects: methods and metatable are two tables, and the
-- metatable is hidden. So an object may be handed to a recipe, which can call its methods and never replace them.
--
--   local Bar, new = class("bar", { "total", "done" })
--   function Bar:update(n) self.done = n end
--   local bar = new { total = 10 }

-- Reading or writing a field that was not declared is an error, at the line that does it.
local function declare(meta, methods, name, fields)
  local known = {}
  for _, field in ipairs(fields) do known[field] = true end
  local function check(field)
    if not known[field] then error(("internal error: a %s has no field '%s'"):format(name, tostring(field)), 3) end
  end
  function meta.__index(_, field)
    local method = methods[field]
    if method == nil then check(field) end
    return method
  end
  function meta.__newindex(object, field, value)
    check(field)
    rawset(object, field, value)
  end
  return check
end

-- name: for messages. fields: all that an object may have; nil: any. metamethods: further ones, as { __call = f }.
-- Returns the table of methods and a function that makes an object of a table.
return function(name, fields, metamethods)
  local methods, meta = {}, { __name = name, __metatable = false }
  for event, f in pairs(metamethods or {}) do meta[event] = f end
  meta.__index = methods
  local check = fields and declare(meta, methods, name, fields)
  return methods, function(object)
    if check then for field in pairs(object) do check(field) end end
    return setmetatable(object, meta)
  end
end
