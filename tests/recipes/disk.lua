-- SPDX-License-Identifier: MIT
-- disk.lua - the part of runs_test.lua that is about disks: a training on one that fails or is full goes on, saves
-- later, waits for room, and ends in the bytes of an undisturbed run; or it ends with exit 74, and its resume does.
-- nth_call.c is preloaded, and the clock is ours, so that nobody waits.
local core = require "burin.core"
local C = dofile "tests/recipes/commands.lua"
local calls = dofile "tests/cli/calls.lua"
local T = dofile "tests/check.lua"

local place, STEPS, EIO, ENOSPC = calls.place, 18, 5, 28
local reasons = { [EIO] = "Input/output error", [ENOSPC] = "No space left on device" }
os.execute(("rm -rf '%s'; mkdir -p '%s'"):format(place, place))
calls.arrange(0, 0, 0)

-- A step takes three seconds; who sleeps is there at once. at_step: called behind the numbers of a step, before
-- anything of it is written.
local now, slept, step, at_step = 0, 0, 0, nil
local clock, sleep, allocated, free_space = core.clock, core.sleep, core.allocated_memory, core.free_space
function core.clock() return now end
function core.sleep(seconds) now, slept = now + seconds, slept + seconds end
function core.allocated_memory()  -- which each step looks at
  now, step = now + 3, step + 1
  if at_step then at_step(step) end
  return allocated()
end

local recipe = C.write(place .. ".lua", ([[
local burin = require "burin"
return burin.train { name = "x", base = burin.model "models/tiny-sd.safetensors", resolution = 32, steps = %d, seed = 7,
  concepts = { { images = "examples/sks-cat" } }, method = burin.lora { rank = 1, text_encoder = false },
  state = { every = 1, keep = 3 }, save = { every = 3 },
  sample = { every = 12, steps = 1, prompts = { "a photo of sks cat" } } }
]]):format(STEPS))
local function folder(name) return place .. "/" .. name .. "/x" end
local function train(name, ...)
  step, slept = 0, 0
  return C.run { "train", recipe, "--output", place .. "/" .. name, ... }
end
local function resume(name)
  at_step, core.free_space = nil, free_space
  local code, out = C.run { "resume", folder(name) }
  T.checkf(code == 0, "%s: resume: exit code %d: %s", name, code, out)
end

-- What a run has to end in: all of it but states on the way, which may be of other steps, and what says so.
local function files_of(name)
  local files = calls.snapshot(folder(name))
  for file in pairs(files) do
    local on_the_way = file:match "^state/step%-(%d+)" and tonumber(file:match "%d+") < STEPS
    if on_the_way or file == "run.json" or file == "events.jsonl" or file == ".lock" then files[file] = nil end
  end
  return files
end
local whole

-- without: { [name] = true } of files that have been left out.
local function is_whole(name, without)
  local wanted, files = {}, files_of(name)
  local left = calls.unfinished(files)
  T.checkf(not left, "%s: %s is left", name, left)
  for file, bytes in pairs(whole) do if not (without or {})[file] then wanted[file] = bytes end end
  local differs = calls.difference(wanted, files)
  T.checkf(differs == "", "%s: not as undisturbed: %s", name, differs)
end
local function events_of(name) return C.read(folder(name) .. "/events.jsonl") or "" end
local function says(what, out, ...)
  for _, text in ipairs { ... } do T.checkf(out:find(text, 1, true), "%s: '%s' does not say '%s'", what, out, text) end
end

-- ---- calls that fail once -------------------------------------------------------------------------------------------

