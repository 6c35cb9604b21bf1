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
  if self.accumulate > 1 then self.losses = core.var("losses", {}, "f32", "input") end
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

-- loss: what was not finite there is no step either, however finite its gradient is.
local function add_update(self, graph, control, amp, loss)
  local total
  graph:label "the gradients"
  for _, group in ipairs(self.groups) do
    local squares = graph:leaf(group.grads):sum_squares()
    total = total and total + squares or squares
  end
  total:grad_factor(amp, loss, { max_norm = self.o.max_norm or 0 })
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

-- The session that updates the parameters after the last of several micro-batches, whose losses have been summed up.
local function update_session(self)
  local g = core.graph()
  add_update(self, g, g:leaf(self.control), g:leaf(self.amp), g:leaf(self.losses))
  local function clear(var)  -- x < x is 0 for every x, NaN included
    local x = g:leaf(var)
    g:assign(var, x:less(x))
  end
  for _, group in ipairs(self.groups) do clear(group.grads) end
  clear(self.losses)
  return core.session(g, "update")
end

-- Compiles one batch shape. trace(graph, control) -> loss (a scalar node), params { { name =, var =, group = } ... }.
-- All sessions of a trainer share parameters, state and one arena.
function Trainer:session(name, trace)
  local graph = core.graph()
  local control, amp = graph:leaf(self.control), graph:leaf(self.amp)
  local loss, params = trace(graph, control)
  local leaves = {}
  for i, p in ipairs(params) do leaves[i] = graph:leaf(p.var) end
  local whole = loss:cast "f32"
  graph:assign(self.loss, whole)
  if self.losses then graph:assign(self.losses, graph:leaf(self.losses) + whole) end
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
    add_update(self, graph, control, amp, whole)
  elseif not self.update_session then
    self.update_session = update_session(self)
  end
  return core.session(graph, name)
end

-- Sets the state of a run that starts: call after core.commit.
function Trainer:reset()
  local amp = core.tensor({ C.AMP_WORDS }, "f32", 0)
  amp:set(C.AMP_SCALE + 1, self.o.loss_scale or 1)
  amp:set(C.AMP_GROWTH + 1, self.o.loss_scale and (self.o.growth or 2000) or 0)
  self.amp:write(amp)
  self.scale = nil
  self:clear_gradients()
  for _, group in ipairs(self.groups) do
    for _, var in pairs(group.state) do var:write(0) end
    if group.ema then group.ema:write(group.params:read()) end
  end
end

-- Replaces the parameters by their moving average: what is saved and sampled at the end.
function Trainer:adopt_ema()
  for _, group in ipairs(self.groups) do group.params:write(group.ema:read()) end
end

local function write_control(self, step, lr)
  local words = {}
  for i = 1, C.CONTROL_WORDS do words[i] = "\0\0\0\0" end
  local function set(at, format, value) words[at + 1] = format:pack(value) end
  set(C.CONTROL_STEP, "<I4", step & 0xffffffff)
  set(C.CONTROL_SEED_LO, "<I4", self.seed & 0xffffffff)
  set(C.CONTROL_SEED_HI, "<I4", (self.seed >> 32) & 0xffffffff)
  for group = 0, C.CONTROL_WORDS - C.CONTROL_LR - 1 do set(C.CONTROL_LR + group, "<f", lr[group] or 0) end
  self.control:write(core.tensor({ C.CONTROL_WORDS }, "f32", table.concat(words)))
end

-- One micro-batch: step counts micro-batches from 0, lr is the learning rate of each group (0-based numbers). The
-- update is skipped when its loss or its gradient is not finite.
function Trainer:run(session, step, lr)
  write_control(self, step, lr)
  session:run()
  if self.update_session and (step + 1) % self.accumulate == 0 then self.update_session:run() end
end

-- The same micro-batch once more with every value looked at, and without its update: what session:watch says.
function Trainer:watch(session, step)
  write_control(self, step, {})
  if self.update_session then self:clear_gradients() end
  return session:watch()
end

-- Of several micro-batches that are finite by themselves the sum, as Trainer:watch. sessions: function(i) writes batch
-- i and gives its session; step: of the first.
function Trainer:watch_sum(count, sessions, step)
  self:clear_gradients()
  for i = 1, count do
    write_control(self, step + i - 1, {})
    sessions(i):run()
  end
  return self.update_session:watch()
end

-- Forgets what micro-batches have summed up.
function Trainer:clear_gradients()
  for _, group in ipairs(self.groups) do group.grads:write(0) end
  if self.losses then self.losses:write(0) end
end

-- loss of the last micro-batch; gradient norm and number of skipped steps of the last update
function Trainer:read()
  local amp = self.amp:read()
  self.scale = amp:get(C.AMP_SCALE + 1)
  return self.loss:read():get(1), amp:get(C.AMP_NORM + 1), amp:get(C.AMP_SKIPPED + 1)
end

-- The loss scale that the next step is computed with: 1 in f32.
function Trainer:loss_scale()
  self.scale = self.scale or self.amp:read():get(C.AMP_SCALE + 1)
  return self.scale
end

-- How many updates were applied so far.
function Trainer:applied() return math.tointeger(self.amp:read():get(C.AMP_STEP + 1)) end

-- A norm that was not finite has been read and means nothing to the next step: a state holds numbers.
local function settle_norm(amp)
  local t = amp:read()
  if t:finite() then return end
  t:set(C.AMP_NORM + 1, 0)
  amp:write(t)
end

local function variables(self)
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

-- Every variable that a resumed run needs, as { name, var } in a fixed order.
function Trainer:state()
  settle_norm(self.amp)
  self.scale = nil  -- it may be about to be restored
  return variables(self)
end

-- Bytes of a state; of the parameters in it.
function Trainer:state_bytes()
  local all, params = 0, 0
  for _, v in ipairs(variables(self)) do all = all + v[2].bytes end
  for _, group in ipairs(self.groups) do params = params + group.params.bytes end
  return all, params
end

return compile
