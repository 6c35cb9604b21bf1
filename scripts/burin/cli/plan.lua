-- SPDX-License-Identifier: MIT
local bench = require "burin.graph.bench"
local budget = require "burin.train.budget"
local core = require "burin.core"
local progress = require "burin.base.progress"
local recipe = require "burin.train.recipe"
local residency = require "burin.train.residency"
local plan = require "burin.train.plan"

local function size(bytes)
  local units, i = { "B", "KiB", "MiB", "GiB" }, 1
  while bytes >= 1024 and i < #units do bytes, i = bytes / 1024, i + 1 end
  return i == 1 and ("%d B"):format(bytes) or ("%.2f %s"):format(bytes, units[i])
end

-- All sessions of a phase share one arena, so it needs its variables and its largest session's arena.
local function collect(run)
  local list = {}
  for _, t in pairs(run.train) do list[#list + 1] = { "training " .. t.bucket.w .. "x" .. t.bucket.h, t.session } end
  if run.trainer.update_session then list[#list + 1] = { "update", run.trainer.update_session } end
  for _, e in pairs(run.encode) do list[#list + 1] = { "VAE encode", e.session } end
  if run.text.session then list[#list + 1] = { "text encode", run.text.session } end
  if run.sampler then
    list[#list + 1] = { "sampling step", run.sampler.step_session }
    list[#list + 1] = { "VAE decode", run.sampler.decode_session }
    if run.prior_sampler and run.prior_sampler ~= run.sampler then
      list[#list + 1] = { "class images step", run.prior_sampler.step_session }
      list[#list + 1] = { "class images decode", run.prior_sampler.decode_session }
    end
  end
  local sessions = {}
  for _, s in ipairs(list) do
    local info = s[2]:info()
    info.name = s[1]
    sessions[#sessions + 1] = info
  end
  table.sort(sessions, function(a, b) return a.arena > b.arena end)
  return sessions
end

return {
  summary = "memory, steps and time of a recipe, known before step 1",
  usage = "RECIPE.lua [options]",
  needs = 1,
  options = { { "--budget", "amount", "device memory to plan for, as 8GiB; over the recipe's" },
    { "--trust", "flag", "run the recipe without the sandbox" } },
  run = function(args)
    local r = recipe.load(args[1], args.trust)
    if args.budget then
      budget.parse(args.budget)
      r.budget = args.budget
    end
    args.open_device()
    local rate, dispatch = bench.rate()
    local run = plan.prepare(r)
    local sessions, phases, largest = collect(run), residency.memory(run)
    local memory, traded = phases[largest].memory, budget.traded(run)
    local flops, dispatches = 0, 0
    for _, s in ipairs(sessions) do
      if s.name:match "^training" then flops, dispatches = math.max(flops, s.flops), math.max(dispatches, s.dispatches) end
    end
    local seconds = rate and (flops / rate + dispatches * dispatch) * r.accumulate
    if args.json then
      core.write_stdout(core.json_encode { memory = memory, phases = phases, traded = traded, settings = run.settings, sessions = sessions, steps = run.steps,
        steps_per_epoch = run.per_epoch, flops_per_step = flops * r.accumulate, seconds_per_step = seconds } .. "\n")
      return 0
    end
    local out = {}
    local function row(name, bytes) out[#out + 1] = ("  %-34s %12s"):format(name, size(bytes)) end
    out[#out + 1] = ("memory (%s)"):format(phases[largest].name)
    row("weights (frozen)", memory.weights)
    row("trained parameters", memory.params)
    row("gradients", memory.grads)
    row("optimizer and step state", memory.state)
    row("batch, inputs and tables", memory.inputs)
    row("activations", memory.activations - memory.workspace)
    row("workspace", memory.workspace)
    row("alignment and fragmentation", memory.arena - memory.activations)
    row("total on the device", memory.total)
    for i, phase in ipairs(phases) do
      if i ~= largest then row("  " .. phase.name, phase.memory.total) end
    end
    for i, text in ipairs(traded) do out[#out + 1] = (i == 1 and "traded " or "       ") .. text end
    out[#out + 1] = "sessions                                    arena   GFLOP  dispatches"
    for _, s in ipairs(sessions) do
      out[#out + 1] = ("  %-34s %12s %7.2f %11d"):format(s.name, size(s.arena), s.flops / 1e9, s.dispatches)
    end
    out[#out + 1] = ("steps  %d  (%d per epoch, batch %d x %d)"):format(run.steps, run.per_epoch, r.batch, r.accumulate)
    if seconds then
      out[#out + 1] = ("time   about %s per step, %s in all (measured: %.1f GFLOP/s, %.0f us per dispatch)"):format(
        ("%.2f s"):format(seconds), progress.duration(seconds * run.steps), rate / 1e9, dispatch * 1e6)
    end
    if #run.missing_prior > 0 then
      for _, m in ipairs(run.missing_prior) do
        out[#out + 1] = ("first  %d class images of '%s' will be generated"):format(#m.missing, m.prior.prompt)
      end
    end
    core.write_stdout(table.concat(out, "\n") .. "\n")
    return 0
  end,
}
