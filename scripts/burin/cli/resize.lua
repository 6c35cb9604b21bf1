-- SPDX-License-Identifier: MIT
local errors = require "burin.base.errors"
local options = require "burin.base.options"
local arguments = require "burin.cli.arguments"
local ranks = require "burin.adapters.ranks"
local resize = require "burin.adapters.resize"

return {
  summary = "a LoRA of smaller rank, by its singular values",
  usage = "IN OUT --rank N [options]",
  needs = 2,
  options = {
    { "--rank", "number", "at most this rank" },
    { "--sv-ratio", "number", "keep singular values above the greatest divided by this" },
    { "--sv-fro", "number", "keep this share (0 to 1) of the Frobenius norm" },
    { "--sv-cumulative", "number", "keep this share (0 to 1) of the sum of singular values" },
    { "--rank-rule", "name", "burin, or sd-scripts: one more than the --sv option needs, as its resize_lora.py keeps",
      "burin" },
    { "--dtype", "type", "f32, f16, bf16, or keep", "keep" },
    { "--to", "layout", "kohya, diffusers or peft (default: by OUT's name)" },
    { "--base", "model", "the checkpoint whose layers it names (default: found from its shapes)" },
    { "--metadata", "profile", "full, minimal or none", "full" },
    { "--sidecar", "flag", "also write A1111's OUT.json" },
  },
  run = function(args)
    local o = { dtype = options.one_of("--dtype", args.dtype, { "keep", "f32", "f16", "bf16" }), to = args.to,
      base = args.base, metadata = args.metadata, sidecar = args.sidecar,
      rule = options.one_of("--rank-rule", args.rank_rule, ranks.rules) }
    arguments.ranks(o, args)
    if not (o.rank or o.sv_ratio or o.sv_fro or o.sv_cumulative) then
      errors.raise("usage", "give --rank, --sv-ratio, --sv-fro or --sv-cumulative")
    end
    arguments.report(args, args[2], resize.run(args[1], args[2], o))
  end,
}
