-- SPDX-License-Identifier: MIT
-- Numbers that are none, in real trainings: a NaN in 20 random layers at random steps, rates that are too high, losses
-- and methods that divide by zero, pictures, states, results. All in one process, so that kernels are compiled once.
--   SCRATCH=folder burin run --trust tests/recipes/nonfinite_test.lua         from the repository root
local core = require "burin.core"
local errors = require "burin.base.errors"
local loop = require "burin.train.loop"
local nonfinite = require "burin.train.nonfinite"
local plans = require "burin.train.plan"
local recipes = require "burin.train.recipe"
local T = dofile "tests/check.lua"
local check = T.checkf

local scratch = (core.env "SCRATCH" or "build") .. "/nonfinite"
core.remove_tree(scratch)
core.make_dirs(scratch)
local commit = core.commit
function core.commit() return commit(false) end  -- one training after the other: memory stays open

-- ---- trainings ------------------------------------------------------------------------------------------------------

-- A recipe's file. fields: lines that replace or follow the usual ones; before: what stands in front of it.
local function write(name, fields, before)
  local usual = { name = '"x"', base = 'burin.model "models/tiny-sd.safetensors"',
    concepts = '{ { images = "examples/sks-cat" } }', method = "burin.lora { rank = 2, text_encoder = false }",
    resolution = "32", steps = "6", seed = "7", optimizer = "burin.adamw { lr = 2e-3 }", state = "{ every = 1 }",
    output = ("%q"):format(scratch .. "/" .. name) }
  for k, v in pairs(fields or {}) do usual[k] = v end
  local lines, keys = {}, {}
  for k in pairs(usual) do keys[#keys + 1] = k end
  table.sort(keys)
  for _, k in ipairs(keys) do lines[#lines + 1] = ("  %s = %s,"):format(k, usual[k]) end
  local path = ("%s/%s.lua"):format(scratch, name)
  core.write_file(path, ('local burin = require "burin"\n%s\nreturn burin.train {\n%s\n}\n'):format(before or "",
    table.concat(lines, "\n")))
  return path
end

local said = {}  -- what the program has logged
local log = core.log
function core.log(level, text)
  said[#said + 1] = text
  if level ~= "info" and level ~= "warn" then log(level, text) end
end
local function has_said(text)
  for _, line in ipairs(said) do if line:find(text, 1, true) then return true end end
  return false
end

-- Trains a file; hook(training, plan) before. Returns its exit code, its last sentence, the training.
local function train(path, o, hook)
  local scope <close> = core.scope()
  said = {}
  local training
  local ok, e = pcall(function()
    training = loop.new(plans.prepare(recipes.load(path, true)))
    if hook then hook(training, training.plan) end
    training:execute(o or {})
  end)
  return ok and 0 or errors.code(e), ok and "" or errors.message(e), training
end

local function metrics(name, key)
  local list = {}
  for value in core.read_file(("%s/%s/x/metrics.jsonl"):format(scratch, name)):gmatch('"' .. key .. '": ?([^,}]+)') do
    list[#list + 1] = value
  end
  return list
end

-- Every tensor of every file under a folder.
local function check_disk(folder)
  local names = {}
  if not core.exists(folder) then return names end
  for _, file in ipairs(core.list(folder)) do
    local path = folder .. "/" .. file
    if core.exists(path) == "folder" then
      for _, inner in ipairs(check_disk(path)) do names[#names + 1] = file .. "/" .. inner end
    elseif file:match "%.safetensors$" then
      local model = core.load(path)
      for _, name in ipairs(model:names()) do check(model:read(name):finite(), "%s: %s is not finite", path, name) end
      model:close()
    end
    names[#names + 1] = file
  end
  return names
end

-- A training that is to end like this. found: texts in its last sentence.
local function ends(name, code, found, fields, before, hook, o)
  local got, text, training = train(write(name, fields, before), o, hook)
  check(got == code, "%s: exit code %d, not %d: %s", name, got, code, text)
  for _, one in ipairs(found) do check(text:find(one, 1, true), "%s: '%s' does not say '%s'", name, text, one) end
  check_disk(scratch .. "/" .. name)
  return training, text
end

local function files_of(name) return table.concat(core.list(scratch .. "/" .. name .. "/x"), " ") end

-- ---- 20 layers ------------------------------------------------------------------------------------------------------

math.randomseed(977)

-- What can be hit in a plan: { entry, name of the layer } ...
local function layers_of(plan)
  local layers = {}
  for _, component in ipairs { plan.model.unet, plan.method.component } do
    for _, e in ipairs(component.order) do
      local name = e.layer and e.name or component.name .. "." .. e.name:gsub("%.weight$", ""):gsub("%.bias$", "")
      layers[#layers + 1] = { entry = e, name = name }
    end
  end
  return layers
end

-- An element that every picture reaches: of a kernel one of its middle tap.
local function position(e)
  local s, n = e.shape, 1
  for _, d in ipairs(s) do n = n * d end
  if e.kind ~= "conv" then return math.random(n) end
  return (s[1] // 2 * s[2] + s[2] // 2) * s[3] * s[4] + math.random(s[3] * s[4])
end

-- Puts a NaN into a variable; returns a function that takes it out again.
local function poison(e)
  local before, t = e.var:read(), e.var:read()
  t:set(position(e), 0 / 0)
  e.var:write(t)
  return function() e.var:write(before) end
end

-- Puts a NaN into a random layer 20 times, at random steps of 6: a step that has gone back may be hit again. Each time
-- the update is skipped, the layer is named, and the run goes back; so in the end it is the run without any of it.
local right, backs = 0, 0
local function inject(training, plan)
  local layers, hits = layers_of(plan), { [0] = 0, 0, 0, 0, 0, 0 }
  for _ = 1, 20 do
    local step = math.random(0, 5)
    hits[step] = hits[step] + 1
  end
  local run, plain, layer, clean = plan.trainer.run, core.log, nil, nil
  function plan.trainer.run(self, session, step, lr)
    if hits[step] > 0 then
      hits[step], layer = hits[step] - 1, layers[math.random(#layers)]
      clean = poison(layer.entry)
    end
    return run(self, session, step, lr)
  end
  function core.log(level, text)
    plain(level, text)
    if text:find "every value looked at" then
      local named = text:match "is that of '[%w_]+' in ([^%s:]+)"
      check(named == layer.name, "a NaN in %s: %s", layer.name, text)
      if named == layer.name then right = right + 1 end
      clean()
    elseif text:find "^back to the state" then
      backs = backs + 1
      training.backs = 0  -- it may go back three times only, each time with half the rate
    end
  end
  return function() core.log = plain end
end

do
  ends("plain", 0, {})
  local restore
  ends("injected", 0, {}, { on_nonfinite = '"back"', max_nonfinite = "1" }, nil,
    function(...) restore = inject(...) end)
  restore()
  check(right == 20 and backs == 20, "%d of 20 layers are named, and the run goes back %d times", right, backs)
  for _, file in ipairs { "x.safetensors", "metrics.jsonl" } do
    check(core.read_file(scratch .. "/plain/x/" .. file) == core.read_file(scratch .. "/injected/x/" .. file),
      "%s of the run that went back 20 times is not as without", file)
  end
end

-- ---- rates that are too high ----------------------------------------------------------------------------------------

do
  local fields = { optimizer = "burin.adamw { lr = 1e30 }", max_grad_norm = "0", save = "{ every = 1 }" }
  local _, text = ends("rate", 70, { "step 4: the loss is NaN, for 3 updates in a row", "is that of 'matmul' in unet.",
    "examples/sks-cat/", "the newest state is of step 1" }, fields)
  check(text:find "%.lora_%w+ %(", "the part of the adapter is not named: %s", text)
  check(table.concat(metrics("rate", "skipped"), " ") == "true true true", "skipped updates in the metrics: %s",
    table.concat(metrics("rate", "skipped"), " "))
  check(not files_of "rate":find "000002" and not files_of("rate"):find "x.safetensors",
    "files of a run that diverged: %s", files_of "rate")
  fields.max_nonfinite, fields.steps, fields.optimizer = "5", "9", "burin.sgd { lr = 1e38 }"
  ends("sgd", 70, { "step 6: the loss is NaN, for 5 updates in a row" }, fields)
  -- A half or a quarter of such a rate does not do better, and the state of step 1 is ruined already.
  fields.max_nonfinite, fields.on_nonfinite, fields.optimizer = "2", '"back"', "burin.adamw { lr = 1e30 }"
  ends("ruined", 70, { "The run has gone back 3 times already" }, fields)
  check(has_said "back to the state of step 1, with 0.5 of the learning rate (1 of 3 times)"
    and has_said "back to the state of step 0, with 0.25 of the learning rate (2 of 3 times)",
    "where it goes back to: %s", table.concat(said, "\n"))
  -- A fork has a rate of its own.
  train(write("fork", { name = '"x"', steps = "3" }), { fork = scratch .. "/ruined/x" })
  local rates = metrics("fork", "lr")
  check(tonumber(rates[#rates]) == 2e-3, "the rate of a fork is %s", rates[#rates])
  fields.max_nonfinite, fields.on_nonfinite, fields.steps, fields.save = "3", nil, "2", nil
  ends("end", 0, {}, fields)
  check(has_said "the last update was not finite and skipped: the result is that of step 1", "the end: %s",
    table.concat(said, "\n"))
end

-- ---- losses and methods of a recipe ---------------------------------------------------------------------------------

local function loss(name, text)
  return { loss = ("burin.loss { name = 'own', per_sample = per_sample }"):format(), steps = "4" }, ([[
local function per_sample(s)
  local b = s.pred.shape[1]
  local function mean(x) return x:sum_to { b, 1, 1, 1 }:reshape { b } end
  %s
end]]):format(text), ("%s/%s.lua:5"):format(scratch, name)
end

do
  local fields, before, line = loss("log", "return mean((s.pred * 0 - 1):log())")
  ends("log", 70, { "step 3: the loss is NaN", "'log' in the loss (" .. line .. ")" }, fields, before)
  fields, before, line = loss("slope", "return mean(s.pred:square() + (s.pred * 0):sqrt())")
  ends("slope", 70, { "the gradient's norm is NaN", "in the gradient of the loss (" .. line .. ")" }, fields, before)
  -- A loss that is infinite although its gradient is not: no update either.
  fields, before, line = loss("constant", "return mean(s.pred:square()) + mean((s.noise * 0):log()):detach()")
  local training = ends("constant", 70, { "the loss is infinite", "'log' in the loss (" .. line .. ")" }, fields,
    before, function(_, plan)
      local explain = nonfinite.explain
      function nonfinite.explain(...)
        check(plan.trainer:applied() == 0, "%d updates of an infinite loss are applied", plan.trainer:applied())
        nonfinite.explain = explain
        return explain(...)
      end
    end)
  check(table.concat(metrics("constant", "grad_norm"), " "):find "%d", "the gradient is finite: %s",
    table.concat(metrics("constant", "grad_norm"), " "))
  check(training.step == 3, "%d steps", training.step)
end

do
  local method = [[
local own = burin.method { name = "own", options = { text_encoder = false },
  targets = function(o, layer) return layer.name == "mid_block.attentions.0.proj_in" end,
  params = function(o, layer) return { shift = layer:param("shift", { layer.outputs }, "zeros") } end,
  forward = function(o, layer, p, x, y)
    return y + p.shift / p.shift
  end }]]
  ends("method", 70, { "'div' in unet.mid_block.attentions.0.proj_in (" .. scratch .. "/method.lua:6)" },
    { method = "own {}", max_nonfinite = "1" }, method)
  ends("unreached", 78, { "nothing is trained", "unreached.lua:" }, { method = "own {}" },
    (method:gsub("mid_block.attentions.0.proj_in", "nowhere")))
end

-- ---- a picture, one micro-batch of several --------------------------------------------------------------------------

ends("picture", 70, { "in the latents", "it reads batch.moments.32x32", "The pictures of its batch: " },
  { accumulate = "2", max_nonfinite = "1", steps = "3" }, nil, function(training, plan)
    local run = plan.trainer.run
    function plan.trainer.run(self, ...)
      for _, item in ipairs(plan.data.items) do
        if item.path:find "3-sand" then item.moments:set(1, 0 / 0) end
      end
      return run(self, ...)
    end
    local explain = nonfinite.explain
    function nonfinite.explain(...)
      local text = explain(...)
      local pictures = text:match "The pictures of its batch: (.*)"
      check(pictures:find "^[^,;]*3%-sand[^,;]*$", "only the picture that is not finite is named: %s", pictures)
      nonfinite.explain = explain
      return text
    end
  end)

-- ---- stopped and resumed between such steps -------------------------------------------------------------------------

do
  local fields, before = loss("resumed", "return mean((s.pred * 0 - 1):log())")
  local path = write("resumed", fields, before)
  local stop, asked = core.stop_requested, 0
  function core.stop_requested()
    asked = asked + 1
    return asked == 2
  end
  local code, text = train(path)
  core.stop_requested = stop
  check(code == 130, "a run that is stopped after two such steps: %d: %s", code, text)
  check_disk(scratch .. "/resumed")
  code, text = train(path, { resume = true })
  check(code == 70 and text:find("step 3: the loss is NaN, for 3 updates in a row", 1, true),
    "resumed, it has forgotten two of them: %d: %s", code, text)
  fields.on_nonfinite = '"back"'
  code, text = train(write("resumed", fields, before), { resume = true })
  check(code == 70 and text:find("gone back 3 times", 1, true), "resumed with 'back': %d: %s", code, text)
end

-- ---- f16: what the loss scale is for --------------------------------------------------------------------------------

do
  local stub = { step = 4, steps = 9, norm = math.huge, nonfinite = 0, backs = 0,
    plan = { recipe = { max_nonfinite = 1 }, trainer = { loss_scale = function() return 512 end } } }
  check(not nonfinite.look(stub, 0.5, 1024) and stub.nonfinite == 0 and not nonfinite.is_too_much(stub),
    "a gradient that overflows with a loss scale of 1024 counts")
  check(not nonfinite.look(stub, 0.5, 1) and nonfinite.is_too_much(stub), "with a scale of 1 it does not")
  stub.nonfinite = 0
  check(not nonfinite.look(stub, 0 / 0, 1024) and nonfinite.is_too_much(stub), "a loss that is NaN does not")
end

-- ---- nothing that is not finite is written --------------------------------------------------------------------------

do
  local path = scratch .. "/whole.safetensors"
  core.export(path, "safetensors", { { "a", core.tensor({ 3 }, "f32", 1) } })
  local before = core.read_file(path)
  for _, dtype in ipairs { "f32", "f16", "bf16" } do
    local t = core.tensor({ 301 }, dtype, 0)
    t:set(300, -math.huge)
    local ok, e = pcall(core.export, path, "safetensors", { { "a", core.tensor({ 3 }, "f32", 1) }, { "b.c", t } })
    check(not ok and errors.code(e) == 70 and errors.message(e):find('"b.c" holds a NaN or an infinity', 1, true),
      "%s: %s", dtype, ok and "written" or errors.message(e))
    check(core.read_file(path) == before, "%s: the file that was there is another one", dtype)
  end
  check(table.concat(core.list(scratch), " "):find("whole.safetensors", 1, true)
    and not table.concat(core.list(scratch), " "):find "tmp", "left over: %s", table.concat(core.list(scratch), " "))
end

-- An adapter that f16 cannot hold, and pictures of a network that is NaN.
ends("large", 70, { "lora_unet_", "lora_up.weight\" holds a NaN or an infinity" },
  { steps = "1", save = '{ dtype = "f16" }', optimizer = "burin.adamw { lr = 1e6 }" })
check(not files_of "large":find "x.safetensors", "an adapter with infinities is there: %s", files_of "large")
ends("picture-nan", 70, { "the latents of 'a cat' hold a NaN or an infinity, so there is no picture" },
  { steps = "2", sample = '{ prompts = { "a cat" }, steps = 1 }' }, nil, function(training, plan)
    local draw = plan.sampler.run
    function plan.sampler.run(...)
      local clean = poison(plan.method.component.order[1])
      local results = table.pack(pcall(draw, ...))
      clean()
      if not results[1] then error(results[2], 0) end
    end
  end)
check(#core.list(scratch .. "/picture-nan/x/samples") == 0, "pictures of a network that is NaN: %s",
  table.concat(core.list(scratch .. "/picture-nan/x/samples"), " "))

-- ---- nothing to learn -----------------------------------------------------------------------------------------------

local function refused(name, field, value, text, before)
  local ok, e = pcall(recipes.load, write(name, { [field] = value }, before), true)
  local why = ok and "accepted" or errors.message(e)
  check(not ok and errors.code(e) == 78 and why:find(text, 1, true) and why:find("^" .. scratch:gsub("%p", "%%%0")),
    "%s = %s: '%s' does not say '%s'", field, value, why, text)
end
refused("alpha", "method", "burin.lora { rank = 2, alpha = 0 }", "'alpha' = 0 must be above 0")
refused("conv_alpha", "method", "burin.lora { rank = 2, conv_rank = 2, conv_alpha = 0 }", "'conv_alpha' = 0")
refused("locon", "method", "burin.locon { rank = 2, alpha = 0.0 }", "'alpha' = 0.0 must be above 0")
refused("neither", "method", "burin.lora { unet = false, text_encoder = false }", "nothing is trained")
refused("full", "method", "burin.full { unet = false }", "nothing is trained")
refused("lr", "optimizer", "burin.adamw { lr = 0 }", "nothing is trained")
refused("lr-unet", "optimizer", "burin.sgd { lr = 0, text_encoder_lr = 1 }", "nothing is trained")

-- A method whose alpha is 0 is found when its file would be written.
do
  local own = require("burin.adapters.own").method { name = "own", kind = "lora", params = print, forward = print,
    alpha = function() return 0 end }
  local ok, e = pcall(own {}.definition.alpha, {}, {})
  check(not ok and errors.message(e):find("a finite number other than 0, not 0", 1, true), "own alpha = 0: %s",
    ok and "accepted" or errors.message(e))
end

-- All gradients are 0 in the first step, and later: the first is said.
do
  local fields, before = loss("zero", "return mean(s.pred:square() * 0)")
  fields.steps = "2"
  ends("zero", 0, {}, fields, before)
  check(has_said "step 1: every gradient is 0", "a loss without a gradient: %s", table.concat(said, "\n"))
  check(not has_said "step 2: every", "it is said again")
end

core.log = log
T.finish()
