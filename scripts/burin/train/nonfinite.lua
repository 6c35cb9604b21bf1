-- SPDX-License-Identifier: MIT
-- nonfinite.lua - steps whose numbers are none. The device skips the update of such a step (compile.lua), so what is
-- trained stays whole; here is what happens then: counting, saying which node it was, stopping, going back.
local core = require "burin.core"
local errors = require "burin.base.errors"
local options = require "burin.base.options"
local resuming = require "burin.train.resuming"
local state = require "burin.base.state"
local nonfinite = {}

local BACKS = 3        -- times that a run goes back
local PICTURES = 8     -- of a batch that are named

-- ---- looking at a step ----------------------------------------------------------------------------------------------

local function said(loss, norm)
  if options.finite(loss) then return ("the gradient's norm is %s"):format(norm ~= norm and "NaN" or "infinite") end
  return ("the loss is %s"):format(loss ~= loss and "NaN" or "infinite")
end

-- A gradient that only left the range of f16 is what the loss scale is for: it has been halved.
local function is_scale(loss, scale) return options.finite(loss) and scale > 1 end

-- Whether a step's update was applied. Else it is counted and said. scale: the loss scale that it was computed with.
function nonfinite.look(self, loss, scale)
  if options.finite(loss) and options.finite(self.norm) then
    self.nonfinite, self.went_back_to = 0, nil
    if self.step == 1 and self.norm == 0 then
      core.log("warn", "step 1: every gradient is 0, so nothing is learnt from this batch. Does the loss depend on "
        .. "what the network predicts, and are its weights above 0?")
    end
    return true
  end
  if is_scale(loss, scale) then
    core.log("info", ("step %d: a gradient left the range of f16; its update is skipped, and the loss scale is %g from "
      .. "now on"):format(self.step, self.plan.trainer:loss_scale()))
    return false
  end
  self.nonfinite = self.nonfinite + 1
  core.log("warn", ("step %d: %s; its update is skipped and nothing of this step is saved (%d in a row, %d are too "
    .. "many)"):format(self.step, said(loss, self.norm), self.nonfinite, self.plan.recipe.max_nonfinite))
  return false
end

-- Whether that has to have an end: too many in a row, or not one update in a whole run.
function nonfinite.is_too_much(self)
  if self.nonfinite == 0 then return false end
  if self.nonfinite >= self.plan.recipe.max_nonfinite then return true end
  return self.step == self.steps and self.plan.trainer:applied() == 0
end

-- At the end of a run whose last updates were not finite, but too few to stop it.
function nonfinite.say_at_end(self)
  if self.nonfinite == 0 then return end
  core.log("warn", ("the last %s not finite and skipped: the result is that of step %d"):format(
    self.nonfinite == 1 and "update was" or ("%d updates were"):format(self.nonfinite), self.step - self.nonfinite))
end

-- ---- which node it was ----------------------------------------------------------------------------------------------

local function names_of(batch)
  local list, seen = {}, {}
  for i, item in ipairs(batch.items) do
    if batch.weights[i] ~= 0 and not seen[item.path] then
      seen[item.path] = true
      list[#list + 1] = item.path
    end
  end
  local more = #list - PICTURES
  return table.concat(list, ", ", 1, math.min(#list, PICTURES)) .. (more > 0 and (" and %d more"):format(more) or "")
end

-- f: what session:watch has found
local function describe(f)
  local count = 1
  for _, n in ipairs(f.shape) do count = count * n end
  local kinds = {}
  if f.nans > 0 then kinds[#kinds + 1] = ("%d NaN"):format(f.nans) end
  if f.infinities > 0 then kinds[#kinds + 1] = ("%d infinite"):format(f.infinities) end
  local place = (f.label and (f.gradient and " in the gradient of " or " in ") .. f.label or "")
    .. (f.where and (" (%s)"):format(f.where) or "")
  return ("the first result that is not finite is that of '%s'%s: %s of %d values (%s)%s"):format(f.op, place,
    table.concat(kinds, ", "), count, f.dtype,
    f.variable and ("; it reads %s, which is not finite itself"):format(f.variable) or "")
end

-- Runs the last update once more, a batch at a time. write(batch, share): session. Returns what is found, and the
-- batches that it is found in.
local function watch(self, batches, write)
  local trainer, all = self.plan.trainer, self.plan.recipe.accumulate
  local first = self.step * all - #batches
  local function session(i) return write(self, batches[i], all / #batches) end
  for i, batch in ipairs(batches) do
    local found = trainer:watch(session(i), first + i - 1)
    if found then return found, { batch } end
  end
  return trainer.update_session and trainer:watch_sum(#batches, session, first), batches
end

-- Says of the last update, which was not finite, where that began. write: see watch
function nonfinite.explain(self, batches, loss, write)
  local found, where = watch(self, batches, write)
  local pictures = {}
  for i, batch in ipairs(where) do pictures[i] = names_of(batch) end
  return ("step %d: %s, for %d update%s in a row. The step was run again and every value looked at: %s. The pictures "
    .. "of its batch: %s"):format(self.step, said(loss, self.norm), self.nonfinite, self.nonfinite == 1 and "" or "s",
    found and describe(found) or "this time all were finite, so the device does not repeat itself",
    table.concat(pictures, "; "))
end

-- f(), whose refusal to write what is not finite is returned as a sentence when the run can go back.
function nonfinite.caught(self, f)
  local ok, e = pcall(f)
  if ok then return nil end
  if errors.is(e) and errors.code(e) == errors.codes.internal and self.plan.recipe.on_nonfinite == "back" then
    return errors.message(e)
  end
  error(e, 0)
end

-- ---- stopping, going back -------------------------------------------------------------------------------------------

-- The newest state before a step that was saved after a finite update: { folder =, info =, file =, path = }
local function good_state(self, before)
  while true do
    local info, file, path = state.before(self:path "state", before)
    if not info then return nil end
    if (info.nonfinite or 0) == 0 then return { folder = self.folder, info = info, file = file, path = path } end
    file:close()
    before = info.step
  end
end

-- A run that made no finite update since it went back goes to the state before that one, if there is one: what it went
-- back to may be ruined already.
local function state_to_go_back_to(self)
  return self.went_back_to and good_state(self, self.went_back_to) or good_state(self, math.huge)
end

local function stop(self, why)
  local found = state_to_go_back_to(self)
  if found then found.file:close() end
  errors.raise("internal", "%s. Nothing of these updates was applied or saved%s", why,
    found and ("; the newest state is of step %d, in %s"):format(found.info.step, self:path "state") or "")
end

-- Takes the run to its newest state, with half the rate, or ends it. why: a sentence; save(self): writes a state.
function nonfinite.back(self, why, save)
  if self.plan.recipe.on_nonfinite ~= "back" then stop(self, why) end
  if self.backs == BACKS then stop(self, ("%s. The run has gone back %d times already"):format(why, BACKS)) end
  local found, backs = state_to_go_back_to(self), self.backs + 1
  if not found then stop(self, why) end
  core.log("warn", why)
  resuming.restore(self, found)
  self.backs, self.nonfinite, self.went_back_to = backs, 0, self.step
  save(self)  -- a run that is killed now goes on with the rate that it has now
  state.drop_after(self:path "state", self.step)
  core.log("warn", ("back to the state of step %d, with %g of the learning rate (%d of %d times)"):format(self.step,
    nonfinite.rate(self), backs, BACKS))
end

-- What the learning rate is multiplied by.
function nonfinite.rate(self) return 0.5 ^ self.backs end

return nonfinite
