-- SPDX-License-Identifier: MIT
local options = require "burin.base.options"
local arguments = require "burin.cli.arguments"
local extract = require "burin.adapters.extract"

return {
  summary = "a LoRA from what a fine-tuned checkpoint adds to its base",
  usage = "BASE TUNED OUT [options]",
  needs = 3,
  options = {
    { "--rank", "number", "of the LoRA at most", 32 },
    { "--conv-rank", "number", "also the U-Net's residual blocks and samplers, 3x3 kernels with this rank" },
    { "--sv-ratio", "number", "keep singular values above the greatest divided by this" },
    { "--sv-fro", "number", "keep this share (0 to 1) of the Frobenius norm" },
    { "--sv-cumulative", "number", "keep this share (0 to 1) of the sum of the singular values found" },
    { "--min-diff", "number", "leave out layers whose greatest difference is not above this", 0 },
    { "--dtype", "type", "f32, f16 or bf16", "f16" },
    { "--to", "layout", "kohya, diffusers or peft (default: by OUT's name)" },
    { "--metadata", "profile", "full, minimal or none", "full" },
    { "--sidecar", "flag", "also write A1111's OUT.json" },
  },
  run = function(args)
    local o = { dtype = options.one_of("--dtype", args.dtype, { "f32", "f16", "bf16" }), to = args.to,
      metadata = args.metadata, sidecar = args.sidecar, min_diff = args.min_diff }
    arguments.ranks(o, args)
    arguments.report(args, args[3], extract.run(args[1], args[2], args[3], o))
  end,
}
