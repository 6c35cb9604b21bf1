-- SPDX-License-Identifier: MIT
local amounts = require "burin.base.amounts"
local bench = require "burin.graph.bench"
local budget = require "burin.train.budget"
local core = require "burin.core"
local lengths = require "burin.text.lengths"
local plans = require "burin.train.plan"
local progress = require "burin.base.progress"
local recipe = require "burin.train.recipe"
local reports = require "burin.models.io.report"
local residency = require "burin.train.residency"
local space = require "burin.train.space"

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

local origins = { { "file", "in files" }, { "prompt", "the recipe's prompt" }, { "folder", "the folder's name" },
  { "none", "none" } }

local LISTED = 10  -- files that are left out

-- What there is of a concept, in lines.
local function concept_lines(c)
  local captions, lines = {}, {}
  local function add(text, ...) lines[#lines + 1] = text:format(...) end
  for _, o in ipairs(origins) do
    local n = c.captions[o[1]]
    if n > 0 then captions[#captions + 1] = ("%d %s"):format(n, o[2]) end
  end
  add("concept %d%s: %d pictures, shown %d times an epoch; captions: %s", c.concept, c.prior and ", class images" or "",
    c.pictures, c.views, #captions > 0 and table.concat(captions, ", ") or "no pictures")
  if c.several > 0 then add("  captions of several lines: %d", c.several) end
  for _, b in ipairs(c.buckets) do
    local cut = b.cut_path and (", cut by at most %.0f %% (%s)"):format(b.cut * 100, b.cut_path) or ""
    local enlarged = b.enlarged_path and (", enlarged at most %.2f times (%s)"):format(b.enlarged,
      b.enlarged_path) or ""
    add("  %dx%d: %d pictures%s%s", b.bucket[1], b.bucket[2], b.pictures, cut, enlarged)
  end
  for i, s in ipairs(c.left_out) do
    if i <= LISTED then add("  left out: %s: %s", s.path, s.reason) end
  end
  if #c.left_out > LISTED then add("  left out, and not listed: %d (--json lists all)", #c.left_out - LISTED) end
  return lines
end

local function image_line(i)
  return ("%s  %dx%d, resized to %dx%d, cut to %dx%d from (%d, %d), x %d: %s"):format(i.path, i.width, i.height,
    i.resized[1], i.resized[2], i.bucket[1], i.bucket[2], i.crop[1], i.crop[2], i.repeats,
    table.concat(i.captions, " | "))
end

return {
  summary = "memory, steps and time of a recipe, known before step 1",
  usage = "RECIPE.lua [options]",
  needs = 1,
  options = { { "--budget", "amount", "device memory to plan for, as 8GiB; over the recipe's" },
    { "--images", "flag", "list every picture: its size, what is cut off, its captions" } },
  recipe = { limited = true },
  run = function(args)
    local r = recipe.load(args[1], args.trust)
    r.budget = args.budget or r.budget
    args.open_device()
    local rate, dispatch = bench.rate()
    local plan = plans.prepare(r)
    local sessions, phases, largest = session_rows(plan), residency.memory(plan)
    local memory, traded, steps, per_epoch = phases[largest].memory, budget.traded(plan), plan:steps(),
      plan:steps_per_epoch()
    local flops, dispatches = 0, 0
    for _, s in ipairs(sessions) do
      if s.name:match "^training" then flops, dispatches = math.max(flops, s.flops),
        math.max(dispatches, s.dispatches) end
    end
    local seconds = rate and (flops / rate + dispatches * dispatch) * r.accumulate
    if args.json then
      core.write_stdout(core.json_encode { memory = memory, phases = phases, traded = traded, settings = plan.settings,
        sessions = sessions, texts = plan.lengths, from = plan.start and plan.start.what,
        disk = space.need(plan),
        concepts = plan.data:summary(), images = plan.data:images(), steps = steps, steps_per_epoch = per_epoch,
        flops_per_step = flops * r.accumulate, seconds_per_step = seconds } .. "\n")
      return 0
    end
    local out = { "base   " .. reports.line(plan.model:look()) }
    if plan.start then out[#out + 1] = "from   " .. plan.start.what end
    local function row(name, bytes) out[#out + 1] = ("  %-34s %12s"):format(name, amounts.text(bytes)) end
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
    local disk, full = space.report(plan)
    out[#out + 1] = "disk   " .. disk
    if full then out[#out + 1] = "       " .. full end
    for i, text in ipairs(traded) do out[#out + 1] = (i == 1 and "traded " or "       ") .. text end
    out[#out + 1] = "sessions                                    arena   GFLOP  dispatches"
    for _, s in ipairs(sessions) do
      out[#out + 1] = ("  %-34s %12s %7.2f %11d"):format(s.name, amounts.text(s.arena), s.flops / 1e9, s.dispatches)
    end
    for i, survey in ipairs(plan.lengths) do
      local line, warnings = lengths.report(survey)
      out[#out + 1] = (i == 1 and "texts  " or "       ") .. line
      for _, text in ipairs(warnings) do out[#out + 1] = "       " .. text end
    end
    local first = "data   "
    for _, c in ipairs(plan.data:summary()) do
      for _, line in ipairs(concept_lines(c)) do
        out[#out + 1] = first .. line
        first = "       "
      end
    end
    for _, image in ipairs(args.images and plan.data:images() or {}) do out[#out + 1] = "       "
      .. image_line(image) end
    out[#out + 1] = ("steps  %d  (%d per epoch, batch %d x %d)"):format(steps, per_epoch, r.batch, r.accumulate)
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
