-- SPDX-License-Identifier: MIT
-- recipe_reference.lua - writes the tables of docs/recipes.md from the schemas that check a recipe.
--   lua5.4 scripts/dev/recipe_reference.lua [--check]         from the repository's root
package.path = "scripts/?.lua;scripts/?/init.lua;" .. package.path
package.preload["burin.core"] = function()  -- schemas need nothing of it
  return setmetatable({}, { __index = function() return function() return "" end end })
end

-- Every schema passes through options.check.
local options = require "burin.base.options"
local check, schemas = options.check, {}
function options.check(what, given, schema, at)
  schemas[what] = schema
  return check(what, given, schema, at)
end
local burin = require "burin"
burin.train {
  name = "x", base = burin.model "x", method = burin.lora {}, sample = { prompts = {} },
  concepts = { { images = "x", prior = { prompt = "x" } } },
}
burin.full {} burin.sgd {} burin.min_snr {} burin.cosine {} burin.loss { name = "x" }
burin.method { name = "x", params = print, forward = print }
pcall(burin.compile, {})  -- which lacks something, but its schema is known by then

local function file_text(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

local function value(v)
  if v == nil then return "" end
  if type(v) == "function" then return "1" end
  if type(v) == "string" then return '`"' .. v .. '"`' end
  if math.type(v) == "float" then return ("`%.10g`"):format(v) end
  return "`" .. tostring(v) .. "`"
end

-- Fields in the order of their file; `from` is where the schema begins in it.
local function table_of(what, path, from)
  local schema, text, names, place = schemas[what], file_text("scripts/burin/" .. path), {}, {}
  local start = from == "" and 1 or assert(text:find(from, 1, true), from)
  for name in pairs(schema) do
    names[#names + 1] = name
    place[name] = text:find("%f[%w_]" .. name .. " = {", start) or math.huge
  end
  table.sort(names, function(a, b) return place[a] < place[b] or place[a] == place[b] and a < b end)
  local out = { "| field | type | default | meaning |\n|---|---|---|---|\n" }
  for _, name in ipairs(names) do
    local rule = schema[name]
    local help = rule.help or error(("%s: '%s' has no help"):format(path, name))
    if rule.one_of then help = help .. ": `" .. table.concat(rule.one_of, "`, `") .. "`" end
    if rule.above then help = help .. (" (above %g)"):format(rule.above) end
    if rule.min or rule.max then
      help = help .. (" (%s)"):format(not rule.max and ("at least %g"):format(rule.min)
        or ("%g .. %g"):format(rule.min, rule.max))
    end
    out[#out + 1] = ("| `%s` | %s | %s | %s |\n"):format(name, rule[1]:gsub("|", " or "),
      rule.required and "required" or value(rule.default), help)
  end
  return table.concat(out)
end

-- The annotations for editors name the same fields.
local types = file_text "editors/burin.lua"
for class, what in pairs { Train = "burin.train", Concept = "concept 1", Prior = "prior of concept 1",
  Sample = "sample",
  Save = "save", State = "state", Lora = "lora", Full = "full", AdamW = "adamw", SGD = "sgd",
    ScheduleOptions = "cosine",
  MinSnr = "min_snr", LossDefinition = "loss", MethodDefinition = "burin.method", Compile = "burin.compile" } do
  local fields = {}
  local text = types:match("%-%-%-@class burin%." .. class .. "\n(.-)\n\n")
  for name in text:gmatch "%-%-%-@field ([%w_]+)" do fields[name] = true end
  for name in pairs(schemas[what]) do
    assert(fields[name], ("editors/burin.lua: burin.%s lacks '%s'"):format(class, name))
    fields[name] = nil
  end
  assert(not next(fields), ("editors/burin.lua: burin.%s has no field '%s'"):format(class, next(fields)))
end

require "dev.generated"("docs/recipes.md", {
  ["burin.train"] = table_of("burin.train", "train/recipe.lua", "local schema"),
  concept = table_of("concept 1", "train/data.lua", "local concept_schema"),
  prior = table_of("prior of concept 1", "train/data.lua", "local prior_schema"),
  sample = table_of("sample", "train/recipe.lua", "local sample_schema"),
  save = table_of("save", "train/recipe.lua", "local save_schema"),
  state = table_of("state", "train/recipe.lua", "local state_schema"),
  lora = table_of("lora", "adapters/lora.lua", "options = {"),
  method = table_of("burin.method", "adapters/own.lua", "local schema"),
  full = table_of("full", "adapters/full.lua", "options = {"),
  adamw = table_of("adamw", "graph/optimizers.lua", 'check("adamw"'),
  sgd = table_of("sgd", "graph/optimizers.lua", 'check("sgd"'),
  schedules = table_of("cosine", "graph/schedules.lua", "options.check"),
  min_snr = table_of("min_snr", "train/losses.lua", 'check("min_snr"'),
  loss = table_of("loss", "train/losses.lua", 'check("loss"'),
}, arg[1] == "--check")
