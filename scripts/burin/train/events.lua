-- SPDX-License-Identifier: MIT
-- events.lua - what happens to a run beside its steps: saves that failed, waits for room, a device that was lost. Said
-- in the log, and kept in the run's events.jsonl, a line each. A run that nothing happens to has no such file.
local core = require "burin.core"
local events = {}

local function path_of(folder) return folder .. "/events.jsonl" end

events.RESTARTS = "BURIN_RESTARTS"  -- how often the run has gone on by itself, of the process that goes on

-- Of a run that begins anew, and not because its device was lost before there was a state.
function events.clear(folder)
  if not core.env(events.RESTARTS) then core.remove_file(path_of(folder)) end
end

-- what: a word or two for programs; text: a sentence for people; fields: further facts. A disk that does not even take
-- this line is said.
function events.note(folder, what, text, fields)
  core.log("warn", text)
  local line = { date = (core.date()), event = what, text = text }
  for key, value in pairs(fields or {}) do line[key] = value end
  local path = path_of(folder)
  local ok, e = pcall(core.append_file, path, core.json_encode(line) .. "\n", select(2, core.exists(path)) or 0)
  if not ok then core.log("warn", ("this is not in %s: %s"):format(path, tostring(e))) end
end

return events
