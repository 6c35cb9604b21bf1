-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local errors = require "burin.base.errors"
return {
  summary = "the Vulkan devices of this machine, best first",
  usage = "[options]",
  run = function(args)
    local list = core.devices()
    if args.json then
      core.write_stdout(core.json_encode(list) .. "\n")
    else
      for i, d in ipairs(list) do
        core.write_stdout(("%d  %-11s %s (Vulkan %s, %s, subgroup %d%s%s%s%s)\n"):format(i - 1, d.type, d.name, d.api,
          d.driver, d.subgroup, d.cores > 0 and (", %d cores"):format(d.cores) or "",
          d.heap > 0 and (", %.1f GiB"):format(d.heap / 2 ^ 30) or "", d.coopmat and ", cooperative matrices" or "",
          d.engine ~= "" and ", " .. d.engine or ""))
      end
    end
    if #list == 0 then
      errors.raise("device", "no Vulkan device: install your GPU's driver, or mesa-vulkan-drivers for the CPU")
    end
  end,
}
