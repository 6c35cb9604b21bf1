-- SPDX-License-Identifier: MIT
local core = require "burin.core"
return {
  summary = "the plugins that were found, and what they provide",
  usage = "[options]",
  run = function(args)
    local list = core.plugins()
    if args.json then
      core.write_stdout(core.json_encode(list) .. "\n")
      return 0
    end
    for _, p in ipairs(list) do
      core.write_stdout(("%s %s (%s)  %s\n"):format(p.name, p.version or "", p.licence or "no licence given", p.path))
      for _, what in ipairs(p.provides) do
        core.write_stdout(("  %-9s %-12s %s\n"):format(what.kind, what.name, what.help or ""))
      end
    end
  end,
}
