-- SPDX-License-Identifier: MIT
-- loop.lua - a plan, executed: memory committed and filled, then steps, samples, results and states. A training is killed at
-- any moment and resumed bit for bit: the state on disk promises everything before its step.
local class = require "burin.base.class"
local core = require "burin.core"
local errors = require "burin.base.errors"
local files = require "burin.adapters.metadata"
local grid = require "burin.sample.grid"
local latents = require "burin.train.latents"
local lengths = require "burin.text.lengths"
local metadata = require "burin.train.metadata"
local options = require "burin.base.options"
local priors = require "burin.train.priors"
local progress = require "burin.base.progress"
local recipes = require "burin.train.recipe"
local record = require "burin.train.record"
local residency = require "burin.train.residency"
local sample = require "burin.sample.sampler"
local settings = require "burin.train.settings"
local state = require "burin.base.state"
local loop = {}

local Training, new_training = class("training", {
  "plan", "folder",
  "steps", "steps_per_epoch",                -- in all, and of an epoch: once all pictures have been decoded
  "settings",                                -- what it learns with (settings.lua): resume wants the same
  "data_key", "base_key",                    -- hashes of what it learns from, likewise
  "base_hash",                               -- SHA-256 of the base's file, for metadata
  "began_at",                                -- seconds since 1970
  "step", "rate", "norm", "average",         -- updates done; of the last one the rate and the gradient's norm; the loss, averaged
  "metrics_bytes",                           -- of metrics.jsonl, up to this step
  "before", "after",                         -- samples: { picture ... }
  "draw",                                    -- function(training, step) -> pictures, instead of the recipe's samples
  "allocated", "allocations",                -- device memory
  "seconds", "first_step_seconds",           -- of all steps; from the beginning to the end of step 1
})

-- A training of a plan. Nothing is taken or written yet.
function loop.new(plan)
  return new_training { plan = plan, folder = recipes.folder(plan.recipe), step = 0, metrics_bytes = 0,
    settings = settings.binding(plan.recipe, plan.settings) }
end

function Training:path(text, ...) return self.folder .. "/" .. text:format(...) end

-- ---- batches -----------------------------------------------------------------------------------------------------------

local function write_batch(self, batch)
  local t = self.plan.batches[batch.bucket]
  local n = #batch.items
  local moments = core.tensor(t.inputs.moments.shape, t.inputs.moments.dtype)
  local each, weights = moments.count // n, {}
  for i, item in ipairs(batch.items) do
    moments:copy_into((i - 1) * each + 1, item.moments)
    weights[i] = item.weight
  end
  t.inputs.moments:write(moments)
  self.plan.text:write(t.inputs.text, batch.items)
  t.inputs.weight:write(core.tensor({ n }, "f32", weights))
  return t.session
end

-- An iterator over all batches from a given one on.
local function batches_from(data, first)
  local per_epoch = data:steps_per_epoch()
  local epoch, at = first // per_epoch, first % per_epoch
  local list = data:epoch(epoch)
  return function()
    at = at + 1
    if at > #list then
      epoch, at = epoch + 1, 1
      list = data:epoch(epoch)
    end
    return list[at]
  end
end

