-- SPDX-License-Identifier: MIT
-- resize.lua - a LoRA of other ranks.
local adapters = require "burin.adapters.convert"
local file = require "burin.adapters.file"
local keys = require "burin.adapters.keys"
local progress = require "burin.base.progress"
local ranks = require "burin.adapters.ranks"
local resize = {}

-- A LoRA of other ranks: o.rank (at most), and one of sv_ratio, sv_fro, sv_cumulative; rule (ranks.rules); o.base, to,
-- dtype, metadata. Differences of norms and biases have no rank and stay as they are. -> what write says, with ranks =
-- { { layer, rank, old, kept, other = the rank by the other rule } ... }
function resize.run(input, output, o)
  local model = adapters.model(input, o.base)
  local read, list, report = file.read(input, keys.index(model)), {}, {}
  local bar = progress.new("resizing", #read.adapters)
  for i, e in ipairs(read.adapters) do
    local vector = e.kind == "diff" and #e.parts.diff.shape == 1
    if not vector then ranks.only_lora(e, input) end
    list[i] = vector and e or ranks.resized(e, o, report)
    bar:update(i)
  end
  local type_of_file = read.adapters[1].parts[next(read.adapters[1].parts)].dtype
  ranks.cast(list, (not o.dtype or o.dtype == "keep") and type_of_file or o.dtype)
  local result = adapters.write(output, list, model, o, read.metadata)
  result.ranks, result.rule = report, o.rule or "burin"
  return result
end

return resize
