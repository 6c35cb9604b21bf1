-- SPDX-License-Identifier: MIT
-- own.lua - burin.method { ... }: a method that a recipe defines (method.lua says of what). Its functions are a
-- recipe's code, so what they give is checked, and a failure of theirs is the recipe's.
local errors = require "burin.base.errors"
local kinds = require "burin.base.kinds"
local method = require "burin.adapters.method"
local options = require "burin.base.options"
local place = require "burin.base.place"
local own = {}

local CALL = "burin.method { ... } {}"

local schema = {
  name = { "string", required = true, help = "for messages, files and parameters" },
  options = { "table", help = "defaults { rank = 8 }, or rules { rank = { 'integer', default = 8, min = 1 } }" },
  targets = { "function", help = "function(o, layer) -> true for layers that it adapts; default all" },
  params = { "function", required = true, help = "function(o, layer) -> { name = layer:param(...) }" },
  forward = { "function", required = true, help = "function(o, layer, p, x, y) -> the new output, of y's shape" },
  alpha = { "function", help = "function(o, layer) -> number kept beside the parameters in files" },
  settle = { "function", help = "function(o) that fills options which follow from others" },
  kind = { "string", one_of = { "lora" }, help = "parameters are lora_down and lora_up" },
  network_module = { "string", help = "what kohya's metadata calls it" },
  network_args = { "function", help = "function(o) -> { key = text } for kohya's metadata" },
}

local function checked_alpha(definition, f)
  local at, call = place.of(f), definition.alpha
  return function(o, layer)
    local alpha = call(o, layer)
    if not options.finite(alpha) or alpha == 0 then
      options.fail_at(at, "method '%s': alpha must give a finite number other than 0, not %s", definition.name,
        alpha == 0 and "0" or kinds.describe(alpha))
    end
    return alpha
  end
end

-- burin.method { ... }: the constructor of a method of one's own, whose functions are code of a recipe.
function own.method(o)
  local definition = options.check("burin.method", o, schema)
  if definition.kind == "lora" and not definition.alpha then
    options.fail("burin.method: a method of kind 'lora' needs 'alpha' (%s)", schema.alpha.help)
  end
  for field, value in pairs(definition) do
    if type(value) == "function" then definition[field] = errors.callback(value) end
  end
  if definition.alpha then definition.alpha = checked_alpha(definition, o.alpha) end
  definition.place = place.of(o.forward)
  return method.define(definition, CALL)
end
kinds.constructor("method", "method", own.method, CALL)

return own