-- ---- what it writes ----------------------------------------------------------------------------------------------------

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
  core.make_dirs(self:path "samples")
  self.plan.sampler:run(jobs, { steps = s.steps, guidance = s.guidance, sampler = s.sampler }, function(i, image, text)
    images[i] = image
    errors.guard("output", core.image_save, self:path("samples/step-%06d-%02d.png", step, i), image, { "parameters", text })
  end)
  core.image_save(self:path("samples/step-%06d.png", step), grid.labelled(images, jobs, math.min(#images, 4)))
  return images
end

local function save_result(self, name)
  local plan, save = self.plan, self.plan.recipe.save
  local folder = save.format == "peft" or plan.method.whole and save.format == "diffusers"
  local path = self:path(folder and "%s" or "%s.safetensors", name)
  if folder then core.remove_tree(path) end  -- of the same run, before it was killed and resumed
  local all = metadata.of(self)
  if plan.method.whole then all = files.profile(all, save.metadata) end
  errors.guard("output", plan.method.save, plan.method, path, plan.model, { dtype = save.dtype, metadata = all,
    format = save.format, profile = save.metadata, sidecar = save.sidecar })
  return path
end

local function name_of_device()
  local device = core.device()
  return device.name .. ", " .. device.driver
end

-- { name = "1.0 0123456789abcdef" }: the plugins that there are, and which build of each.
local function plugins()
  local list = {}
  for _, p in ipairs(core.plugins()) do
    list[p.name] = ("%s %s"):format(p.version or "", core.exists(p.path) and core.hash_file(p.path) or "built in")
  end
  return list
end

-- The state promises the metrics up to its step, so they reach the disk first.
local function save_state(self)
  local recipe = self.plan.recipe
  local info = { step = self.step, steps_in_all = self.steps, settings = self.settings, files = record.hashes(),
    data = self.data_key, base = self.base_key, metrics = self.metrics_bytes,
    average = self.average and ("%a"):format(self.average), device = name_of_device(), version = core.version,
    plugins = plugins() }
  errors.guard("output", core.sync_file, self:path "metrics.jsonl")
  state.save(self:path "state", self.step, self.plan.trainer:state(), info, recipe.state.keep)
end

local function log_step(self, loss)
  local line = core.json_encode { step = self.step, epoch = (self.step - 1) // self.steps_per_epoch, loss = loss,
    grad_norm = self.norm, lr = self.rate } .. "\n"
  errors.guard("output", core.append_file, self:path "metrics.jsonl", line)
  self.metrics_bytes = self.metrics_bytes + #line
end

-- ---- resuming ----------------------------------------------------------------------------------------------------------

-- Cuts the metrics log back to where the state was saved: later lines are written again, byte for byte.
local function resume_metrics(self, bytes)
  local path = self:path "metrics.jsonl"
  local text = core.exists(path) and core.read_file(path, 1 << 30) or ""
  if #text < bytes then errors.file(path, "shorter than the saved state says; it was changed") end
  errors.guard("output", core.write_file, path, text:sub(1, bytes))
  self.metrics_bytes = bytes
end

local function over(self)
  return ("; go on with it in a run of another name: burin resume %s --fork NAME; or start over: burin train --force"):format(
    self.folder)
end

-- What makes the rest another run than the one that was begun. Said before anything is computed.
local function check_settings(self, info)
  local list = settings.differences(info.settings, self.settings)
  for file, hash in pairs(record.hashes()) do
    if info.files[file] ~= hash then list[#list + 1] = ("%s, which it requires, is another file"):format(file) end
  end
  if #list > 0 then
    errors.raise("recipe", "%s: the recipe has changed since this run began: %s. Only steps, epochs, save, sample, state, "
      .. "output and the device may change%s", self.folder, table.concat(list, "; "), over(self))
  end
end

-- What may make the rest differ in its last bits, or worse: said, and nothing more.
local function warn_of_changes(info)
  local function warn(text, ...) core.log("warn", text:format(...)) end
  if info.device ~= name_of_device() then
    warn("this run began on %s; what follows will not equal an uninterrupted run bit for bit", info.device)
  end
  if info.version ~= core.version then
    warn("this run was saved by Burin %s, this is %s; what follows may differ", info.version, core.version)
  end
  local now, names = plugins(), {}
  for name, what in pairs(info.plugins) do
    if now[name] ~= what then names[#names + 1] = name .. (now[name] and "" or " (not there now)") end
  end
  table.sort(names)
  if #names > 0 then warn("plugins have changed since this run was saved: %s", table.concat(names, ", ")) end
end

-- Bit for bit means: the same pictures, captions and base, too.
local function check_data(self, info)
  if info.data ~= self.data_key then
    errors.file(self.folder, "the pictures or captions have changed since this run began" .. over(self))
  end
  if info.base ~= self.base_key then
    errors.file(self.plan.recipe.base.path, "the base has changed since this run began" .. over(self))
  end
end

-- The newest state of a run and what it says: { info =, file =, path = }.
local function find_state(self)
  local info, file, path = state.latest(self:path "state")
  if not info then
    errors.raise("input", "%s: there is no state to go on from in %s; begin again with 'burin train'", self.folder,
      self:path "state")
  end
  for _, field in ipairs { "settings", "files", "plugins" } do
    if type(info[field]) ~= "table" then errors.file(path, "it lacks '%s': a state of another version of Burin", field) end
  end
  return { info = info, file = file, path = path }
end

local function restore(self, found)
  local info = found.info
  check_data(self, info)
  if info.step > self.steps then
    errors.raise("recipe", "%s: this run has done %d steps already, which is more than %d", self.folder, info.step,
      self.steps)
  end
  state.restore(info, found.file, found.path, self.plan.trainer:state())
  found.file:close()
  self.step, self.average = info.step, tonumber(info.average)
  resume_metrics(self, info.metrics)
end

local locked = {}

-- Makes this process the only one that touches a run's folder, until it ends. Again is no error.
function loop.lock(folder)
  if locked[folder] then return end
  if not core.lock(folder .. "/.lock") then errors.raise("busy", folder .. ": another process is training this run") end
  locked[folder] = true
end

-- ---- running -----------------------------------------------------------------------------------------------------------

local function one_step(self, batches)
  local recipe, trainer = self.plan.recipe, self.plan.trainer
  local factor = recipe.schedule.factor(self.step, self.steps)
  self.rate = recipe.optimizer.lr * factor
  local total = 0
  for micro = 0, recipe.accumulate - 1 do
    local session = write_batch(self, batches())
    trainer:run(session, self.step * recipe.accumulate + micro, { [0] = self.rate, recipe.optimizer.text_encoder_lr * factor })
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
  if every.sample and self.step % every.sample == 0 then self:draw(self.step) end
  if every.save and self.step % every.save == 0 then
    save_result(self, ("%s-%06d"):format(self.plan.recipe.name, self.step))
  end
end

local function run_steps(self, began)
  local recipe = self.plan.recipe
  local every = { state = options.every(recipe.state.every, self.steps_per_epoch),
    save = options.every(recipe.save.every, self.steps_per_epoch),
    sample = recipe.sample and options.every(recipe.sample.every, self.steps_per_epoch) }
  local batches = batches_from(self.plan.data, self.step * recipe.accumulate)
  local bar, start = progress.new("training", self.steps, self.step), core.clock()
  core.catch_stop()
  while self.step < self.steps do
    local loss = one_step(self, batches)
    self.average = self.average and self.average + 0.05 * (loss - self.average) or loss
    if self.step == 1 then self.first_step_seconds = core.clock() - began end
    check_memory(self)
    log_step(self, loss)
    bar:update(self.step, ("loss %.4f"):format(self.average))
    local last = self.step == self.steps
    if not last then results_between(self, every) end
    local stop = core.stop_requested()  -- asked once: who is told that we stopped has a state of this very step
    if self.step % every.state == 0 or last or stop then save_state(self) end
    if stop then
      errors.raise("stopped", "stopped after step %d; continue with: burin resume %s", self.step, self.folder)
    end
  end
  self.seconds = core.clock() - start
end

-- Everything before the first step: class images, latents, texts; what is on the device afterwards is what trains.
local function prepare(self)
  local plan = self.plan
  local base = plan.recipe.base.path
  for _, survey in ipairs(plan.lengths) do lengths.log(survey) end
  errors.guard("data", residency.enter, plan, 1)
  plan.tables.upload()
  plan.method:init(plan.recipe.seed)
  plan.trainer:reset()
  self.base_key = core.exists(base) == "file" and core.hash_file(base) or plan.model:content_hash "unet"
  priors.make(plan, self.base_key)
  self.data_key = latents.fill(plan)
  self.steps, self.steps_per_epoch = plan:steps(), plan:steps_per_epoch()
  if plan.recipe.sample and not plan.text.live then plan.sampler:keep_texts(sample_jobs(plan.recipe.sample)) end
  errors.guard("data", residency.enter, plan, 2)
end

-- Step 0. There is a run, to be resumed, once its state is there and run.json is beside it.
local function begin(self, kept)
  errors.guard("output", core.write_file, self:path "metrics.jsonl", "")
  -- Before the state: once there is one, resume takes everything up to its step as done.
  if self.plan.recipe.sample then self.before = self:draw(0) end
  save_state(self)
  if kept then kept:write(self.folder) end
end

-- o: resume (continue from the newest state), record (record.lua: of a run that can be resumed).
-- Returns { steps =, loss = (average of the last tenth), seconds =, path = of the result ... }.
function Training:execute(o)
  local recipe, began, found = self.plan.recipe, core.clock(), nil
  self.draw = self.draw or draw_samples
  core.make_dirs(self.folder)
  loop.lock(self.folder)
  for _, folder in ipairs { self.folder, self:path "state", self:path "samples" } do state.sweep(folder) end
  if o.resume then
    found = find_state(self)
    check_settings(self, found.info)
    warn_of_changes(found.info)
  else
    record.clear(self.folder)
    state.clear(self:path "state")
  end
  self.began_at = select(2, core.date())
  prepare(self)
  if found then restore(self, found) else begin(self, o.record) end
  run_steps(self, began)
  local path = save_result(self, recipe.name)
  if recipe.sample then self.after = self:draw(self.step) end
  return { steps = self.step, loss = self.average, seconds = self.seconds, path = path, first_step = self.first_step_seconds,
    planned_bytes = core.planned_memory().total, allocated_bytes = core.allocated_memory() }
end

return loop
