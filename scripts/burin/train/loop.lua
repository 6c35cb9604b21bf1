-- SPDX-License-Identifier: MIT
-- loop.lua - a plan, executed: memory committed and filled, then steps, samples, results and states. A training is
-- killed at any moment and resumed bit for bit: the state on disk promises everything before its step.
local class = require "burin.base.class"
local core = require "burin.core"
local errors = require "burin.base.errors"
local events = require "burin.train.events"
local files = require "burin.adapters.metadata"
local folders = require "burin.base.folders"
local grid = require "burin.sample.grid"
local latents = require "burin.train.latents"
local lengths = require "burin.text.lengths"
local metadata = require "burin.train.metadata"
local nonfinite = require "burin.train.nonfinite"
local options = require "burin.base.options"
local priors = require "burin.train.priors"
local progress = require "burin.base.progress"
local recipes = require "burin.train.recipe"
local record = require "burin.train.record"
local reports = require "burin.models.io.report"
local residency = require "burin.train.residency"
local resuming = require "burin.train.resuming"
local sample = require "burin.sample.sampler"
local saving = require "burin.train.saving"
local settings = require "burin.train.settings"
local space = require "burin.train.space"
local state = require "burin.base.state"
local loop = {}

local Training, new_training = class("training", {
  "plan", "folder",
  "steps", "steps_per_epoch",                -- in all, and of an epoch: once all pictures have been decoded
  "settings",                                -- what it learns with (settings.lua): resume wants the same
  "data_key", "base_key",                    -- hashes of what it learns from, likewise
  "base_hash",                               -- SHA-256 of the base's file, for metadata
  "from",                                    -- { path, hash } of the file that it began from, or nil
  "began_at",                                -- seconds since 1970
  -- updates done; of the last one the rate and the gradient's norm; the loss, averaged
  "step", "rate", "norm", "average",
  "nonfinite", "backs",                      -- updates in a row that were not finite; times that it went back
  "went_back_to",                            -- the step of that state, until an update is finite (nonfinite.lua)
  "metrics_bytes", "unwritten",              -- of metrics.jsonl, up to this step; lines that are not in it yet
  "troubles",                                -- of its saves (saving.lua)
  "before", "after",                         -- samples: { picture ... }
  "draw",                                    -- function(training, step) -> pictures, instead of the recipe's samples
  "allocated", "allocations",                -- device memory
  "seconds", "first_step_seconds",           -- of all steps; from the beginning to the end of step 1
})

-- A training of a plan. Nothing is taken or written yet.
function loop.new(plan)
  return new_training { plan = plan, folder = recipes.folder(plan.recipe), step = 0, metrics_bytes = 0, unwritten = "",
    nonfinite = 0, backs = 0, troubles = saving.new(),
    settings = settings.binding(plan.recipe, plan.settings) }
end

function Training:path(text, ...) return self.folder .. "/" .. text:format(...) end

-- ---- batches --------------------------------------------------------------------------------------------------------

-- share: what the batch's loss is multiplied by.
local function write_batch(self, batch, share)
  local t = self.plan.batches[batch.bucket]
  local n = #batch.items
  local moments = core.tensor(t.inputs.moments.shape, t.inputs.moments.dtype)
  local each, weights = moments.count // n, {}
  for i, item in ipairs(batch.items) do
    moments:copy_into((i - 1) * each + 1, item.moments)
    weights[i] = batch.weights[i] * share
  end
  t.inputs.moments:write(moments)
  self.plan.text:write(t.inputs.text, batch.items)
  t.inputs.weight:write(core.tensor({ n }, "f32", weights))
  return t.session
end

-- An iterator over all updates, each a list of batches, from a given one on.
local function updates_from(data, accumulate, per_epoch, first)
  local epoch, at = first // per_epoch, first % per_epoch
  local list = data:updates(epoch, accumulate)
  return function()
    at = at + 1
    if at > #list then
      epoch, at = epoch + 1, 1
      list = data:updates(epoch, accumulate)
    end
    return list[at]
  end
end

-- ---- what it writes -------------------------------------------------------------------------------------------------

local function sample_jobs(s)
  local jobs = {}
  for i, line in ipairs(s.prompts) do
    jobs[i] = sample.parse_prompt(line)
    jobs[i].seed = jobs[i].seed or s.seed + i - 1
  end
  return jobs
end

