-- SPDX-License-Identifier: MIT
-- options.lua - checking what a recipe says: unknown names, wrong types and bad ranges are errors that name the
-- recipe line, the field, what was expected and the nearest known name.
local core = require "burin.core"
local errors = require "burin.base.errors"
local options = {}

-- Stops with exit code 78 (recipe error), naming the recipe line that is running.
function options.fail(text, ...)
  errors.raise("recipe", core.where() .. ": " .. text:format(...))
end

-- The same about one field: a call spans lines, so from where it begins on, the first that sets the field is named.
local function fail_field(name, text, ...)
  local path, first = core.where():match "^(.*):(%d+)$"
  local message = text:format(...)
  if path and core.exists(path) == "file" and type(name) == "string" then
    local n, pattern = 0, "%f[%w_]" .. name:gsub("%W", "%%%0") .. "%f[^%w_][\"'%]]*%s*="
    for line in (core.read_file(path) .. "\n"):gmatch "(.-)\n" do
      n = n + 1
      if n >= tonumber(first) and line:find(pattern) then
        errors.raise("recipe", ("%s:%d: %s"):format(path, n, message))
      end
    end
  end
  options.fail("%s", message)
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
      fail_field(name, "%s has no option '%s'%s", what, tostring(name),
        near and ("; did you mean '" .. near .. "'?") or "; it takes: " .. table.concat(names, ", "))
    end
    if not accepts(rule[1], value) then
      local want = rule[1]:gsub("|", " or ")
      local function a(word) return (word:match "^[aeiou]" and "an " or "a ") .. word end
      fail_field(name, "%s: '%s' must be %s, not %s", what, name, a(want), a(kind_of(value)))
    end
    if type(value) == "number" and (value ~= value or (rule.min and value < rule.min) or (rule.max and value > rule.max)) then
      fail_field(name, "%s: '%s' = %s is outside %s .. %s", what, name, value, rule.min or "-inf", rule.max or "inf")
    end
    if rule.one_of then
      local ok = false
      for _, one in ipairs(rule.one_of) do ok = ok or one == value end
      if not ok then
        local near = type(value) == "string" and core.nearest(value, rule.one_of)
        fail_field(name, "%s: '%s' is one of %s, not '%s'%s", what, name, table.concat(rule.one_of, ", "), tostring(value),
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

-- value when it is one of the list; else a usage error. name: of the argument, as "--to".
function options.one_of(name, value, list)
  for _, v in ipairs(list) do if v == value then return value end end
  local near = core.nearest(tostring(value), list)
  errors.raise("usage", "%s is one of %s, not '%s'%s", name, table.concat(list, ", "), tostring(value),
    near and ("; did you mean '" .. near .. "'?") or "")
end

-- "1 epoch", "100 steps" or a number -> steps; nil stays nil.
function options.every(value, per_epoch)
  if value == nil then return nil end
  if type(value) == "number" then return math.max(1, value) end
  local n, unit = value:match "^%s*(%d+)%s*(%a+)%s*$"
  if unit == "epoch" or unit == "epochs" then return math.max(1, tonumber(n) * per_epoch) end
  if unit == "step" or unit == "steps" then return math.max(1, tonumber(n)) end
  options.fail("'%s' is not a time such as '1 epoch' or '100 steps'", value)
end

return options