-- The undisturbed run, and the calls that follow each of its steps.
local journal = {}
function at_step() journal[#journal + 1] = calls.look() end
at_step(0)
local code, out = train "whole"
at_step(0)
whole = files_of "whole"
T.checkf(code == 0 and events_of "whole" == "" and #journal > STEPS + 1, "the undisturbed run: %d %s", code, out)

-- In every step another call fails, of those that have not yet: one of each kind.
local met, faults, n_faults = {}, {}, 0
for s = STEPS, 1, -1 do
  for n, c in ipairs(journal[s + 2]) do
    local leaf = c.path:match "[^/]*$":gsub("%.hash", ""):gsub("%.tmp.*", "")
    local kind = c.call .. " " .. leaf:gsub("%-?%d+", "#"):gsub("##", "#")
    if not met[kind] and c.call ~= "mkdir" and c.path:find(folder "whole", 1, true) and not faults[s] then
      met[kind], faults[s], n_faults = true, { n = n, kind = kind, what = s % 2 == 0 and EIO or ENOSPC }, n_faults + 1
    end
  end
end
calls.look()
local unmet = {}
function at_step(s)
  for _, c in ipairs(calls.look()) do if c.fails then unmet[s - 1] = nil end end
  local fault = faults[s]
  if fault then unmet[s] = fault.kind end
  calls.arrange(fault and fault.n or 0, fault and fault.what or 0, fault and 1 or 0)
end
code, out = train("once", "--waits", ("0 "):rep(STEPS))
at_step(STEPS + 1)
calls.arrange(0, 0, 0)
T.checkf(code == 0 and n_faults == STEPS and slept == 0, "%d calls fail once: %d %s", n_faults, code, out)
T.checkf(not next(unmet), "step %s was not met by its failing %s", next(unmet))
is_whole "once"
local failed, saved = select(2, out:gsub("could not be saved", "")), select(2, out:gsub(": saved after ", ""))
print(("%d calls failed once, which %d saves did not survive; %d were made up for"):format(n_faults, failed, saved))
T.checkf(failed > n_faults / 2 and saved > 2, "%d failed, %d were made up for: %s", failed, saved, out)
says("calls that fail once", out, reasons[EIO], reasons[ENOSPC], folder "once" .. "/state/step-000000",
  folder "once" .. "/samples/step-0000", folder "once" .. "/x-0000", "cannot append to " .. folder "once"
  .. "/metrics.jsonl")
for _, what in ipairs { "save failed", "saved", "metrics delayed" } do
  T.checkf(events_of "once":find('"event": ?"' .. what .. '"'), "no '%s' among the events", what)
end

-- ---- for good -------------------------------------------------------------------------------------------------------

-- From a line of the metrics of step 12 on nothing can be written: the run goes on until it has tried often enough.
function at_step(s) if s == 12 then calls.arrange(1, ENOSPC, 1 << 20) end end
code, out = train "good"
calls.arrange(0, 0, 0)
T.checkf(code == 74, "a disk that fails for good: exit code %d: %s", code, out)
says("a disk that fails for good", out, reasons[ENOSPC], "tried again in 5 s (1 of 3)", "tried again in 30 s (2 of 3)",
  "tried again in 120 s (3 of 3)", "tried 4 times; the newest state is of step 11",
  "burin resume " .. folder "good", "this is not in " .. folder "good" .. "/events.jsonl")
resume "good"
is_whole "good"

-- ---- no room --------------------------------------------------------------------------------------------------------

-- The run's disk has this much left.
local left
local function free() return left end
function at_step(s)
  core.free_space = free
  left = s >= 12 and 1000 or 1 << 40
end
function core.sleep(seconds)
  now, slept = now + seconds, slept + seconds
  if step == 12 and slept > 10 then left = 1 << 40 end  -- somebody makes room
end
code, out = train("room", "--room-wait", "10")
T.checkf(code == 74 and step == 13 and slept > 600 and slept < 620, "a full disk: %d at step %d, %g s slept: %s", code,
  step, slept, out)
says("a full disk", out, "the samples of step 12 are left out", "the result needs 143.00 KiB in " .. folder "room"
  .. ", which has 1000 B left; the run waits for room, 10 minutes at most", "there is room in " .. folder "room"
  .. " again", "the state needs", "the newest state is of step 12")
for _, what in ipairs { "waiting for room", "room again", "samples left out" } do
  T.checkf(events_of "room":find('"event": ?"' .. what .. '"'), "no '%s' among the events", what)
end
resume "room"
is_whole("room", { ["samples/step-000012.png"] = true, ["samples/step-000012-01.png"] = true })

-- It is asked to stop meanwhile.
local stopping = core.stop_requested
function at_step()
  core.free_space, left = free, 1000
  function core.stop_requested() return slept > 1 end
end
code, out = train "stop"
core.stop_requested, core.free_space = stopping, free_space
T.checkf(code == 74 and slept < 3, "stopped while it waits: %d, %g s slept: %s", code, slept, out)
says("stopped while it waits", out, "stopped while it waited for room; the newest state is of step 0",
  "burin resume " .. folder "stop")

for _, line in ipairs { { "--waits", "soon" }, { "--waits", "-1" }, { "--room-wait", "-1" },
  { "--restarts", "0.5" } } do
  code, out = train("wrong", table.unpack(line))
  T.checkf(code == 2 and out:find(line[1], 1, true), "%s %s: %d %s", line[1], line[2], code, out)
end
core.clock, core.sleep, core.allocated_memory = clock, sleep, allocated
os.execute(("rm -rf '%s'"):format(place))
T.finish()
