-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local inspect = require "burin.inspect"

local function print_facts(facts)
  local function line(name, value) if value then core.write_stdout(("%-22s %s\n"):format(name, value)) end end
  line("is", facts.what)
  line("prediction", facts.prediction)
  for _, name in ipairs { "rank", "alpha", "layers", "kinds", "spelling" } do line(name, facts[name]) end
  for _, row in ipairs(facts.consumers or {}) do line(row[1] .. " sees", row[2]) end
  if facts.unknown and #facts.unknown > 0 then
    line("unknown", #facts.unknown .. ": " .. table.concat(facts.unknown, ", ", 1, math.min(4, #facts.unknown)))
  end
end

return {
  summary = "what is in a model file or a picture: what it is, who will recognise it, tensors, metadata",
  usage = "FILE-OR-FOLDER [options]",
  needs = 1,
  options = {
    { "--values", "flag", "also mean, deviation, least and greatest value of each tensor (not of 8-bit floats)" },
    { "--base", "model", "of a LoRA: the checkpoint whose layers it names" },
    { "--summary", "flag", "no list of tensors" },
  },
  run = function(args)
    if require("burin.infotext").inspect(args[1], args.json) then return 0 end
    local parts = inspect.open(args[1])
    local facts, list, total, meta = inspect.facts(args[1], args.base), {}, 0, {}
    for _, part in ipairs(parts) do
      for _, name in ipairs(part.file:names()) do
        local t = part.file:info(name)
        t.name = part.name and part.name .. ": " .. name or name
        total = total + t.bytes
        if args.values and not t.dtype:find "^f8" then t.stats = part.file:read(name):stats() end
        list[#list + 1] = t
      end
      for k, v in pairs(part.file:meta()) do meta[k] = v end
    end
    if args.json then
      core.write_stdout(core.json_encode { tensors = list, metadata = meta, bytes = total, facts = facts } .. "\n")
      return 0
    end
    print_facts(facts)
    local keys = {}
    for k in pairs(meta) do keys[#keys + 1] = k end
    table.sort(keys)
    for _, k in ipairs(keys) do
      local v = meta[k]
      core.write_stdout(("# %s = %s\n"):format(k, #v > 120 and v:sub(1, 117) .. "..." or v))
    end
    for _, t in ipairs(args.summary and {} or list) do
      core.write_stdout(("%-5s %-22s %s%s\n"):format(t.dtype, "(" .. table.concat(t.shape, ", ") .. ")", t.name,
        t.stats and ("  mean %.4g std %.4g min %.4g max %.4g%s"):format(t.stats.mean, t.stats.std, t.stats.min, t.stats.max,
          t.stats.finite and "" or "  NOT FINITE") or ""))
    end
    core.write_stdout(("%d tensors, %.2f MiB\n"):format(#list, total / 2 ^ 20))
  end,
}