local function draw_samples(self, step)
  local s = self.plan.recipe.sample
  local jobs, images = sample_jobs(s), {}
  errors.guard("output", core.make_dirs, self:path "samples")
  self.plan.sampler:run(jobs, { steps = s.steps, guidance = s.guidance, sampler = s.sampler }, function(i, image, text)
    images[i] = image
    errors.guard("output", core.image_save, self:path("samples/step-%06d-%02d.png", step, i), image,
      { "parameters", text })
  end)
  errors.guard("output", core.image_save, self:path("samples/step-%06d.png", step),
    grid.labelled(images, jobs, math.min(#images, 4)))
  return images
end

-- The samples of this step, if the recipe has some and there is room for them.
local function draw(self)
  if not self.plan.recipe.sample or not saving.room_for_samples(self) then return nil end
  return saving.now(self, "the samples", 0, function() return self:draw(self.step) end)
end

local function save_result(self, name)
  local plan, save = self.plan, self.plan.recipe.save
  local folder = save.format == "peft" or plan.method.whole and save.format == "diffusers"
  local path = self:path(folder and "%s" or "%s.safetensors", name)
  if folder then errors.guard("output", folders.remove_own, path) end  -- of the same run, before it was resumed
  local all = metadata.of(self)
  if plan.method.whole then all = files.profile(all, save.metadata) end
  errors.guard("output", plan.method.save, plan.method, path, plan.model, { dtype = save.dtype, metadata = all,
    format = save.format, profile = save.metadata, sidecar = save.sidecar, mark = true })
  return path
end

local function keep_result(self, name)
  return saving.now(self, "the result", space.result(self.plan), function() return save_result(self, name) end)
end

-- The state promises the metrics up to its step, so they reach the disk first.
local function save_state(self)
  saving.write_metrics(self)
  errors.guard("output", core.sync_file, self:path "metrics.jsonl")
  state.save(self:path "state", self.step, self.plan.trainer:state(), resuming.info(self), self.plan.recipe.state.keep)
end

-- due: after this step; now: it cannot be put off.
local function keep_state(self, due, now) saving.state(self, due, now, function() save_state(self) end) end
local function keep_state_now(self) keep_state(self, true, true) end

-- applied: false for an update that was skipped; what is not finite is null then
local function log_step(self, loss, applied)
  local line = core.json_encode { step = self.step, epoch = (self.step - 1) // self.steps_per_epoch, loss = loss,
    grad_norm = self.norm, lr = self.rate, skipped = not applied or nil } .. "\n"
  saving.add_metrics(self, line)
end

-- ---- beginning and going on -----------------------------------------------------------------------------------------

local locked = {}

-- Makes this process the only one that touches a run's folder, until it ends. Again is no error.
function loop.lock(folder)
  if locked[folder] then return end
  if not core.lock(folder .. "/.lock") then errors.raise("busy", folder .. ": another process is training this run") end
  locked[folder] = true
end

-- ---- running --------------------------------------------------------------------------------------------------------

-- An update of fewer batches than `accumulate` (the last of an epoch) takes the last places of a whole one, and each of
-- its batches counts more: the gradient is their mean.
local function one_step(self, batches)
  local recipe, trainer = self.plan.recipe, self.plan.trainer
  local factor = recipe.schedule.factor(self.step, self.steps) * nonfinite.rate(self)
  self.rate = recipe.optimizer.lr * factor
  local total = 0
  for i, batch in ipairs(batches) do
    local session = write_batch(self, batch, recipe.accumulate / #batches)
    local micro = recipe.accumulate - #batches + i - 1
    trainer:run(session, self.step * recipe.accumulate + micro,
      { [0] = self.rate, recipe.optimizer.text_encoder_lr * factor })
    local loss, norm = trainer:read()
    total, self.norm = total + loss, norm
  end
  self.step = self.step + 1
  return total / recipe.accumulate
end

-- The plan took all memory there will ever be; a step that takes more is a bug of ours.
local function check_memory(self)
  local bytes, allocations = core.allocated_memory()
  if self.allocations and allocations ~= self.allocations then
    error(("internal error: step %d allocated device memory (%d allocations before, %d now)"):format(self.step,
      self.allocations, allocations), 0)
  end
  self.allocated, self.allocations = bytes, allocations
end

-- What is due after a step that was not the last.
local function results_between(self, every)
  if every.sample and self.step % every.sample == 0 then draw(self) end
  if every.save and self.step % every.save == 0 then
    keep_result(self, ("%s-%06d"):format(self.plan.recipe.name, self.step))
  end
end

-- What is due after a step: nothing but the state of a run that stops or ends, while updates are not finite.
local function publish(self, every)
  local last, finite = self.step == self.steps, self.nonfinite == 0
  if finite and not last then results_between(self, every) end
  local stop = core.stop_requested()  -- asked once: who is told that we stopped has a state of this very step
  if finite or last or stop then keep_state(self, self.step % every.state == 0, last or stop) end
  if stop then
    errors.raise("stopped", "stopped after step %d; continue with: burin resume %s", self.step, self.folder)
  end
end

-- One update, and what is due after it. Returns nothing, or why it cannot go on like this: a sentence.
local function next_step(self, batches, every, bar)
  local scale = self.plan.trainer:loss_scale()
  local loss = one_step(self, batches)
  check_memory(self)
  local applied = nonfinite.look(self, loss, scale)
  if options.finite(loss) then self.average = self.average and self.average + 0.05 * (loss - self.average) or loss end
  log_step(self, loss, applied)
  bar:update(self.step, ("loss %.4f"):format(self.average or loss))
  if nonfinite.is_too_much(self) then return nonfinite.explain(self, batches, loss, write_batch) end
  return nonfinite.caught(self, function() publish(self, every) end)
end

-- due: what is due after the step that it begins behind, as that is no longer the last.
local function run_steps(self, began, due)
  local recipe = self.plan.recipe
  local every = { state = options.every(recipe.state.every, self.steps_per_epoch),
    save = options.every(recipe.save.every, self.steps_per_epoch),
    sample = recipe.sample and options.every(recipe.sample.every, self.steps_per_epoch) }
  local function updates() return updates_from(self.plan.data, recipe.accumulate, self.steps_per_epoch, self.step) end
  local bar, start, next_update = progress.new("training", self.steps, self.step), core.clock(), updates()
  core.catch_stop()
  if due then results_between(self, every) end
  while self.step < self.steps do
    core.rest()
    local trouble = next_step(self, next_update(), every, bar)
    if self.step == 1 then self.first_step_seconds = core.clock() - began end
    if trouble then
      nonfinite.back(self, trouble, keep_state_now)
      next_update = updates()
    end
  end
  self.seconds = core.clock() - start
end

-- Everything before the first step: class images, latents, texts; what is on the device afterwards is what trains.
local function prepare(self)
  local plan = self.plan
  core.log("info", "base: " .. reports.line(plan.model:look()))
  for _, survey in ipairs(plan.lengths) do lengths.log(survey) end
  space.look(plan)
  errors.guard("data", residency.enter, plan, 1)
  plan.tables.upload()
  plan.method:init(plan.recipe.seed)
  plan.trainer:reset()
  self.base_key = plan.recipe.base:key(function(part) return plan.model:content_hash(part) end)
  priors.make(plan, self.base_key)
  self.data_key = latents.fill(plan)
  self.steps, self.steps_per_epoch = plan:steps(), plan:steps_per_epoch()
  if plan.recipe.sample and not plan.text.live then plan.sampler:keep_texts(sample_jobs(plan.recipe.sample)) end
  errors.guard("data", residency.enter, plan, 2)
end

-- What a file gives comes last: class images are the base's, as they are without it.
local function take_first_values(self)
  local start = self.plan.start
  if not start then return end
  core.log("info", ("beginning from %s; the optimizer begins anew"):format(start.what))
  self.from = start:facts()
  errors.guard("data", start.load)
end

-- Step 0. There is a run, to be resumed, once its state is there and run.json is beside it.
local function begin(self, kept)
  take_first_values(self)
  if kept then kept.from = self.from end
  errors.guard("output", core.write_file, self:path "metrics.jsonl", "")
  -- Before the state: once there is one, resume takes everything up to its step as done.
  self.before = draw(self)
  keep_state_now(self)
  if kept then saving.now(self, "run.json", 0, function() kept:write(self.folder) end) end
end

-- The newest state of the run itself, or of the one that it is forked from; a new run forgets what its folder holds.
local function state_to_begin_with(self, o)
  local found = (o.resume or o.fork) and resuming.find(o.fork or self.folder)
  if found then resuming.check(self, found.info, o.fork) end
  if not o.resume then
    record.clear(self.folder)
    state.clear(self:path "state")
    events.clear(self.folder)
  end
  return found
end

-- Behind the step of a state that was found.
local function go_on(self, found, o)
  resuming.restore(self, found, o.fork)
  if o.record then o.record:write(self.folder) end
  if o.fork then keep_state_now(self) end
end

-- o: resume (continue from the newest state), fork (a folder: begin with the newest state of the run there), record
-- (record.lua: of a run that can be resumed).
-- Returns { steps =, loss = (average of the last tenth), seconds =, path = of the result ... }.
function Training:execute(o)
  local recipe, began = self.plan.recipe, core.clock()
  self.draw = self.draw or draw_samples
  core.make_dirs(self.folder)
  loop.lock(self.folder)
  for _, folder in ipairs { self.folder, self:path "state", self:path "samples" } do state.sweep(folder) end
  local found = state_to_begin_with(self, o)
  self.began_at = select(2, core.date())
  prepare(self)
  if found then go_on(self, found, o) else begin(self, o.record) end
  run_steps(self, began, found and self.step > 0 and self.step == found.info.steps_in_all and self.step < self.steps)
  nonfinite.say_at_end(self)
  local path = keep_result(self, recipe.name)
  self.after = draw(self)
  return { steps = self.step, loss = self.average, seconds = self.seconds, path = path,
    first_step = self.first_step_seconds,
    planned_bytes = core.planned_memory().total, allocated_bytes = core.allocated_memory() }
end

return loop
