-- SPDX-License-Identifier: MIT
local core = require "burin.core"
return {
  summary = "what is in a model file, or the text in a picture",
  usage = "FILE [options]",
  needs = 1,
  options = { { "--values", "flag", "also mean, deviation, least and greatest value of each tensor" } },
  run = function(args)
    if require("burin.infotext").inspect(args[1], args.json) then return 0 end
    local file = core.load(args[1])
    local names, total, list = file:names(), 0, {}
    for _, name in ipairs(names) do
      local t = file:info(name)
      t.name = name
      total = total + t.bytes
      if args.values then t.stats = file:read(name):stats() end
      list[#list + 1] = t
    end
    if args.json then
      core.write_stdout(core.json_encode { tensors = list, metadata = file:meta(), bytes = total } .. "\n")
      return 0
    end
    local keys, meta = {}, file:meta()
    for k in pairs(meta) do keys[#keys + 1] = k end
    table.sort(keys)
    for _, k in ipairs(keys) do
      local v = meta[k]
      core.write_stdout(("# %s = %s\n"):format(k, #v > 120 and v:sub(1, 117) .. "..." or v))
    end
    for _, t in ipairs(list) do
      core.write_stdout(("%-5s %-22s %s%s\n"):format(t.dtype, "(" .. table.concat(t.shape, ", ") .. ")", t.name,
        t.stats and ("  mean %.4g std %.4g min %.4g max %.4g%s"):format(t.stats.mean, t.stats.std, t.stats.min, t.stats.max,
          t.stats.finite and "" or "  NOT FINITE") or ""))
    end
    core.write_stdout(("%d tensors, %.2f MiB\n"):format(#list, total / 2 ^ 20))
  end,
}
