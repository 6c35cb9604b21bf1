-- SPDX-License-Identifier: MIT
-- full.lua - the networks' own variables are the parameters (fine-tuning, training from scratch).
local method = require "burin.adapters.method"

return method.define {
  name = "full", whole = true,
  options = { text_encoder = { "boolean", default = false, help = "train the text encoders too" } },
}
