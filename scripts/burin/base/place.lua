-- SPDX-License-Identifier: MIT
-- place.lua - places in a recipe: the call of a constructor, and the fields of its table. Lua knows the line of a call
-- only, so the line of a field is looked up in the text of the recipe, once it has to be named.
local class = require "burin.base.class"
local core = require "burin.core"

local Place, new_place = class("place", { "path", "first", "call", "fields" })
local place = {}

local said, assumed  -- a place; a line of a recipe

-- From now on the line that place.here takes when Lua knows none: what a function of a recipe calls last takes its
-- place on the stack. Returns the one before.
function place.assume(line)
  local before = assumed
  assumed = line
  return before
end

-- The place that errors are said of from now on, whatever runs; nil for the running line. Returns the one before.
function place.say(at)
  local before = said
  said = at
  return before
end

-- Where an error is, of which nothing else is known.
function place.now() return said or place.here() end

-- The place of the recipe's line that is running, which calls this constructor ("adamw"). Without a recipe it is
-- nowhere.
function place.here(call)
  local path, line = (core.where() or assumed or ""):match "^(.*):(%d+)$"
  return new_place { path = path, first = tonumber(line), call = call, fields = {} }
end

-- The place of a recipe's function.
function place.of(f)
  local path, line = (core.where(f) or core.where() or ""):match "^(.*):(%d+)$"
  return new_place { path = path, first = tonumber(line), fields = {} }
end

-- The place of fields within: at("sample", "prompts", 2).
function Place:at(...)
  local fields = { table.unpack(self.fields) }
  for _, field in ipairs { ... } do fields[#fields + 1] = field end
  return new_place { path = self.path, first = self.first, call = self.call, fields = fields }
end

-- ---- a recipe's text ------------------------------------------------------------------------------------------------

-- Lua's tokens as { text =, line =, written = }; in `text` no string hides a quote, `written` is as it stands there.
local function tokens(text)
  local list, at, line, whole = {}, 1, 1, text
  text = text:gsub("\\(.)", function(c) return c == "\n" and "_\n" or "__" end)
  local function take(pattern)
    local from, to = text:find(pattern, at)
    if not from then return nil end
    local began, taken = line, text:sub(from, to)
    at, line = to + 1, line + select(2, taken:gsub("\n", ""))
    return { text = taken, line = began, written = whole:sub(from, to) }
  end
  local function skip() return take "^%s+" or take "^%-%-%[(=*)%[.-%]%1%]" or take "^%-%-[^\n]*" end
  while at <= #text do
    if not skip() then
      list[#list + 1] = take "^[%a_][%w_]*" or take "^%.?%d[%w.]*" or take '^"[^"]*"' or take "^'[^']*'"
        or take "^%[(=*)%[.-%]%1%]" or take "^[=~<>]=" or take "^."
    end
  end
  return list
end

local opens = { ["{"] = 1, ["("] = 1, ["["] = 1, ["function"] = 1, ["if"] = 1, ["do"] = 1, ["repeat"] = 1,
  ["}"] = -1, [")"] = -1, ["]"] = -1, ["end"] = -1, ["until"] = -1 }

-- The name of the table entry that begins at token k, and where its value begins.
local function entry(list, k)
  local function text(i) return list[k + i] and list[k + i].text end
  if text(1) == "=" then return text(0), k + 2 end
  if text(0) == "[" and text(2) == "]" then return text(1):gsub("[\"']", ""), k + 4 end
  return nil, k
end

-- In the table that opens at token `from`: where a field begins, and where its value does.
local function find_field(list, from, field)
  local depth, fresh, count = 0, false, 0
  for k = from, #list do
    local text = list[k].text
    if fresh then
      local name, value = entry(list, k)
      if not name then count = count + 1 end
      if (name or count) == field then return k, value end
    end
    depth = depth + (opens[text] or 0)
    if depth == 0 then return nil end
    fresh = depth == 1 and (k == from or text == "," or text == ";")
  end
end

-- Where the table of a call opens that begins in this line: call {, or call({.
local function find_call(list, line, call)
  for k, token in ipairs(list) do
    if token.line == line and token.text == call then
      local open = k + 1
      if list[open] and list[open].text == "(" then open = open + 1 end
      if list[open] and list[open].text == "{" then return open end
    end
  end
end

-- The line of the innermost field that is there; nil without any.
local function line_of(list, first, call, fields)
  local at, line = find_call(list, first, call), nil
  for _, field in ipairs(fields) do
    if not at or not list[at] or list[at].text ~= "{" then break end
    local begins, value = find_field(list, at, field)
    if not begins then break end
    at, line = value, list[begins].line
  end
  return line
end

-- The first line from the call on that sets a field of this name, wherever: for a call by another name.
local function first_use(list, first, field)
  for k, token in ipairs(list) do
    local after = list[k + 1]
    if token.line >= first and token.text == field and after and after.text == "=" then return token.line end
  end
end

-- The token that closes what token k opens.
local function closing(list, k)
  local depth = 0
  for i = k, #list do
    depth = depth + (opens[list[i].text] or 0)
    if depth == 0 then return i end
  end
end

-- What a recipe's function says, without comments and spaces: of all functions that begin and end in its lines, as Lua
-- knows no more of it.
function place.text_of(f)
  local info = debug.getinfo(f, "S")
  local list, out = tokens(core.read_file((info.source:gsub("^@", "")))), {}
  for k, token in ipairs(list) do
    local last = token.text == "function" and token.line == info.linedefined and closing(list, k)
    if last and list[last].line == info.lastlinedefined then
      for i = k, last do out[#out + 1] = list[i].written end
    end
  end
  return table.concat(out, " ")
end

-- "recipe.lua:9"; nil for nowhere.
function Place:line()
  if not self.path then return nil end
  local line = self.first
  local last = self.fields[#self.fields]
  if last and core.exists(self.path) == "file" then
    local list = tokens(core.read_file(self.path))
    line = line_of(list, self.first, self.call, self.fields)
      or not find_call(list, self.first, self.call) and first_use(list, self.first, last) or self.first
  end
  return ("%s:%d"):format(self.path, line)
end

-- A sentence with its line in front.
function Place:says(text)
  local line = self:line()
  return line and line .. ": " .. text or text
end

return place
