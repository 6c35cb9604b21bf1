-- SPDX-License-Identifier: MIT
-- options.lua - checking what a recipe says: unknown names, wrong types and bad ranges are errors that name the
-- recipe line, the field, what was expected and the nearest known name, or what to write for a word of another program.
local core = require "burin.core"
local errors = require "burin.base.errors"
local kinds = require "burin.base.kinds"
local place = require "burin.base.place"
local synonyms = require "burin.base.synonyms"
local options = {}

-- Stops with exit code 78 (recipe error), naming the place that options.at says or the recipe line that is running.
function options.fail(text, ...)
  options.fail_at(place.now(), text, ...)
end

-- The same about a place (base/place.lua).
function options.fail_at(at, text, ...)
  errors.raise("recipe", at:says(text:format(...)))
end

-- f(...), in which options.fail names this place.
function options.at(at, f, ...)
  local before = place.say(at)
  local results = table.pack(pcall(f, ...))
  place.say(before)
  if not results[1] then error(results[2], 0) end
  return table.unpack(results, 2, results.n)
end

-- ---- types ----------------------------------------------------------------------------------------------------------

-- Whether a value is of a rule's type: a Lua type, "integer", "list" (nothing in it has a name), a kind's name.
local function is(value, want)
  if want == "any" then return true end
  if kinds.of(value) then return kinds.of(value) == want end
  if want == "integer" then return math.type(value) == "integer" end
  if want == "list" then return kinds.is_list(value) end
  return type(value) == want
end

local function accepts(types, value)
  for want in types:gmatch "[^|]+" do
    if is(value, want) then return true end
  end
  return false
end

-- "an optimizer such as burin.adamw {}", "a string or integer", "a list such as { "a prompt" }"
local function expected(rule)
  local like = kinds.example(rule[1]) or rule.example
  return kinds.a((rule[1]:gsub("|", " or "))) .. (like and " such as " .. like or "")
end

-- What to write instead of a value of the wrong type; "" when nothing is known.
local function advice(rule, value)
  local makes, call = kinds.constructor_of(value)
  if makes and makes == rule[1] then return ": write " .. call end
  if type(value) == "string" and kinds.example(rule[1]) then
    if rule[1] == "model" then return (": write burin.model %q"):format(value) end
    local known = synonyms.constructor(rule[1], value)
    if not known and kinds.has(rule[1], value:lower()) then known = ("burin.%s {}"):format(value:lower()) end
    return known and ": write " .. known or ""
  end
  if type(value) == "string" and (rule[1] == "integer" or rule[1] == "number") and tonumber(value) then
    return (": without quotes, %s"):format(value)
  end
  return ""
end

-- ---- values ---------------------------------------------------------------------------------------------------------

-- Whether x is a number that is one.
function options.finite(x)
  return type(x) == "number" and x == x and x ~= math.huge and x ~= -math.huge
end

local function number(what, name, value, rule, at)
  if not options.finite(value) then
    options.fail_at(at, "%s: '%s' must be a finite number, not %s", what, name, value ~= value and "NaN" or value)
  end
  if rule.above and value <= rule.above then
    options.fail_at(at, "%s: '%s' = %s must be above %s (%s)", what, name, value, rule.above, rule.help)
  end
  if (rule.min and value < rule.min) or (rule.max and value > rule.max) then
    options.fail_at(at, "%s: '%s' = %s is outside %s .. %s", what, name, value, rule.min or "-inf", rule.max or "inf")
  end
end

local function choice(what, name, value, rule, at)
  for _, one in ipairs(rule.one_of) do
    if one == value then return end
  end
  local meant = type(value) == "string" and (synonyms.value(value, rule.one_of) or core.nearest(value, rule.one_of))
  options.fail_at(at, "%s: '%s' is one of %s, not '%s'%s", what, name, table.concat(rule.one_of, ", "), tostring(value),
    meant and ("; did you mean '" .. meant .. "'?") or "")
end

-- Stops unless a value is what its rule says.
local function check_value(what, name, value, rule, at)
  if not accepts(rule[1], value) then
    options.fail_at(at, "%s: '%s' must be %s, not %s%s", what, name, expected(rule), kinds.describe(value),
      advice(rule, value))
  end
  if type(value) == "number" then number(what, name, value, rule, at) end
  if rule.one_of then choice(what, name, value, rule, at) end
  for i, one in ipairs(rule.of and value or {}) do
    check_value(what, ("%s[%d]"):format(name, i), one, { rule.of }, at:at(i))
  end
end

-- ---- tables ---------------------------------------------------------------------------------------------------------

local function unknown(what, name, names, schema, at)
  local takes = #names > 0 and "it takes: " .. table.concat(names, ", ") or "it takes nothing"
  if type(name) ~= "string" then
    options.fail_at(at, "%s takes named fields, as in { %s = ... }, and this one has no name; %s", what,
      names[1] or "name",
      takes)
  end
  local says, near = synonyms.field(name, schema), core.nearest(name, names)
  options.fail_at(at, "%s has no option '%s'%s", what, name, says and ": " .. says
    or near and ("; did you mean '" .. near .. "'?") or "; " .. takes)
end

-- The keys of a table in an order that does not change from run to run.
local function sorted(t)
  local list = {}
  for key in pairs(t) do list[#list + 1] = key end
  table.sort(list, function(a, b) return tostring(a) < tostring(b) end)
  return list
end

-- Fills defaults into a copy of `given` and returns it. schema: name -> { type, default =, above =, min =, max =,
-- one_of =, required =, of = (type of a list's entries), example =, help = }; type is one that `is` knows, or several
-- with "|" between them. at: the place of the table; the call that is running.
function options.check(what, given, schema, at)
  at = at or place.here(what:match "[%w_]+$")
  if type(given) ~= "table" or kinds.of(given) then
    options.fail_at(at, "%s takes a table { ... }, not %s", what, kinds.describe(given))
  end
  local names, out = sorted(schema), {}
  for _, name in ipairs(sorted(given)) do
    local rule, value = schema[name], given[name]
    if not rule then unknown(what, name, names, schema, at:at(name)) end
    check_value(what, name, value, rule, at:at(name))
    out[name] = value
  end
  for _, name in ipairs(names) do
    local rule = schema[name]
    if out[name] == nil then
      if rule.required then options.fail_at(at, "%s needs '%s' (%s)", what, name, rule.help or rule[1]) end
      out[name] = rule.default
    end
  end
  return out
end

-- value when it is one of the list; else a usage error. name: of the argument, as "--to".
function options.one_of(name, value, list)
  for _, v in ipairs(list) do if v == value then return value end end
  local near = synonyms.value(tostring(value), list) or core.nearest(tostring(value), list)
  errors.raise("usage", "%s is one of %s, not '%s'%s", name, table.concat(list, ", "), tostring(value),
    near and ("; did you mean '" .. near .. "'?") or "")
end

-- "1 epoch", "100 steps" or a number -> steps; nil stays nil.
function options.every(value, per_epoch)
  if value == nil then return nil end
  local n, unit = tostring(value):match "^%s*(%d+)%s*(%a*)%s*$"
  n = tonumber(n or 0)
  if n > 0 and (unit == "epoch" or unit == "epochs") then return n * per_epoch end
  if n > 0 and (unit == "step" or unit == "steps" or type(value) == "number") then return n end
  options.fail("'%s' is not a time such as '1 epoch' or '100 steps'", value)
end

return options
