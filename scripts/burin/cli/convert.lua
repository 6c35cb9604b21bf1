-- SPDX-License-Identifier: MIT
local arguments = require "burin.arguments"
local convert = require "burin.convert"

return {
  summary = "a checkpoint or a LoRA in another layout or element type",
  usage = "IN OUT [--to LAYOUT] [--dtype TYPE] [options]",
  needs = 2,
  options = {
    { "--to", "layout", "single or diffusers for checkpoints; kohya, diffusers or peft for LoRAs (default: by OUT's name)" },
    { "--dtype", "type", "f32, f16, bf16, or keep: every bit as it is", "keep" },
    { "--vae", "file", "take the VAE from this file or folder instead" },
    { "--no-extras", "flag", "leave out what no network reads: schedules, averages, position ids" },
    { "--base", "model", "of a LoRA: the checkpoint whose layers it names (default: found from its shapes)" },
    { "--metadata", "profile", "of a LoRA: full, minimal or none (default: as it is)" },
    { "--sidecar", "flag", "of a LoRA: also write A1111's OUT.json" },
  },
  more = "Single files end in .safetensors; every other OUT is a folder, which must not exist yet.\n"
    .. "What is written is read back and compared before it gets its name. No device is needed.",
  run = function(args)
    local report = convert.run(args[1], args[2], { to = args.to, dtype = args.dtype, vae = args.vae, base = args.base,
      extras = not args.no_extras, metadata = args.metadata, sidecar = args.sidecar })
    arguments.report(args, args[2], report)
  end,
}
