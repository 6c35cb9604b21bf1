-- SPDX-License-Identifier: MIT
-- loops.lua - the layer below burin.train: burin.compile for a training loop of one's own, burin.session for a graph
-- that only computes. What a recipe gives is checked; compile.lua does the work.
local class = require "burin.base.class"
local compile = require "burin.graph.compile"
local core = require "burin.core"
local errors = require "burin.base.errors"
local kinds = require "burin.base.kinds"
local nn = require "burin.graph.nn"
local options = require "burin.base.options"
local paths = require "burin.base.paths"
local place = require "burin.base.place"
local state = require "burin.base.state"
local loops = {}

local GROUPS = 4  -- of parameters

local call_step
local Step, new_step = class("step", nil, { __call = function(...) return call_step(...) end })

-- Writes what a resumed loop needs to go on bit for bit into a folder of the run's, beside the states before (the
-- newest two stay).
function Step:save(folder)
  state.save(paths.output(folder), self.count, self.trainer:state(), { count = self.count, seed = self.trainer.seed })
end

-- Goes on from the newest state in a folder, if there is one. Returns how many batches the step has seen: 0 for none.
function Step:resume(folder)
  local info, file, path = state.latest(paths.output(folder))
  if not info then return 0 end
  if info.seed ~= self.trainer.seed then
    error(("%s: a state of seed %d; this loop has seed %d. Remove the folder to start over"):format(path, info.seed,
      self.trainer.seed), 0)
  end
  state.restore(info, file, path, self.trainer:state())
  self.count = info.count
  return self.count
end

function call_step(self, batch, shape)
  local o, trainer, s = self.o, self.trainer, self.shapes[shape or 1]
  if self.count == 0 then trainer:reset() end
  for name, var in pairs(s.vars) do var:write(batch[name]) end
  local lr = o.optimizer.lr * (o.schedule and o.schedule.factor(self.count // trainer.accumulate, o.steps) or 1)
  trainer:run(s.session, self.count, { [0] = lr, lr, lr, lr })
  self.count = self.count + 1
  return trainer:read()
end

local schema = {
  name = { "string", default = "step", help = "for messages" },
  inputs = { "table", required = true, example = "{ x = { { 256, 2 } } }",
    help = "name -> { shape, dtype }, or a list of such tables" },
  loss = { "function", required = true, help = "function(x, graph, control) -> scalar node" },
  params = { "function", required = true, help = "function() -> { { name =, var =, group = } ... }" },
  optimizer = { "optimizer", required = true, help = "burin.adamw {}" },
  schedule = { "schedule", help = "burin.cosine {}; needs steps" },
  steps = { "integer", min = 1, help = "updates that the schedule runs over" },
  max_grad_norm = { "number", default = 1, min = 0, help = "0 = no clipping" },
  accumulate = { "integer", min = 1, help = "batches per update" },
  seed = { "integer", help = "of every random number" },
  ema = { "number", min = 0, max = 1, help = "decay of a moving average of the parameters" },
  loss_scale = { "number", min = 0, help = "first value of a dynamic scale, for f16" },
}

-- A recipe's loss, whose result must be one number.
local function checked_loss(f)
  local at, call = place.of(f), errors.callback(f)
  return function(x, graph, control)
    local loss = call(x, graph, control)
    if not nn.is_node(loss, {}, graph) then
      options.fail_at(at, "burin.compile: loss must give a scalar, a node (), not %s; see sum_to and reshape",
        nn.describe(loss, graph))
    end
    return loss
  end
end

-- A recipe's list of parameters.
local function checked_params(f)
  local at, call = place.of(f), errors.callback(f)
  return function()
    local list = call()
    if type(list) ~= "table" or #list == 0 then
      options.fail_at(at, "burin.compile: params must give a list { { name =, var =, group = } ... }, not %s",
        type(list) == "table" and "an empty one" or kinds.describe(list))
    end
    for i, p in ipairs(list) do
      if type(p) ~= "table" or type(p.name) ~= "string" or core.graph_type(p.var) ~= "var"
        or math.type(p.group) ~= "integer" or p.group < 0 or p.group >= GROUPS then
        options.fail_at(at,
          "burin.compile: entry %d of params must be { name = text, var = a variable, group = 0 .. %d }", i,
          GROUPS - 1)
      end
    end
    return list
  end
end

-- burin.compile{ ... } for a loop of one's own: returns an object that is called with a batch of tensors.
--   inputs     name -> { shape, dtype }: what a batch holds; or a list of such tables, one per batch shape
--   loss       function(x, graph, control) -> scalar node; x holds the inputs' nodes
--   params     function() -> { { name =, var =, group = } ... }, asked for after loss has been traced
--   optimizer, schedule, steps, max_grad_norm, accumulate, seed, ema, loss_scale
-- step(batch, shape?) -> loss, gradient norm; shape: number of the inputs table (1). step:save(folder),
-- step:resume(folder).
function loops.compile(o)
  o = options.check("burin.compile", o, schema)
  if o.schedule and not o.steps then options.fail "burin.compile needs 'steps' for its schedule" end
  local loss_of, params_of = checked_loss(o.loss), checked_params(o.params)
  local trainer = compile.trainer { optimizer = o.optimizer, max_norm = o.max_grad_norm, accumulate = o.accumulate,
    seed = o.seed, ema = o.ema, loss_scale = o.loss_scale }
  local shapes = {}
  for k, inputs in ipairs(o.inputs[1] and o.inputs or { o.inputs }) do
    local vars = {}
    for name, spec in pairs(inputs) do vars[name] = core.var("batch." .. name, spec[1], spec[2] or "f32", "input") end
    local session = trainer:session(o.name .. "." .. k, function(graph, control)
      local x = {}
      for name, var in pairs(vars) do x[name] = graph:leaf(var) end
      local loss = loss_of(x, graph, control)
      return loss, params_of()
    end)
    shapes[k] = { vars = vars, session = session }
  end
  return new_step { o = o, trainer = trainer, shapes = shapes, count = 0 }
end

-- A session without training: trace(x, graph) -> { name = node }. Returns f(batch) -> { name = tensor }.
function loops.session(name, inputs, trace)
  if type(name) ~= "string" or type(inputs) ~= "table" or type(trace) ~= "function" then
    options.fail("burin.session takes a name, { input = { shape, dtype } } and a function(x, graph), not %s, %s and %s",
      kinds.describe(name), kinds.describe(inputs), kinds.describe(trace))
  end
  local at, call = place.of(trace), errors.callback(trace)
  local graph, vars, x, outputs = core.graph(), {}, {}, {}
  for key, spec in pairs(inputs) do
    vars[key] = core.var(name .. "." .. key, spec[1], spec[2] or "f32", "input")
    x[key] = graph:leaf(vars[key])
  end
  local nodes = call(x, graph)
  if type(nodes) ~= "table" then
    options.fail_at(at, "burin.session: its function must give { name = node ... }, not %s", kinds.describe(nodes))
  end
  for key, node in pairs(nodes) do
    if core.graph_type(node) ~= "node" or node.graph ~= graph then
      options.fail_at(at, "burin.session: '%s' must be a node, not %s", tostring(key), nn.describe(node, graph))
    end
    outputs[key] = core.var(name .. "." .. key, node.shape, "f32", "input")
    graph:assign(outputs[key], node:cast "f32")
  end
  local session = core.session(graph, name)
  return function(batch)
    for key, var in pairs(vars) do var:write(batch[key]) end
    session:run()
    local results = {}
    for key, var in pairs(outputs) do results[key] = var:read() end
    return results
  end
end

return loops
