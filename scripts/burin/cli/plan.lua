-- SPDX-License-Identifier: MIT
local bench = require "burin.graph.bench"
local budget = require "burin.train.budget"
local core = require "burin.core"
local lengths = require "burin.text.lengths"
local progress = require "burin.base.progress"
local recipe = require "burin.train.recipe"
local residency = require "burin.train.residency"
local plans = require "burin.train.plan"

local function size(bytes)
  local units, i = { "B", "KiB", "MiB", "GiB" }, 1
  while bytes >= 1024 and i < #units do bytes, i = bytes / 1024, i + 1 end
  return i == 1 and ("%d B"):format(bytes) or ("%.2f %s"):format(bytes, units[i])
end

-- All sessions of a phase share one arena, so it needs its variables and its largest session's arena.
local function session_rows(plan)
  local rows = {}
  for i, s in ipairs(plan:sessions()) do
    rows[i] = s[2]:info()
    rows[i].name = s[1]
  end
  table.sort(rows, function(a, b) return a.arena > b.arena end)
  return rows
end

return {
  summary = "memory, steps and time of a recipe, known before step 1",
  usage = "RECIPE.lua [options]",
  needs = 1,
  options = { { "--budget", "amount", "device memory to plan for, as 8GiB; over the recipe's" } },
  recipe = { steps = 2000000000 },
  run = function(args)
    local r = recipe.load(args[1], args.trust)
    if args.budget then
      budget.parse(args.budget)
      r.budget = args.budget
    end
    args.open_device()
    local rate, dispatch = bench.rate()
    local plan = plans.prepare(r)
    local sessions, phases, largest = session_rows(plan), residency.memory(plan)
    local memory, traded, steps, per_epoch = phases[largest].memory, budget.traded(plan), plan:steps(), plan:steps_per_epoch()
    local flops, dispatches = 0, 0
    for _, s in ipairs(sessions) do
      if s.name:match "^training" then flops, dispatches = math.max(flops, s.flops), math.max(dispatches, s.dispatches) end
    end
    local seconds = rate and (flops / rate + dispatches * dispatch) * r.accumulate
    if args.json then
      core.write_stdout(core.json_encode { memory = memory, phases = phases, traded = traded, settings = plan.settings,
        sessions = sessions, texts = plan.lengths, steps = steps, steps_per_epoch = per_epoch,
        flops_per_step = flops * r.accumulate, seconds_per_step = seconds } .. "\n")
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
    for i, survey in ipairs(plan.lengths) do
      local line, warnings = lengths.report(survey)
      out[#out + 1] = (i == 1 and "texts  " or "       ") .. line
      for _, text in ipairs(warnings) do out[#out + 1] = "       " .. text end
    end
    out[#out + 1] = ("steps  %d  (%d per epoch, batch %d x %d)"):format(steps, per_epoch, r.batch, r.accumulate)
    local noise = plan.model:unusual_noise()
    if noise then out[#out + 1] = "noise  " .. noise end
    if seconds then
      out[#out + 1] = ("time   about %s per step, %s in all (measured: %.1f GFLOP/s, %.0f us per dispatch)"):format(
        ("%.2f s"):format(seconds), progress.duration(seconds * steps), rate / 1e9, dispatch * 1e6)
    end
    for _, m in ipairs(plan.missing) do
      out[#out + 1] = ("first  %d class images of '%s' will be generated"):format(#m.missing, m.prior.prompt)
    end
    for _, line in ipairs(out) do core.write_stdout(core.shown(line) .. "\n") end
    return 0
  end,
}
