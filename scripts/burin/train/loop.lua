-- SPDX-License-Identifier: MIT
-- loop.lua - a prepared run, executed: memory committed and filled, then steps, samples, results and states. A run is
-- killed at any moment and resumed bit for bit: the state on disk promises everything before its step.
local class = require "burin.base.class"
local core = require "burin.core"
local grid = require "burin.sample.grid"
local errors = require "burin.base.errors"
local material = require "burin.train.material"
local metadata = require "burin.adapters.metadata"
local options = require "burin.base.options"
local progress = require "burin.base.progress"
local residency = require "burin.train.residency"
local sample = require "burin.sample.sampler"
local state = require "burin.base.state"
local runs = {}

local Run, new_run = class "run"

-- A run of a recipe, to be prepared by train.lua. Its files are in `folder`.
function runs.new(recipe) return new_run { o = recipe, folder = recipe.output .. "/" .. recipe.name } end

local function write_batch(run, batch)
  local t = run.train[batch.bucket]
  local n = #batch.items
  local function gather(var, field)
    local out = core.tensor(var.shape, var.dtype)
    local each = out.count // n
    for i, item in ipairs(batch.items) do out:copy_into((i - 1) * each + 1, item[field]) end
    var:write(out)
  end
  gather(t.inputs.moments, "moments")
  run.text:write(t.inputs.text, batch.items)
  local weights = {}
  for i, item in ipairs(batch.items) do weights[i] = item.weight end
  t.inputs.weight:write(core.tensor({ n }, "f32", weights))
  return t.session
end

function Run:path(text, ...) return self.folder .. "/" .. text:format(...) end

local function sample_jobs(s)
  local jobs = {}
  for i, line in ipairs(s.prompts) do
    jobs[i] = sample.parse_prompt(line)
    jobs[i].seed = jobs[i].seed or s.seed + i - 1
  end
  return jobs
end

