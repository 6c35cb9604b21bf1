-- SPDX-License-Identifier: MIT
-- start.lua - the first values of what is trained, out of a file that the recipe names (`from`): an adapter in any
-- spelling that adapters/file.lua reads, or for a full training a checkpoint. Values are all that is taken: what is
-- trained follows from the recipe, so both have to agree, and a number of the file that the recipe does not have is an
-- error, never a conversion.
local class = require "burin.base.class"
local components = require "burin.graph.component"
local convert = require "burin.adapters.convert"
local core = require "burin.core"
local errors = require "burin.base.errors"
local file = require "burin.adapters.file"
local files = require "burin.models.io.files"
local folders = require "burin.base.folders"
local keys = require "burin.adapters.keys"
local kinds = require "burin.base.kinds"
local models = require "burin.models.model"
local options = require "burin.base.options"
local reports = require "burin.models.io.report"
local sums = require "burin.base.sums"
local start = {}

local Start, new_start = class("start", {
  "path", "what",  -- what: a sentence for plan and log
  "load",          -- function(): writes the values to the device
})

-- ---- which file it was ----------------------------------------------------------------------------------------------

-- SHA-256 of a file; of a folder that of the list of its files' names and hashes; nil when there is nothing.
function start.hash(path)
  local kind = core.exists(path)
  if kind ~= "folder" then return kind and core.sha256_file(path) or nil end
  local lines = {}
  for i, each in ipairs(folders.walk(path)) do lines[i] = each:sub(#path + 2) .. " " .. core.sha256_file(each) end
  return core.sha256(table.concat(lines, "\n"))
end

-- What tells the file that a run began from, { path =, hash = } or nil, from what its recipe says now: a text, or nil.
-- A run goes on from its state, so a file that has gone or changed in the meantime is a warning only.
function start.difference(was, path)
  if not was and not path then return nil end
  if was and was.path == path then
    local now = start.hash(path)
    if now ~= was.hash then
      core.log("warn", ("%s, which this run began from, %s; the run goes on from its state"):format(path,
        now and "is another file now" or "is not there any more"))
    end
    return nil
  end
  if was and path and start.hash(path) == was.hash then return nil end
  return ("from was %s and is %s"):format(was and was.path or "not set", path or "not set")
end

-- ---- adapters -------------------------------------------------------------------------------------------------------

local function fail(plan, text, ...)
  options.fail_at(kinds.place(plan.recipe, "from"), "from '%s': " .. text, plan.recipe.from, ...)
end

local titles = { loha = "LoHa", lokr = "LoKr", diff = "whole differences of weights" }

-- What an adapter of the file is beside plain LoRA, or nil.
local function other_kind(e)
  if e.kind ~= "lora" then return titles[e.kind] or e.kind end
  return (e.parts.dora or e.parts.magnitude) and "DoRA" or e.parts.mid and "LoCon with middle kernels" or nil
end

local function short(x) return ("%.6g"):format(x) end

-- The recipe's numbers of a layer and the file's must be the same.
local function compare_sizes(plan, name, mine, theirs)
  local wide, path = mine.kind == "conv" and mine.kernel > 1 and "conv_" or "", plan.recipe.from
  if mine.rank ~= theirs.rank then
    fail(plan, "'%srank' is %d in the recipe and %d in the file (%s): write %srank = %d%s", wide, mine.rank,
      theirs.rank, name, wide, theirs.rank, mine.rank < theirs.rank
        and (", or make a file of rank %d: burin resize %s OUT --rank %d"):format(mine.rank, path, mine.rank)
        or "; 'burin resize' makes ranks smaller, never greater")
  end
  local rounded = theirs.alpha_dtype and core.tensor({}, theirs.alpha_dtype, mine.alpha):get(1) or mine.alpha
  if mine.alpha ~= theirs.alpha and rounded ~= theirs.alpha then
    fail(plan, "'%salpha' is %s in the recipe and %s in the file (%s): write %salpha = %s", wide, short(mine.alpha),
      short(theirs.alpha), name, wide, short(theirs.alpha))
  end
end

-- Where one of two lists has layers that the other lacks: a component, how many of it, the first of their names.
local function lacking(list, other)
  local names, component, n = {}, nil, 0
  for name in pairs(list) do if not other[name] then names[#names + 1] = name end end
  table.sort(names)
  for _, name in ipairs(names) do
    component = component or list[name].component
    if list[name].component == component then n = n + 1 end
  end
  return component, n, names[1]
end

-- The field of the recipe that decides whether layers of a component are trained, and its value.
local function field_of(plan, component)
  local o = plan.method.options
  if component ~= "unet" then return "text_encoder", tostring(o.text_encoder) end
  if o.unet == false then return "unet", "false" end
  return "conv_rank", o.conv_rank and tostring(o.conv_rank) or "not set"
end

local function compare_layers(plan, mine, theirs)
  local component, n, first = lacking(theirs, mine)
  if component then
    local field, value = field_of(plan, component)
    fail(plan, "'%s' is %s in the recipe, and the file has %d layers of %s that would be lost (the first is %s)", field,
      value, n, component, first)
  end
  component, n, first = lacking(mine, theirs)
  if component then
    local field, value = field_of(plan, component)
    fail(plan, "'%s' is %s in the recipe, and the file lacks %d layers of %s (the first is %s)", field, value, n,
      component, first)
  end
end

-- "unet.down_blocks.0...to_q" -> { component, kind, kernel, rank, alpha } of the recipe's layers
local function layers_of(method)
  local list = {}
  for _, e in ipairs(method.component.order) do
    if e.param == "lora_down" then
      local l = e.layer
      list[l.component .. "." .. l.name] = { component = l.component, kind = l.kind, kernel = l.kernel,
        rank = components.file_shape(e)[1], alpha = method.definition.alpha(method.options, l) }
    end
  end
  return list
end

-- The same of the file.
local function layers_in(plan, path)
  local list = {}
  for _, e in ipairs(file.read(path, keys.index(plan.model)).adapters) do
    local other = other_kind(e)
    if other then
      fail(plan, "'method' is %s in the recipe, and the file holds %s (%s)", plan.method.name, other, e.keys[1])
    end
    list[e.layer.component .. "." .. e.layer.module] = { component = e.layer.component, rank = e.rank, alpha = e.alpha,
      alpha_dtype = e.alpha_dtype, parts = e.parts }
  end
  return list
end

local function check_finite(path, name, t)
  if not t:finite() then
    errors.file(path, "%s holds a NaN or an infinity; it was saved from a training that had diverged", name)
  end
  return t
end

-- A LoRA, for a method whose parameters are lora_down and lora_up.
local function open_lora(plan, path)
  local method, ranks = plan.method, {}
  local mine, theirs = layers_of(method), layers_in(plan, path)
  compare_layers(plan, mine, theirs)
  local names = {}
  for name in pairs(mine) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    compare_sizes(plan, name, mine[name], theirs[name])
    ranks[mine[name].rank] = true
  end
  local list = {}
  for rank in pairs(ranks) do list[#list + 1] = rank end
  table.sort(list)
  return ("a LoRA of rank %s, %d layers"):format(table.concat(list, " and "), #names), function()
    method.component:load(function(full)
      local e = method.component.vars[full]
      local part = theirs[e.layer.component .. "." .. e.layer.name].parts[e.param:match "^lora_(.*)$"]
      local s, want = part.shape, components.file_shape(e)
      local product = 1
      for _, d in ipairs(want) do product = product * d end
      -- linear layers and 1x1 convolutions are taken for each other
      if #s ~= #want and part.count == product and s[1] == want[1] then part = part:reshape(want) end
      return check_finite(path, full, part)
    end)
  end
end

-- What a method of the recipe's own wrote.
local function open_own(plan, path)
  local method = plan.method
  local f = errors.guard("data", sums.load, path)
  local reader, used = method:reader(f, plan.model.map)
  for _, e in ipairs(method.component.order) do
    local t = reader(e.name)
    if not t then fail(plan, "'method' is %s in the recipe, and the file lacks its %s", method.name, e.name) end
    if not components.fits(e, t.shape) then
      fail(plan, "%s is (%s) in the recipe and (%s) in the file", e.name, table.concat(components.file_shape(e), ", "),
        table.concat(t.shape, ", "))
    end
  end
  for _, key in ipairs(f:names()) do
    if not used[key] and not key:match "%.alpha$" then
      fail(plan, "'method' is %s in the recipe, and nothing of it is %s in the file", method.name, key)
    end
  end
  return ("what the method %s wrote, %d tensors"):format(method.name, #method.component.order), function()
    method.component:load(function(name) return check_finite(path, name, reader(name)) end)
  end
end

-- ---- checkpoints ----------------------------------------------------------------------------------------------------

local function compare_models(plan, model)
  local base = plan.model
  if model.family ~= base.family then
    fail(plan, "the base is %s and the file is %s", base.family.label, model.family.label)
  end
  if model.noise.prediction ~= base.noise.prediction then
    fail(plan, "'prediction' is %s of the base and %s of the file", base.noise.prediction, model.noise.prediction)
  end
end

-- The networks that are trained, which must be in the file as they are in the base. report: models/io/report.lua
local function compare_networks(plan, report)
  local shapes = {}
  for _, item in ipairs(report.items) do shapes[item.component .. "." .. item.name] = item.shape end
  for _, component in ipairs(plan.method.components) do
    for _, e in ipairs(component.order) do
      local shape = shapes[component.name .. "." .. e.name]
      if not shape then fail(plan, "it lacks %s, which the recipe trains", component.name .. "." .. e.name) end
      if not components.fits(e, shape) then
        fail(plan, "%s.%s is (%s) in the base and (%s) in the file", component.name, e.name,
          table.concat(components.file_shape(e), ", "), table.concat(shape, ", "))
      end
    end
  end
end

local function open_checkpoint(plan, path)
  local model, names = models.open(path, { prediction = plan.recipe.prediction }), {}
  compare_models(plan, model)
  local report = model:look()
  reports.check_tensors(report)
  compare_networks(plan, report)
  for i, component in ipairs(plan.method.components) do names[i] = component.name end
  return ("%s of %s"):format(table.concat(names, ", "), reports.line(report)), function()
    for _, component in ipairs(plan.method.components) do
      component:load(files.finite(model:reader(component.name), path, component.name))
    end
  end
end

-- ---- all of them ----------------------------------------------------------------------------------------------------

-- Opens what a plan's recipe says; nil when that is nothing. Every disagreement is an error now.
function start.open(plan)
  local path = plan.recipe.from
  if not path then return nil end
  if not core.exists(path) then errors.raise("input", "%s: there is no such file to begin from", path) end
  local is_lora = convert.is_lora(path)
  if plan.method.whole and is_lora then
    fail(plan, "'method' is %s in the recipe, and the file is a LoRA; burin merge makes a checkpoint of it and a base",
      plan.method.name)
  end
  local open = plan.method.whole and open_checkpoint or plan.method.definition.kind == "lora" and open_lora or open_own
  if open == open_lora and not is_lora then
    fail(plan, "'method' is %s in the recipe, and the file is no adapter; burin.full begins from a checkpoint",
      plan.method.name)
  end
  local what, load = open(plan, path)
  return new_start { path = path, what = ("%s (%s)"):format(path, what), load = load }
end

-- { path =, hash = } for the run's record.
function Start:facts() return { path = self.path, hash = start.hash(self.path) } end

return start
