-- SPDX-License-Identifier: MIT
local adapters = require "burin.adapters.convert"
local arguments = require "burin.cli.arguments"
local checkpoints = require "burin.models.io.convert"
local errors = require "burin.base.errors"
local options = require "burin.base.options"

return {
  summary = "a checkpoint or a LoRA in another layout or element type",
  usage = "IN OUT [--to LAYOUT] [--dtype TYPE] [options]",
  needs = 2,
  options = {
    { "--to", "layout",
      "single or diffusers for checkpoints; kohya, diffusers or peft for LoRAs (default: by OUT's name)" },
    { "--dtype", "type", "f32, f16, bf16, or keep: every bit as it is", "keep" },
    { "--vae", "file", "take the VAE from this file or folder: instead of IN's, or because it has none" },
    { "--no-extras", "flag", "leave out what no network reads: schedules, averages, position ids" },
    { "--base", "model", "of a LoRA: the checkpoint whose layers it names (default: found from its shapes)" },
    { "--metadata", "profile", "of a LoRA: full, minimal or none (default: as it is)" },
    { "--sidecar", "flag", "of a LoRA: also write A1111's OUT.json" },
  },
  more = "Single files end in .safetensors; every other OUT is a folder, which must not exist yet.\n"
    .. "What is written is read back and compared before it gets its name. No device is needed.",
  run = function(args)
    local input, output, lora = args[1], args[2], adapters.is_lora(args[1])
    local o = { to = args.to, dtype = options.one_of("--dtype", args.dtype, { "keep", "f32", "f16", "bf16" }),
      vae = args.vae, base = args.base, extras = not args.no_extras, metadata = args.metadata, sidecar = args.sidecar }
    if lora and o.vae then errors.raise("usage", "--vae is for checkpoints; %s is a LoRA", input) end
    if not lora and (o.metadata or o.sidecar or o.base) then
      errors.raise("usage", "--metadata, --sidecar and --base are for LoRAs; %s is none", input)
    end
    arguments.report(args, output, (lora and adapters.convert or checkpoints.run)(input, output, o))
  end,
}
