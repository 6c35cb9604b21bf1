-- SPDX-License-Identifier: MIT
-- op_reference.lua - writes the tables of docs/ops.md from the rows of core/graph/ops.def.
--   lua5.4 scripts/dev/op_reference.lua [--check]             from the repository's root
package.path = "scripts/?.lua;" .. package.path

local kinds = { i = "integer", f = "number", b = "boolean" }
local function attributes(text)
  local out = {}
  for word in text:gmatch "%S+" do
    local name, kind, default = word:match "^([%w_]+):(%a)=?(.*)$"
    if word == "to" then
      out[#out + 1] = "a shape"
    else
      out[#out + 1] = ("`%s` %s%s"):format(name, kinds[kind], default ~= "" and " = " .. default or "")
    end
  end
  return table.concat(out, ", ")
end

local out, header = {}, "\n| op | inputs | attributes | gradient | what it is |\n|---|---|---|---|---|\n"
local last
local function row(name, inputs, line)
  local strings = {}
  for s in line:gmatch '"([^"]*)"' do strings[#strings + 1] = s end
  local family = line:match "^(%w+)"
  if family ~= last and family ~= "OP" then
    out[#out + 1] = ("\n## %s\n"):format(family == "EW1" and "Elementwise, one input"
      or "Elementwise, two inputs (numpy broadcasting)")
    out[#out + 1] = header
  end
  last = family
  local differentiable = line:find "D%(%d" or line:find "ALL%("
  out[#out + 1] = ("| `%s` | %d | %s | %s | %s |\n"):format(name, inputs, attributes(strings[1]),
    differentiable and "yes" or "", strings[#strings])
end

local count = 0
for line in io.lines "core/graph/ops.def" do
  local family, name = line:match "^(%u%u%d?)%(([%w_]+),"
  local title, more = line:match "^/%* (%u[^.:]+)[.:] ?(.-) ?%*/$"
  if family then
    row(name, family == "OP" and tonumber(line:match "^OP%([%w_]+, +(%d+)") or tonumber(family:sub(3)), line)
    count = count + 1
  elseif title then
    out[#out + 1] = ("\n## %s\n"):format(title)
    if more ~= "" then out[#out + 1] = "\n" .. more:gsub("^%l", string.upper) .. "\n" end
    out[#out + 1] = header
  end
end

require "dev.generated"("docs/ops.md", { ops = table.concat(out) .. "\n", count = count .. " rows.\n" },
  arg[1] == "--check")
