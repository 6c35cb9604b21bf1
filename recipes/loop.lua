-- SPDX-License-Identifier: MIT
-- A loop of one's own: a flow from noise to the points of a ring (rectified flow, Liu et al. 2022), a loss that the
-- library does not have. burin.compile traces it once and returns a step.  burin run recipes/loop.lua
local burin = require "burin"
local nn = burin.nn

local BATCH, STEPS = 256, 400
local net = nn.component { name = "net", role = "param" }
local random = burin.rng(7, 1)

local step = burin.compile {
  inputs = { x = { { BATCH, 2 } } },
  loss = function(batch, graph, control)
    local noise = control:randn({ BATCH, 2 }, { use = 1 })
    local t = control:rand({ BATCH, 1 }, { use = 2 })
    local flow = batch.x - noise
    local s, h = net:trace(graph), (noise + flow * t):concat(t, { axis = 1 })
    h = s:linear(s:linear(h, "first", 64):silu(), "second", 64):silu()
    return ((s:linear(h, "last", 2) - flow):square():sum_to { 1, 1 } * (1 / BATCH)):reshape {}
  end,
  params = function()
    local list = {}
    for i, e in ipairs(net.order) do list[i] = { name = e.name, var = e.var, group = 0 } end
    return list
  end,
  optimizer = burin.adamw { lr = 1e-2 }, schedule = burin.cosine { warmup = 20 }, steps = STEPS, seed = 7,
}

net:init(7)
for i = 1, STEPS do
  local points = {}
  for k = 1, BATCH do
    local angle = 2 * math.pi * random(1000) / 1000
    points[2 * k - 1], points[2 * k] = math.cos(angle), math.sin(angle)
  end
  local loss = step { x = burin.tensor({ BATCH, 2 }, "f32", points) }
  if i % 100 == 0 or i == 1 then burin.log("step %3d  loss %.4f", i, loss) end
end
