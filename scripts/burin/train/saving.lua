-- SPDX-License-Identifier: MIT
-- saving.lua - what a run writes, on a disk that is full or fails. Before each save the room is looked at: where there
-- is too little the run waits for it. A save that fails is tried again: a state after later steps, since any will do;
-- what shows a certain step, and everything once there are no later steps, at once, after a wait. What fails for good
-- ends the run, with the state before it whole. Nothing of this changes a number that is trained.
local amounts = require "burin.base.amounts"
local core = require "burin.core"
local errors = require "burin.base.errors"
local events = require "burin.train.events"
local space = require "burin.train.space"
local state = require "burin.base.state"
local saving = {}

local LOOK = 2    -- seconds between two looks at the room
local SLICE = 0.2 -- a stop is noticed within these

-- waits: seconds before each further try; room: how many the run waits for room at most.
saving.patience = { waits = { 5, 30, 120 }, room = 3600 }

-- What a run keeps of its troubles: tries = of the state that could not be saved, next = when it is tried again (of
-- core.clock); silent = whether metrics cannot be written, which has been said.
function saving.new() return { tries = 0 } end

local function is_output(e) return errors.is(e) and errors.code(e) == errors.codes.output end

-- Where a run that ends now can be gone on from.
local function newest(self)
  local step = state.newest_step(self:path "state")
  return step and ("; the newest state is of step %d, go on from it with: burin resume %s"):format(step, self.folder)
    or ""
end

-- Waits; true at once when the run is asked to stop meanwhile.
function saving.wait(seconds)
  local before, till = core.stop_requested(), core.clock() + seconds
  while core.clock() < till do
    core.sleep(math.min(SLICE, till - core.clock()))
    if core.stop_requested() and not before then return true end
  end
  return false
end

-- ---- room -----------------------------------------------------------------------------------------------------------

-- Waits until there is room for so many bytes, and a tenth more. what: what is to be saved.
local function wait_for_room(self, what, bytes)
  local need, free = space.lacks(self.folder, bytes)
  if not need then return end
  local function short(text, ...)
    return ("%s needs %s in %s, which has %s left"):format(what, amounts.text(need), self.folder, amounts.text(free))
      .. text:format(...)
  end
  local began = core.clock()
  if saving.patience.room > 0 then
    events.note(self.folder, "waiting for room", short("; the run waits for room, %g minutes at most",
      saving.patience.room / 60), { step = self.step, need = need, free = free })
  end
  while need do
    if core.clock() - began >= saving.patience.room then errors.raise("output", short("%s", newest(self))) end
    if saving.wait(LOOK) then errors.raise("output", short("; stopped while it waited for room%s", newest(self))) end
    need = space.lacks(self.folder, bytes)
  end
  events.note(self.folder, "room again", ("there is room in %s again; going on"):format(self.folder),
    { step = self.step, seconds = core.clock() - began })
end

-- Whether there is room for samples, with what the next state takes. That there is none is said.
function saving.room_for_samples(self)
  local need, free = space.lacks(self.folder, space.samples(self.plan) + space.state(self.plan))
  if not need then return true end
  events.note(self.folder, "samples left out", ("the samples of step %d are left out: with the next state they need %s "
    .. "in %s, which has %s left"):format(self.step, amounts.text(need), self.folder, amounts.text(free)),
    { step = self.step, need = need, free = free })
  return false
end

-- ---- tries ----------------------------------------------------------------------------------------------------------

-- One that failed: says so. Returns the seconds until the next try; raises when this was the last. stopped: it was.
local function failed(self, what, e, tries, stopped)
  if not is_output(e) then error(e, 0) end
  local text, after = errors.message(e), saving.patience.waits[tries]
  if stopped or not after then
    errors.raise("output", "%s: %s could not be saved, tried %d time%s%s", text, what, tries, tries == 1 and "" or "s",
      newest(self))
  end
  events.note(self.folder, "save failed", ("step %d: %s could not be saved (%s); tried again in %g s (%d of %d)")
    :format(self.step, what, text, after, tries, #saving.patience.waits),
    { step = self.step, what = what, reason = text, try = tries })
  return after
end

local function worked(self, what, tries)
  if tries == 0 then return end
  events.note(self.folder, "saved", ("step %d: saved after %d tr%s that failed: %s"):format(self.step, tries,
    tries == 1 and "y" or "ies", what), { step = self.step, what = what })
end

-- write(), now: what it returns. what: for people; bytes: what it takes on the disk; tries: those that failed already.
function saving.now(self, what, bytes, write, tries)
  local stopped = false
  tries = tries or 0
  while true do
    wait_for_room(self, what, bytes)
    local result = table.pack(pcall(write))
    if result[1] then
      worked(self, what, tries)
      return table.unpack(result, 2, result.n)
    end
    tries = tries + 1
    stopped = saving.wait(failed(self, what, result[2], tries, stopped))
  end
end

-- After a step: saves a state if one is due, or if an earlier one failed and its time has come. last: there are no
-- later steps, so it has to be now.
function saving.state(self, due, last, write)
  local t, what = self.troubles, "the state"
  if last then
    local tries = t.tries
    t.tries, t.next = 0, nil
    return saving.now(self, what, space.state(self.plan), write, tries)
  end
  if not due and not t.next or t.next and core.clock() < t.next then return end
  wait_for_room(self, what, space.state(self.plan))
  local ok, e = pcall(write)
  if ok then
    worked(self, what, t.tries)
    t.tries, t.next = 0, nil
  else
    t.tries = t.tries + 1
    t.next = core.clock() + failed(self, what, e, t.tries)
  end
end

-- ---- metrics --------------------------------------------------------------------------------------------------------

-- Lines of the metrics that are not in the file yet: a disk that does not take one is asked again after the next step,
-- and before a state, which promises them.
function saving.write_metrics(self)
  if self.unwritten == "" then return end
  errors.guard("output", core.append_file, self:path "metrics.jsonl", self.unwritten, self.metrics_bytes)
  self.metrics_bytes, self.unwritten = self.metrics_bytes + #self.unwritten, ""
end

-- Adds a line; that it cannot be written now is said once, and no error.
function saving.add_metrics(self, line)
  self.unwritten = self.unwritten .. line
  local ok, e = pcall(saving.write_metrics, self)
  if not ok and not is_output(e) then error(e, 0) end
  if not ok and not self.troubles.silent then
    events.note(self.folder, "metrics delayed", ("step %d: %s; its lines are kept until they can be written"):format(
      self.step, errors.message(e)), { step = self.step, reason = errors.message(e) })
  end
  self.troubles.silent = not ok
end

return saving
