-- SPDX-License-Identifier: MIT
-- arguments.lua - what commands share: checked arguments, reports of what was written.
local consumers = require "burin.adapters.consumers"
local core = require "burin.core"
local errors = require "burin.base.errors"
local arguments = {}

local function usage(text, ...) errors.raise("usage", text, ...) end

-- "dog.safetensors:0.8" -> { path =, scale = }
function arguments.lora(text)
  local path, scale = text:match "^(.+):(%-?[%d.]+)$"
  if path and not tonumber(scale) then usage("%s: the scale after ':' is not a number", text) end
  return { path = path or text, scale = tonumber(scale or 1) }
end

-- --rank, --conv-rank, --sv-ratio, --sv-fro, --sv-cumulative of a command line into o.
function arguments.ranks(o, args)
  for _, name in ipairs { "rank", "conv_rank" } do
    local v = args[name]
    if v then
      o[name] = math.tointeger(v)
      if not o[name] or o[name] < 1 then usage("--%s takes a whole number from 1 on, not %s", name:gsub("_", "-"),
        v) end
    end
  end
  local n = 0
  for _, name in ipairs { "sv_ratio", "sv_fro", "sv_cumulative" } do
    local v = args[name]
    o[name] = v
    n = n + (v and 1 or 0)
    local most = name == "sv_ratio" and math.huge or 1
    local least = name == "sv_ratio" and 1 or 0
    if v and not (v >= least and v <= most) then
      usage("--%s takes a number from %g%s, not %s", name:gsub("_", "-"), least, most == 1 and " to 1" or " on", v)
    end
  end
  if n > 1 then usage "give one of --sv-ratio, --sv-fro and --sv-cumulative" end
end

-- What a command has written.
function arguments.report(args, output, report)
  if args.json then
    core.write_stdout(core.json_encode(report) .. "\n")
    return
  end
  local text = ("%s: %s, %s, %d tensors"):format(output, report.what, report.layout, report.tensors)
  if report.layers then text = text .. (", %d layers"):format(report.layers) end
  if report.same then text = text .. (" (%d do not differ)"):format(report.same) end
  core.write_stdout(core.shown(text) .. "\n")
  if report.readers then
    local readers = {}
    for i, row in ipairs(report.readers) do readers[i] = ("%s %s"):format(row.program, consumers.text(row)) end
    core.write_stdout("read by " .. table.concat(readers, ", ") .. "\n")
  end
  local n, ranks, kept, least, others, differ = 0, 0, 0, 1, 0, 0
  for _, r in ipairs(report.ranks or {}) do
    n, ranks, kept, least = n + 1, ranks + r.rank, kept + r.kept, math.min(least, r.kept)
    others, differ = others + (r.other or r.rank), differ + (r.rank ~= (r.other or r.rank) and 1 or 0)
  end
  if n > 0 then
    core.write_stdout(("mean rank %.1f; %.2f %% of the Frobenius norm kept on average, %.2f %% in the worst layer\n")
      :format(ranks / n, 100 * kept / n, 100 * least))
    if differ > 0 then
      core.write_stdout(("with --rank-rule %s the mean rank would be %.1f; %d of %d layers differ\n"):format(
        report.rule == "sd-scripts" and "burin" or "sd-scripts", others / n, differ, n))
    end
  end
end

return arguments