function Run:draw_samples(step)
  local s = self.o.sample
  local jobs = sample_jobs(s)
  core.make_dirs(self:path "samples")
  local images = {}
  self.sampler:run(jobs, { steps = s.steps, guidance = s.guidance, sampler = s.sampler }, function(i, image, text)
    images[i] = image
    errors.guard("output", core.image_save, self:path("samples/step-%06d-%02d.png", step, i), image, { "parameters", text })
  end)
  core.image_save(self:path("samples/step-%06d.png", step), grid.labelled(images, jobs, math.min(#images, 4)))
  return images
end

function Run:save_result(name)
  local o, save = self.o, self.o.save
  local folder = save.format == "peft" or o.method.method.whole and save.format == "diffusers"
  local path = self:path(folder and "%s" or "%s.safetensors", name)
  if folder then core.remove_tree(path) end  -- of the same run, before it was killed and resumed
  local all = metadata.of_run(self)
  if o.method.method.whole then all = metadata.profile(all, save.metadata) end
  errors.guard("output", o.method.save, o.method, path, self.model, { dtype = save.dtype, metadata = all, format = save.format,
    profile = save.metadata, sidecar = save.sidecar })
  return path
end

-- The state promises the metrics up to its step, so they reach the disk first.
local function save_state(run)
  local device = core.device()
  local info = { step = run.step, seed = run.o.seed, recipe = run.recipe_hash, data = run.data_key, base = run.base_key,
    metrics = run.metrics_bytes, average = run.average and ("%a"):format(run.average), device = device.name .. ", " .. device.driver }
  errors.guard("output", core.sync_file, run:path "metrics.jsonl")
  state.save(run:path "state", run.step, run.trainer:state(), info, run.o.state.keep)
end

-- Cuts the metrics log back to where the state was saved: later lines are written again, byte for byte.
local function resume_metrics(run, bytes)
  local path = run:path "metrics.jsonl"
  local text = core.exists(path) and core.read_file(path, 1 << 30) or ""
  if #text < bytes then errors.raise("data", path .. ": shorter than the saved state says; it was changed") end
  errors.guard("output", core.write_file, path, text:sub(1, bytes))
  run.metrics_bytes = bytes
end

-- Bit for bit means: the same recipe, pictures, captions and base.
local function restore(run)
  local info, file, path = state.latest(run:path "state")
  if not info then return false end
  local over = "; start over with 'burin train --force'"
  if info.recipe ~= run.recipe_hash then
    errors.raise("recipe", run.folder .. ": the recipe has changed since this run began" .. over)
  end
  if info.data ~= run.data_key then
    errors.raise("data", run.folder .. ": the pictures or captions have changed since this run began" .. over)
  end
  if info.base ~= run.base_key then
    errors.raise("data", run.o.base.path .. ": the base has changed since this run began" .. over)
  end
  local device = core.device()
  if info.device ~= device.name .. ", " .. device.driver then
    core.log("warn", ("this run began on %s; what follows will not equal an uninterrupted run bit for bit"):format(info.device))
  end
  state.restore(info, file, path, run.trainer:state())
  file:close()
  run.step, run.average = info.step, tonumber(info.average)
  resume_metrics(run, info.metrics)
  return true
end

local function log_step(run, epoch, loss, norm)
  local line = core.json_encode { step = run.step, epoch = epoch, loss = loss, grad_norm = norm,
    lr = run.lr } .. "\n"
  errors.guard("output", core.append_file, run:path "metrics.jsonl", line)
  run.metrics_bytes = run.metrics_bytes + #line
end

local function one_step(run, batches)
  local o = run.o
  local factor = o.schedule.factor(run.step, run.steps)
  run.lr = o.optimizer.lr * factor
  local total = 0
  for micro = 0, o.accumulate - 1 do
    local session = write_batch(run, batches())
    run.trainer:run(session, run.step * o.accumulate + micro, { [0] = run.lr, o.optimizer.text_encoder_lr * factor })
    local loss, norm = run.trainer:read()
    total, run.norm = total + loss, norm
  end
  run.step = run.step + 1
  return total / o.accumulate
end

-- An iterator over all batches from a given micro-batch on.
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

local locked = {}

-- Makes this process the only one that touches the run's folder, until it ends. Again is no error.
function runs.lock(folder)
  if locked[folder] then return end
  if not core.lock(folder .. "/.lock") then
    errors.raise("busy", folder .. ": another process is training this run")
  end
  locked[folder] = true
end

-- o: resume (continue from the newest state), recipe_text (its hash guards resume; a copy is kept in the run).
-- Returns { steps =, loss = (average of the last tenth), seconds =, path = of the result }.
function Run:execute(o)
  local r = self.o
  self.recipe_hash = core.hash(o.recipe_text or r.name)
  core.make_dirs(self.folder)
  runs.lock(self.folder)
  for _, folder in ipairs { self.folder, self:path "state", self:path "samples" } do state.sweep(folder) end
  if not o.resume then state.clear(self:path "state") end
  local began = core.clock()
  self.began_at = select(2, core.date())
  errors.guard("data", residency.enter, self, 1)
  self.tables.upload()
  r.method:init(r.seed)
  self.trainer:reset()
  self.base_key = core.exists(r.base.path) == "file" and core.hash_file(r.base.path) or self.model:content_hash "unet"
  material.make_priors(self)
  material.fill_caches(self)
  if r.sample and not self.text.live then self.sampler:keep_texts(sample_jobs(r.sample)) end
  errors.guard("data", residency.enter, self, 2)
  self.step, self.metrics_bytes = 0, 0
  if not (o.resume and restore(self)) then
    errors.guard("output", core.write_file, self:path "metrics.jsonl", "")
    -- Before the state: once there is one, resume takes everything up to its step as done.
    if r.sample then self.before = self:draw_samples(0) end
    save_state(self)
  end
  return self:loop(began)
end

-- The plan took all memory there will ever be; a step that takes more is a bug of ours.
local function check_memory(run)
  local bytes, allocations = core.allocated_memory()
  if run.allocations and allocations ~= run.allocations then
    error(("internal error: step %d allocated device memory (%d allocations before, %d now)"):format(run.step, run.allocations, allocations), 0)
  end
  run.allocated, run.allocations = bytes, allocations
end

function Run:loop(began)
  local r = self.o
  local sample_every = r.sample and options.every(r.sample.every, self.per_epoch)
  local save_every, state_every = options.every(r.save.every, self.per_epoch), options.every(r.state.every, self.per_epoch)
  local batches = batches_from(self.data, self.step * r.accumulate)
  local bar = progress.new("training", self.steps, self.step)
  local start = core.clock()
  core.catch_stop()
  while self.step < self.steps do
    local loss = one_step(self, batches)
    self.average = self.average and self.average + 0.05 * (loss - self.average) or loss
    if self.step == 1 then self.first_step_seconds = core.clock() - began end
    check_memory(self)
    log_step(self, (self.step - 1) // self.per_epoch, loss, self.norm)
    bar:update(self.step, ("loss %.4f"):format(self.average))
    local last = self.step == self.steps
    if sample_every and (self.step % sample_every == 0) and not last then self:draw_samples(self.step) end
    if save_every and self.step % save_every == 0 and not last then
      self:save_result(("%s-%06d"):format(r.name, self.step))
    end
    local stop = core.stop_requested()  -- asked once: who is told that we stopped has a state of this very step
    if self.step % state_every == 0 or last or stop then save_state(self) end
    if stop then
      errors.raise("stopped", ("stopped after step %d; continue with: burin resume %s"):format(self.step, self.folder))
    end
  end
  self.seconds = core.clock() - start
  local path = self:save_result(r.name)
  if r.sample then self.after = self:draw_samples(self.step) end
  return { steps = self.step, loss = self.average, seconds = self.seconds, path = path, first_step = self.first_step_seconds,
    planned_bytes = core.planned_memory().total, allocated_bytes = core.allocated_memory() }
end

return runs
