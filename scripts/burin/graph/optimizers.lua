-- SPDX-License-Identifier: MIT
-- optimizers.lua - optimizers: which row of the op table updates a packed parameter vector, and what state it keeps.
-- update(graph, p, g, state, control, amp, group) adds the node; every tensor is one flat vector.
local kinds = require "burin.base.kinds"
local options = require "burin.base.options"
local optim = {}

function optim.adamw(o)
  o = options.check("adamw", o or {}, {
    lr = { "number", default = 1e-4, min = 0, help = "learning rate" },
    beta1 = { "number", default = 0.9, min = 0, max = 1, help = "decay of the gradient's average" },
    beta2 = { "number", default = 0.999, min = 0, max = 1, help = "decay of the squared gradient's average" },
    eps = { "number", default = 1e-8, min = 0, help = "added to the denominator" },
    weight_decay = { "number", default = 0.01, min = 0, help = "decoupled from the gradient" },
    text_encoder_lr = { "number", min = 0, help = "learning rate of the text encoder; lr when absent" },
  })
  return kinds.new("optimizer", {
    name = "adamw", lr = o.lr, text_encoder_lr = o.text_encoder_lr or o.lr, state = { "m", "v" }, options = o,
    update = function(p, g, state, control, amp, group)
      return p:adamw(g, state.m, state.v, control, amp, {
        group = group, beta1 = o.beta1, beta2 = o.beta2, eps = o.eps, decay = o.weight_decay })
    end,
  })
end

function optim.sgd(o)
  o = options.check("sgd", o or {}, {
    lr = { "number", default = 1e-2, min = 0, help = "learning rate" },
    momentum = { "number", default = 0, min = 0, max = 1, help = "decay of the gradient's running sum" },
    weight_decay = { "number", default = 0, min = 0, help = "pull towards zero" },
    text_encoder_lr = { "number", min = 0, help = "learning rate of the text encoder; lr when absent" },
  })
  return kinds.new("optimizer", {
    name = "sgd", lr = o.lr, text_encoder_lr = o.text_encoder_lr or o.lr, state = { "m" }, options = o,
    update = function(p, g, state, control, amp, group)
      return p:sgd(g, state.m, control, amp, { group = group, momentum = o.momentum, decay = o.weight_decay })
    end,
  })
end

for name, f in pairs(optim) do kinds.constructor("optimizer", name, f) end

return optim
