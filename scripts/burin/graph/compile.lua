-- SPDX-License-Identifier: MIT
-- compile.lua - from a loss to a training step. The trained parameters are one flat vector per group, and so are
-- their gradients and the optimizer's state: clipping and the update are a handful of dispatches however many
-- tensors there are. All state of a step lives on the device (core/graph/control.h); the host writes the step's
-- number and learning rates, and reads the loss back.
local class = require "burin.base.class"
local core = require "burin.core"
local options = require "burin.base.options"
local compile = {}

local C = core.constants  -- of control.h

local Trainer, new_trainer = class "trainer"

-- o: optimizer (optim.lua), max_norm (0 = no clipping), accumulate (micro-batches per update), seed,
-- loss_scale (nil = 1; a number: first value of the dynamic scale that f16 activations need), growth (finite steps
-- until the scale doubles), ema (decay of a moving average of the parameters, kept beside them; nil = none).
function compile.trainer(o)
  local self = new_trainer { o = o, accumulate = o.accumulate or 1, seed = o.seed or 0 }
  self.control = core.var("control", { C.CONTROL_WORDS }, "f32", "input")
  self.amp = core.var("amp", { C.AMP_WORDS }, "f32", "state")
  self.loss = core.var("loss", {}, "f32", "input")
  return self
end

-- Packs the parameters that the loss reaches; the others keep their values and are never touched (no weight decay).
local function pack(self, params, grads)
  self.groups, self.view = {}, {}
  local members = {}
  for i, p in ipairs(params) do
    if grads[i] then
      members[p.group] = members[p.group] or {}
      table.insert(members[p.group], p.var)
    end
  end
  if not next(members) then options.fail "nothing is trained: the loss depends on none of the parameters" end
  local numbers = {}
  for number in pairs(members) do numbers[#numbers + 1] = number end
  table.sort(numbers)
  for _, number in ipairs(numbers) do
    local vars = members[number]
    local group = { number = number, params = core.pack("params." .. number, vars, "param"), state = {} }
    local views
    group.grads, views = core.pack_like("grads." .. number, group.params, "grad")
    for i, var in ipairs(vars) do self.view[var] = views[i] end
    for _, name in ipairs(self.o.optimizer.state) do
      group.state[name] = core.pack_like(name .. "." .. number, group.params, "state")
    end
    if self.o.ema then group.ema = core.pack_like("ema." .. number, group.params, "state") end
    table.insert(self.groups, group)
  end
end

local function add_update(self, graph, control, amp)
  local total
  for _, group in ipairs(self.groups) do
    local squares = graph:leaf(group.grads):sum_squares()
    total = total and total + squares or squares
  end
  total:grad_factor(amp, { max_norm = self.o.max_norm or 0 })
  for _, group in ipairs(self.groups) do
    local state = {}
    for name, var in pairs(group.state) do state[name] = graph:leaf(var) end
    self.o.optimizer.update(graph:leaf(group.params), graph:leaf(group.grads), state, control, amp, group.number)
    if group.ema then  -- ema += (1 - decay) * (params - ema)
      local ema = graph:leaf(group.ema)
      graph:assign(group.ema, ema + (graph:leaf(group.params) - ema) * (1 - self.o.ema))
    end
  end
end

-- Compiles one batch shape. trace(graph, control) -> loss (a scalar node), params { { name =, var =, group = } ... }.
-- All sessions of a trainer share parameters, state and one arena.
function Trainer:session(name, trace)
  local graph = core.graph()
  local control, amp = graph:leaf(self.control), graph:leaf(self.amp)
  local loss, params = trace(graph, control)
  local leaves = {}
  for i, p in ipairs(params) do leaves[i] = graph:leaf(p.var) end
  graph:assign(self.loss, loss:cast "f32")
  if self.accumulate > 1 then loss = loss * (1 / self.accumulate) end
  local seed = self.o.loss_scale and amp:slice { axis = 0, begin = C.AMP_SCALE, stop = C.AMP_SCALE + 1 }:reshape {}
  local grads = graph:backward(loss, leaves, seed)
  if not self.groups then pack(self, params, grads) end
  for i, p in ipairs(params) do
    local view = self.view[p.var]
    if view then
      graph:assign(view, self.accumulate > 1 and grads[i] + graph:leaf(view) or grads[i])
    end
  end
  if self.accumulate == 1 then
    add_update(self, graph, control, amp)
  elseif not self.update_session then
    local g = core.graph()
    add_update(self, g, g:leaf(self.control), g:leaf(self.amp))
    for _, group in ipairs(self.groups) do  -- x < x is 0 for every x, NaN included
      local x = g:leaf(group.grads)
      g:assign(group.grads, x:less(x))
    end
    self.update_session = core.session(g, "update")
  end
  return core.session(graph, name)
end

-- Sets the state of a run that starts: call after core.commit.
function Trainer:reset()
  local amp = core.tensor({ C.AMP_WORDS }, "f32", 0)
  amp:set(C.AMP_SCALE + 1, self.o.loss_scale or 1)
  amp:set(C.AMP_GROWTH + 1, self.o.loss_scale and (self.o.growth or 2000) or 0)
  self.amp:write(amp)
  for _, group in ipairs(self.groups) do
    group.grads:write(0)
    for _, var in pairs(group.state) do var:write(0) end
    if group.ema then group.ema:write(group.params:read()) end
  end
end

-- Replaces the parameters by their moving average: what is saved and sampled at the end.
function Trainer:adopt_ema()
  for _, group in ipairs(self.groups) do group.params:write(group.ema:read()) end
end

-- One micro-batch: step counts micro-batches from 0, lr is the learning rate of each group (0-based numbers).
function Trainer:run(session, step, lr)
  local words = {}
  for i = 1, C.CONTROL_WORDS do words[i] = "\0\0\0\0" end
  local function set(at, format, value) words[at + 1] = format:pack(value) end
  set(C.CONTROL_STEP, "<I4", step & 0xffffffff)
  set(C.CONTROL_SEED_LO, "<I4", self.seed & 0xffffffff)
  set(C.CONTROL_SEED_HI, "<I4", (self.seed >> 32) & 0xffffffff)
  for group = 0, C.CONTROL_WORDS - C.CONTROL_LR - 1 do set(C.CONTROL_LR + group, "<f", lr[group] or 0) end
  self.control:write(core.tensor({ C.CONTROL_WORDS }, "f32", table.concat(words)))
  session:run()
  if self.update_session and (step + 1) % self.accumulate == 0 then self.update_session:run() end
end

-- loss of the last micro-batch; gradient norm and number of skipped steps of the last update
function Trainer:read()
  local amp = self.amp:read()
  return self.loss:read():get(1), amp:get(C.AMP_NORM + 1), amp:get(C.AMP_SKIPPED + 1)
end

-- Every variable that a resumed run needs, as { name, var } in a fixed order.
function Trainer:state()
  local list = { { "amp", self.amp } }
  for _, group in ipairs(self.groups) do
    table.insert(list, { "params." .. group.number, group.params })
    for _, name in ipairs(self.o.optimizer.state) do
      table.insert(list, { name .. "." .. group.number, group.state[name] })
    end
    if group.ema then table.insert(list, { "ema." .. group.number, group.ema }) end
    if self.accumulate > 1 then table.insert(list, { "grads." .. group.number, group.grads }) end
  end
  return list
end

return compile
