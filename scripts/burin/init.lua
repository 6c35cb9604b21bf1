-- SPDX-License-Identifier: MIT
-- init.lua - what a recipe sees as `require "burin"`, and all that it can require of the library. Everything here is
-- public, and none of it can be changed; burin.core is not.
local core = require "burin.core"
local kinds = require "burin.base.kinds"
local losses = require "burin.train.losses"
local methods = require "burin.adapters.method"
local noise = require "burin.models.noise"
local optim = require "burin.graph.optimizers"
local options = require "burin.base.options"
local paths = require "burin.base.paths"
local schedules = require "burin.graph.schedules"
local synonyms = require "burin.base.synonyms"

local burin = {
  adamw = optim.adamw, sgd = optim.sgd,
  mse = losses.mse, min_snr = losses.min_snr, loss = losses.loss,
}

burin.model = require("burin.models.handle").model
kinds.constructor("model", "model", burin.model)

-- burin.train{ ... }: see docs/recipes.md for every field.
function burin.train(o) return require("burin.train.recipe").check(o) end
kinds.constructor("recipe", "train", burin.train)

-- burin.method{ name =, options =, params =, forward = }: an adapter of one's own (docs/extending.md).
burin.method = require("burin.adapters.own").method

-- The layer below: burin.compile{ ... } -> a step function; burin.dataset{ ... } -> batches.
function burin.compile(o) return require("burin.graph.loops").compile(o) end
function burin.dataset(o) return require("burin.train.data").new(o) end
-- burin.session(name, inputs, function(x, graph) return { name = node } end) -> f(batch) -> { name = tensor }
function burin.session(name, inputs, trace) return require("burin.graph.loops").session(name, inputs, trace) end
-- A model without a file, from a configuration (models/detect.lua says what it holds).
function burin.new_model(config, o) return require("burin.models.model").new(config, o) end
burin.nn = require "burin.graph.nn"
-- The objective of a diffusion model, of its noise process (model.noise) or one made by process { ... }.
burin.diffusion = { process = noise.new, objective = losses.objective, mse = losses.squared_error }
burin.tensor = core.tensor
-- burin.save(path, { { name, tensor } ... }, metadata?): a safetensors file in the run's folder
function burin.save(path, tensors, metadata)
  path = paths.output(path)
  if type(tensors) ~= "table" then
    options.fail("burin.save takes a list of { name, tensor }, not a %s", type(tensors))
  end
  local list = {}
  for i, t in ipairs(tensors) do
    if type(t) ~= "table" or type(t[1]) ~= "string" or type(t[2]) ~= "userdata" then
      options.fail("burin.save: entry %d is not { name, tensor }", i)
    end
    list[i] = { t[1], t[2] }
  end
  core.make_dirs(path:match "^(.*)/" or ".")
  core.export(path, "safetensors", list, metadata or {})
end
-- burin.read(path) -> such a file, or nil when there is none
function burin.read(path)
  path = paths.input(path)
  return core.exists(path) and core.load(path) or nil
end
burin.rng = require("burin.base.rng").new
function burin.progress(title, total, first) return require("burin.base.progress").new(title, total, first) end
function burin.log(text, ...) core.log("info", text:format(...)) end

for name, schedule in pairs(schedules) do burin[name] = schedule end

-- burin.lora{ ... } and the other methods: each is a file of adapters/, found by its name.
return kinds.read_only(setmetatable(burin, { __index = function(_, name)
  local module = type(name) == "string" and name:match "^[%a_][%w_]*$"
  local found, method = pcall(require, module and "burin.adapters." .. module)
  if found and methods.is_constructor(method) then return method end
  local names = { "full", "locon", "lora" }  -- for the hint only
  for public in next, burin do names[#names + 1] = public end
  table.sort(names)
  local known, near = synonyms.constructor(nil, tostring(name)), core.nearest(tostring(name), names)
  options.fail("burin has no '%s'%s", name, known and ": write " .. known
    or near and ("; did you mean '" .. near .. "'?") or "")
end }), "burin")
