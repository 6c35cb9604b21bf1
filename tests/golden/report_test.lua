-- SPDX-License-Identifier: MIT
-- A file that lacks one tensor, whichever it is, is known for what it is and the tensor is named. Runs as
-- `burin run --trust tests/golden/report_test.lua` from the repository root.
local core = require "burin.core"
local device = require "burin.graph.device"
local models = require "burin.models.model"

local T = dofile "tests/check.lua"
local STRIDE = 37  -- one tensor in so many is left out in turn; 1 tries all

device.null()
local load, without = core.load, nil
-- The file as it would be without one of its tensors.
core.load = function(path)
  local file = load(path)
  return { meta = function() return file:meta() end,
    names = function()
      local list = {}
      for _, name in ipairs(file:names()) do if name ~= without then list[#list + 1] = name end end
      return list
    end,
    info = function(_, name) return name ~= without and file:info(name) or nil end,
    read = function(_, name) return name ~= without and file:read(name) or nil end }
end

for _, path in ipairs { "models/tiny-sd.safetensors", "tests/golden/tiny_sd1/model_ldm.safetensors",
  "tests/golden/tiny_sd2/model_ldm.safetensors", "tests/golden/tiny_sdxl/model_ldm.safetensors" } do
  without = nil
  local whole = models.open(path)
  local report, keys = whole:look(), {}
  T.check(#report.missing == 0 and #report.lacks == 0 and #report.unknown == 0 and not report.purpose, path, "is whole")
  for _, c in ipairs(report.components) do T.check(#c.wrong == 0, path, c.name, c.wrong[1]) end
  for _, item in ipairs(report.items) do
    if item.key ~= keys[#keys] and not item.name:match "position_ids$" then keys[#keys + 1] = item.key end
  end
  for i = 1, #keys, STRIDE do
    without = keys[i]
    local ok, model = pcall(models.open, path)
    local found = ok and model:look().missing or {}
    T.checkf(#found > 0 and #found <= 3 and found[1]:find(without, 1, true), "%s without %s: %s", path, without,
      ok and table.concat(found, "; ") or tostring(model.message or model))
    local opened, why = pcall(models.open, path, { whole = true })
    local named = not opened and why.kind == "data" and why.message:find(without, 1, true)
    T.checkf(named, "%s without %s is opened: %s", path, without, tostring(why))
  end
end
core.load = load

T.finish()
