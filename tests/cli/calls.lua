-- SPDX-License-Identifier: MIT
-- calls.lua - calls that fail by order, for tests that run inside the binary with nth_call.c preloaded, and what is on
-- the disk afterwards:
--   local calls = dofile "tests/cli/calls.lua"
local core = require "burin.core"
local calls = { place = assert(core.env "CALLS_IN") }  -- the folder whose calls are seen

local order, round = assert(io.open(assert(core.env "CALLS_ORDER"), "w")), 0

-- From call n of a new round on, so many times: errno, or what nth_call.c says. 0: nothing fails.
function calls.arrange(n, what, times)
  round = round + 1
  order:seek "set"
  order:write(("%d %d %d %d   \n"):format(round, n, what, times))
  order:flush()
end

-- The calls since the last look: { { call, path, fails } ... }
local seen = 0
io.open(assert(core.env "CALLS_JOURNAL"), "w"):close()
function calls.look()
  local file <close> = assert(io.open(assert(core.env "CALLS_JOURNAL")))
  file:seek("set", seen)
  local list = {}
  for line in file:lines() do
    local call, path, fails = line:match "^(%S+) (%S+)(.*)$"
    list[#list + 1] = { call = call, path = path, fails = fails ~= "" }
  end
  seen = file:seek()
  return list
end

-- Every file below a folder, { [name] = bytes }.
function calls.snapshot(folder, into, front)
  into, front = into or {}, front or ""
  for _, name in ipairs(core.list(folder)) do
    local path = folder .. "/" .. name
    if core.exists(path) == "folder" then calls.snapshot(path, into, front .. name .. "/")
    else into[front .. name] = core.read_file(path, 1 << 30) end
  end
  return into
end

-- What differs between two of them, as names; files that are not finished are left out.
function calls.difference(a, b)
  local list = {}
  for name in pairs(a) do if not name:find "%.tmp%-" and a[name] ~= b[name] then list[#list + 1] = name end end
  for name in pairs(b) do if not name:find "%.tmp%-" and a[name] == nil then list[#list + 1] = name end end
  table.sort(list)
  return table.concat(list, " ")
end

-- The name of a file that is not finished, or nil.
function calls.unfinished(files)
  for name in pairs(files) do if name:find "%.tmp%-" then return name end end
end

return calls
