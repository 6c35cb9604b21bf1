-- SPDX-License-Identifier: MIT
-- patience.lua - what train and resume do about a disk that fails or is full, and a device that was lost: how long they
-- wait, and how a run goes on by itself. A lost device is lost to its process, so the process becomes another one,
-- which resumes the run: the same id, the same terminal, nothing to forward.
local core = require "burin.core"
local errors = require "burin.base.errors"
local events = require "burin.train.events"
local record = require "burin.train.record"
local saving = require "burin.train.saving"
local state = require "burin.base.state"
local patience = {}

patience.options = {
  { "--waits", "text", "seconds before each further try of a save that failed, and before each restart",
    table.concat(saving.patience.waits, " ") },
  { "--room-wait", "number", "minutes that a run waits for room on a full disk; 0 = it ends",
    saving.patience.room // 60 },
  { "--restarts", "number", "times a run goes on by itself when its device was lost; 0 = it ends", 3 },
}

local function parse_waits(text)
  local list = {}
  for word in text:gmatch "[^%s,]+" do
    list[#list + 1] = tonumber(word)
    if not list[#list] or not (list[#list] >= 0 and list[#list] < math.huge) then
      errors.raise("usage", "--waits takes seconds, as in '5 30 120', not '%s'", text)
    end
  end
  return list
end

local run  -- args, restarts, folder: of the run that is worked on

-- A run in this folder begins, with what its command line says of it.
function patience.begin(args, folder)
  local restarts = math.tointeger(args.restarts)
  if not restarts or restarts < 0 then errors.raise("usage", "--restarts takes a whole number from 0 on") end
  if not (args.room_wait >= 0 and args.room_wait < math.huge) then
    errors.raise("usage", "--room-wait takes minutes from 0 on")
  end
  saving.patience = { waits = parse_waits(args.waits), room = 60 * args.room_wait }
  run = { args = args, restarts = restarts, folder = folder }
  args.line.failed = patience.after
end

-- The command line that goes on with it: that of resume once there is a state, else the same again. What is a command's
-- own is in the run's folder then; the options that all such commands share are handed on.
local function command_line()
  local line, argv = run.args.line, { "resume" }
  if not record.is_run(run.folder) then return line.argv end
  for _, o in ipairs(line.shared) do
    local value = run.args[o[1]:sub(3):gsub("-", "_")]
    if value then
      argv[#argv + 1] = o[1]
      if o[2] ~= "flag" then argv[#argv + 1] = tostring(value) end
    end
  end
  argv[#argv + 1] = "--"
  argv[#argv + 1] = run.folder
  return argv
end

-- e: what has ended the command. Does not return when that was a lost device and the run goes on.
function patience.after(e)
  if not errors.is(e) or e.kind ~= "lost" then return end
  local done, waits = math.tointeger(tonumber(core.env(events.RESTARTS) or 0)) or 0, saving.patience.waits
  local more, seconds = done < run.restarts, waits[math.min(done + 1, #waits)] or 0
  more = more and not core.stop_requested()
  local step = record.is_run(run.folder) and state.newest_step(run.folder .. "/state")
  local from = step and ("from its state of step %d"):format(step) or "from its beginning"
  local text = more
    and ("the run goes on by itself %s in %g s (%d of %d)"):format(from, seconds, done + 1, run.restarts)
    or ("the run ends; it went on by itself %d time%s. It can go on %s%s"):format(done, done == 1 and "" or "s", from,
      step and ": burin resume " .. run.folder or "")
  events.note(run.folder, "device lost", text, { reason = errors.message(e), step = step or nil })
  if not more or saving.wait(seconds) then return end
  local _, why = pcall(core.restart, command_line(), events.RESTARTS, tostring(done + 1))
  core.log("error", errors.message(why))
end

return patience
