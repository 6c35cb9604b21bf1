-- SPDX-License-Identifier: MIT
-- options.lua - checking what a recipe says: unknown names, wrong types and bad ranges are errors that name the
-- recipe line, the field, what was expected and the nearest known name.
local core = require "burin.core"
local options = {}

-- Stops with exit code 78 (recipe error), naming the recipe line that is running.
function options.fail(text, ...)
  error({ exit = 78, message = core.where() .. ": " .. text:format(...) }, 0)
end

local function kind_of(v)
  return math.type(v) == "integer" and "integer" or type(v)
end

local function accepts(kind, v)
  local have = kind_of(v)
  for want in kind:gmatch "[^|]+" do
    if want == have or (want == "number" and have == "integer") or want == "any" then return true end
  end
end

-- Fills defaults into a copy of `given` and returns it. schema: name -> { kind, default =, min =, max =, one_of =,
-- required =, help = }; kind is a Lua type, "integer", or several with "|" between them.
function options.check(what, given, schema)
  if type(given) ~= "table" then options.fail("%s takes a table { ... }, not a %s", what, type(given)) end
  local names, out = {}, {}
  for name in pairs(schema) do names[#names + 1] = name end
  table.sort(names)
  for name, value in pairs(given) do
    local rule = schema[name]
    if not rule then
      local near = type(name) == "string" and core.nearest(name, names)
      options.fail("%s has no option '%s'%s", what, tostring(name),
        near and ("; did you mean '" .. near .. "'?") or "; it takes: " .. table.concat(names, ", "))
    end
    if not accepts(rule[1], value) then
      options.fail("%s: '%s' must be a %s, not a %s", what, name, rule[1]:gsub("|", " or "), kind_of(value))
    end
    if type(value) == "number" and (value ~= value or (rule.min and value < rule.min) or (rule.max and value > rule.max)) then
      options.fail("%s: '%s' = %s is outside %s .. %s", what, name, value, rule.min or "-inf", rule.max or "inf")
    end
    if rule.one_of then
      local ok = false
      for _, one in ipairs(rule.one_of) do ok = ok or one == value end
      if not ok then
        local near = type(value) == "string" and core.nearest(value, rule.one_of)
        options.fail("%s: '%s' is one of %s, not '%s'%s", what, name, table.concat(rule.one_of, ", "), tostring(value),
          near and ("; did you mean '" .. near .. "'?") or "")
      end
    end
    out[name] = value
  end
  for name, rule in pairs(schema) do
    if out[name] == nil then
      if rule.required then options.fail("%s needs '%s' (%s)", what, name, rule.help or rule[1]) end
      out[name] = rule.default
    end
  end
  return out
end

return options
