-- SPDX-License-Identifier: MIT
local errors = require "burin.base.errors"
local options = require "burin.base.options"
local arguments = require "burin.cli.arguments"
local adapters = require "burin.adapters.convert"
local merge = require "burin.adapters.merge"

return {
  summary = "LoRAs into a checkpoint, or several LoRAs into one",
  usage = "[CHECKPOINT] LORA[:SCALE] ... OUT [options]",
  needs = 2,
  options = {
    { "--dtype", "type", "f32, f16, bf16, or keep (a checkpoint's own types; f32 for a LoRA)", "keep" },
    { "--to", "layout", "single or diffusers; for LoRAs kohya, diffusers or peft (default: by OUT's name)" },
    { "--rank", "number",
      "of the merged LoRA at most, by singular values (default: factors stacked, the sum of ranks)" },
    { "--sv-ratio", "number", "keep singular values above the greatest divided by this" },
    { "--sv-fro", "number", "keep this share (0 to 1) of the Frobenius norm" },
    { "--sv-cumulative", "number", "keep this share (0 to 1) of the sum of singular values" },
    { "--base", "model", "for LoRAs: the checkpoint whose layers they name (default: found from their shapes)" },
    { "--metadata", "profile", "of a merged LoRA: full, minimal or none" },
    { "--sidecar", "flag", "of a merged LoRA: also write A1111's OUT.json" },
  },
  more = "burin merge base.safetensors dog.safetensors:0.8 hat.safetensors:0.5 both.safetensors",
  run = function(args)
    local output, first = args[#args], nil
    local loras = {}
    for i = 1, #args - 1 do
      local l = arguments.lora(args[i])
      if adapters.is_lora(l.path) then
        loras[#loras + 1] = l
      elseif i == 1 then
        first = l.path
      else
        errors.raise("data", l.path .. ": this is no LoRA; a checkpoint comes first")
      end
    end
    if #loras == 0 then errors.raise("usage", "name at least one LoRA to merge") end
    local o = { dtype = options.one_of("--dtype", args.dtype, { "keep", "f32", "f16", "bf16" }), to = args.to,
      base = args.base, metadata = args.metadata, sidecar = args.sidecar }
    arguments.ranks(o, args)
    local report
    if first then report = merge.bake(first, loras, output, o) else report = merge.run(loras, output, o) end
    arguments.report(args, output, report)
  end,
}
