-- SPDX-License-Identifier: MIT
-- resuming.lua - what a state says of the run that it is of, and whether a training may go on from it: bit for bit
-- means with the same settings, files, pictures and base.
local core = require "burin.core"
local errors = require "burin.base.errors"
local record = require "burin.train.record"
local settings = require "burin.train.settings"
local start = require "burin.train.start"
local state = require "burin.base.state"
local resuming = {}

local function name_of_device()
  local device = core.device()
  return ("%s, %s, %s"):format(device.name, device.driver, device.engine ~= "" and device.engine or device.tier)
end

-- { name = "1.0 0123456789abcdef" }: the plugins that there are, and which build of each.
local function plugins()
  local list = {}
  for _, p in ipairs(core.plugins()) do
    list[p.name] = ("%s %s"):format(p.version or "", core.exists(p.path) and core.hash_file(p.path) or "built in")
  end
  return list
end

-- What is kept in a training's state beside its variables.
function resuming.info(self)
  return { step = self.step, steps_in_all = self.steps, settings = self.settings, files = record.hashes(),
    data = self.data_key, base = self.base_key, from = self.from, metrics = self.metrics_bytes,
    average = self.average and ("%a"):format(self.average), nonfinite = self.nonfinite,
    backs = self.backs, device = name_of_device(), version = core.version,
    plugins = plugins() }
end

-- Cuts the metrics log back to where the state was saved: later lines are written again, byte for byte. from: the run's
-- folder that it is read in.
local function resume_metrics(self, bytes, from)
  local path = from .. "/metrics.jsonl"
  local text = core.exists(path) and core.read_file(path, 1 << 30) or ""
  if #text < bytes then errors.file(path, "shorter than the saved state says; it was changed") end
  errors.guard("output", core.write_file, self:path "metrics.jsonl", text:sub(1, bytes))
  self.metrics_bytes, self.unwritten = bytes, ""
end

local function over(self)
  return ("; go on with it in a run of another name: burin resume %s --fork NAME; or start over: burin "
    .. "train --force"):format(
    self.folder)
end

-- What makes the rest another run than the one that was begun. Said before anything is computed.
local function check_settings(self, info, fork)
  local list = settings.differences(info.settings, self.settings)
  for file, hash in pairs(record.hashes()) do
    if info.files[file] ~= hash then list[#list + 1] = ("%s, which it requires, is another file"):format(file) end
  end
  list[#list + 1] = start.difference(info.from, self.plan.recipe.from)
  if #list > 0 and not fork then
    errors.raise("recipe", "%s: the recipe has changed since this run began: %s. Only steps, epochs, save, "
      .. "sample, state, output, on_nonfinite, max_nonfinite and the device may change%s",
      self.folder, table.concat(list, "; "), over(self))
  end
  for _, text in ipairs(list) do core.log("warn", ("not as in %s: %s"):format(fork, text)) end
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

-- Before anything is computed: the recipe, and the program. fork: the folder of the run that it is a fork of, or nil.
function resuming.check(self, info, fork)
  check_settings(self, info, fork)
  warn_of_changes(info)
end

-- Bit for bit means: the same pictures, captions and base, too.
local function check_data(self, info, fork)
  local function differ(path, what)
    if not fork then errors.file(path, what .. " changed since this run began" .. over(self)) end
    core.log("warn", ("not as in %s: %s changed"):format(fork, what))
  end
  if info.data ~= self.data_key then differ(self.folder, "the pictures or captions have") end
  if info.base ~= self.base_key then differ(self.plan.recipe.base.path, "the base has") end
end

-- The number of steps may change. A schedule that runs over all of them would have had other rates before, which is
-- said.
local function check_steps(self, info)
  local now, before, factor = self.steps, info.steps_in_all, self.plan.recipe.schedule.factor
  if info.step > now then
    errors.raise("recipe", "%s: this run has done %d steps already, which is more than %d", self.folder, info.step, now)
  end
  if now == before then return end
  core.log("info", ("%d steps in all instead of %d; going on after step %d"):format(now, before, info.step))
  for step = 0, info.step - 1 do
    if factor(step, now) ~= factor(step, before) then
      core.log("warn", ("the learning rate follows from the number of steps: the first %d had those of a "
        .. "run of %d steps, "
        .. "so this will not be what a run of %d steps would have been"):format(info.step, before, now))
      return
    end
  end
end

-- The newest state of the run in a folder and what it says: { folder =, info =, file =, path = }.
function resuming.find(folder)
  local info, file, path = state.latest(folder .. "/state")
  if not info then
    errors.raise("input", "%s: there is no state to go on from in %s/state; begin again with 'burin train'", folder,
      folder)
  end
  for _, field in ipairs { "settings", "files", "plugins" } do
    if type(info[field]) ~= "table" then errors.file(path, "it lacks '%s': a state of another version of Burin",
      field) end
  end
  local from = info.from
  if from ~= nil and not (type(from) == "table" and type(from.path) == "string" and type(from.hash) == "string") then
    errors.file(path, "'from' is no path with a hash")
  end
  return { folder = folder, info = info, file = file, path = path }
end

-- A fork may accumulate where its origin did not. States are of whole steps, when nothing is summed up, so that these
-- sums begin at nothing.
local function without_sums(variables, info)
  local list = {}
  for _, v in ipairs(variables) do
    if info.hashes[v[1]] or not v[1]:find "^grads%." then list[#list + 1] = v end
  end
  return list
end

-- Takes a training to the step of a state. fork: as above
function resuming.restore(self, found, fork)
  local info = found.info
  check_data(self, info, fork)
  check_steps(self, info)
  local variables = self.plan.trainer:state()
  if fork then
    self.plan.trainer:clear_gradients()
    variables = without_sums(variables, info)
  end
  state.restore(info, found.file, found.path, variables)
  found.file:close()
  self.step, self.average, self.from = info.step, tonumber(info.average), info.from
  if not fork then self.nonfinite, self.backs = info.nonfinite or 0, info.backs or 0 end
  resume_metrics(self, info.metrics, found.folder)
end

return resuming
