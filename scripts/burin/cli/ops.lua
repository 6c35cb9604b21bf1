-- SPDX-License-Identifier: MIT
local core = require "burin.core"
return {
  summary = "the op table: what graphs are made of",
  usage = "[options]",
  run = function(args)
    local list = core.ops()
    if args.json then
      core.write_stdout(core.json_encode(list) .. "\n")
      return 0
    end
    for _, op in ipairs(list) do
      core.write_stdout(("%-19s %d  %s  %s%s\n"):format(op.name, op.inputs, op.differentiable and "d" or "-", op.help,
        op.attrs ~= "" and ("  {" .. op.attrs .. "}") or ""))
    end
  end,
}
