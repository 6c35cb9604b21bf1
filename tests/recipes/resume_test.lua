-- SPDX-License-Identifier: MIT
-- Kills runs with SIGKILL, resumes them twice, and wants every file equal to the uninterrupted run's, byte for byte:
-- the LoRA, the training state, the metrics, the class images, the samples. Moments are random but seeded; some are
-- chosen to hit a file while it is being written. BURIN_KILLS sets the number of random kills (4: 2 runs are killed,
-- resumed, killed again and resumed; scripts/dev/kill_chains.lua makes many more), BURIN_CHAIN how many of them a run
-- meets (2).
-- Then the device is lost (vulkan_call.c), and the run goes on by itself.
--   lua5.4 tests/recipes/resume_test.lua BURIN SCRATCH VULKAN_CALL.so
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
local kills, in_a_row = tonumber(os.getenv "BURIN_KILLS" or 4), tonumber(os.getenv "BURIN_CHAIN" or 2)
math.randomseed(20240229)

local recipe = T.recipe("resume", {
  concepts = '{ { images = "examples/sks-cat", prior = { prompt = "a photo of a cat", count = 4, steps = 1 } } }',
  steps = "8",
  sample = '{ every = "3 steps", steps = 1, batch = 2, prompts = { "a photo of sks cat", "a cat" } }',
  save = '{ every = "4 steps" }', state = '{ every = "2 steps" }',
})

local reference = T.folder "reference"
local function train(folder) return ("train %s --quiet --output %s"):format(T.quote(recipe), T.quote(folder)) end
local function resume(folder) return ("resume --quiet %s"):format(T.quote(folder .. "/tiny")) end

-- Words before burin: the n-th submission to the device fails because it is lost, in so many processes.
local SHIM = assert(arg[3], "usage: resume_test.lua BURIN SCRATCH VULKAN_CALL.so")
local function losing(n, times)
  local order = T.write(T.scratch .. "/order", ("vkQueueSubmit %d -4 %d"):format(n, times))
  return ("VULKAN_ORDER=%s LD_PRELOAD=%s"):format(T.quote(order), T.quote(SHIM))
end

local code, out = T.run(train(reference))
T.check(code == 0, "the uninterrupted run ends with %d: %s", code, out)
local again = T.folder "again"
code, out = T.shell(("%s %s %s; code=$?; times; exit $code"):format(losing(0, 0), T.quote(T.burin), train(again)))
local submits = tonumber(out:match "(%d+) calls of vkQueueSubmit")  -- half of them lie before step 4
-- Moments are counted in processor time, in hundredths of a second: wall time says little on a busy machine.
local total = 0
for minutes, s in out:match("[^\n]*\n$"):gmatch "(%d+)m([%d.]+)s" do total = total + 6000 * minutes + 100 * s end
T.check(code == 0 and T.difference(reference .. "/tiny", again .. "/tiny") == "", "a second run differs: %s", out)

-- What a run was doing, as far as its folder tells.
local function whereabouts(folder)
  local run = folder .. "/tiny"
  local function count(what)
    local _, n = T.shell(("ls -A %s 2>/dev/null | wc -l"):format(what))
    return math.tointeger(tonumber(n)) or 0
  end
  local half = count(run .. "/*.tmp-* " .. run .. "/*/*.tmp-*")
  return ("step %d, %d class images, %d samples, state %s%s"):format(#T.metrics(run, "step"),
    count(run .. "/prior-*/*.png"),
    count(run .. "/samples/*.png"), (T.read(run .. "/state/latest.json") or "none"):match '"step": ?(%d+)' or "none",
    half > 0 and ", a file half written" or "")
end

-- Starts or continues a run, which is killed by `how`. Before run.json is there, starting again is all one can do.
local function go_on(folder, how)
  local line = T.read(folder .. "/tiny/run.json") and resume(folder) or train(folder)
  return how(line)
end

-- Kills after that many steps in the metrics and then so many hundredths of a second of processor time.
local function after(steps, hundredths)
  return function(line)
    return T.shell(([[%s %s & p=$!; m=%s/chain/tiny/metrics.jsonl
      used() { set -- $(cat /proc/$p/stat 2>/dev/null) 0; echo $((${14:-0} + ${15:-0})); }
      while kill -0 $p 2>/dev/null && [ $(cat $m 2>/dev/null | wc -l) -lt %d ]; do sleep 0.005; done
      from=$([ %d -gt 0 ] && used || echo 0)
      while kill -0 $p 2>/dev/null; do [ $(used) -ge $((from + %d)) ] && kill -9 $p 2>/dev/null; sleep 0.005; done
      wait $p]]):format(T.quote(T.burin), line, T.scratch, steps, steps, math.floor(hundredths)))
  end
end

-- Kills as soon as a file of that pattern exists.
local function when(pattern)
  return function(line)
    return T.shell(([[%s %s & p=$!; while kill -0 $p 2>/dev/null; do for f in %s; do
      [ -e "$f" ] && kill -9 $p 2>/dev/null && break 2; done; done; wait $p]]):format(T.quote(T.burin), line, pattern))
  end
end

local met = 0
local function chain(label, ...)
  local folder = T.folder "chain"
  local report = {}
  for i, how in ipairs { ... } do
    local c, text = go_on(folder, how)
    T.check(c == 137 or c == 0, "%s: kill %d ends with %d: %s", label, i, c, text)
    met = met + (c == 137 and 1 or 0)
    report[i] = (c == 137 and "killed at " or "not met, ended at ") .. whereabouts(folder)
  end
  print(("%-28s %s"):format(label, table.concat(report, "; then ")))
  local c, text = go_on(folder, T.run)
  T.check(c == 0, "%s: the last resume ends with %d: %s", label, c, text)
  local wrong = T.difference(reference .. "/tiny", folder .. "/tiny")
  T.check(wrong == "", "%s: %s", label, wrong)
end

-- Half of the moments lie anywhere in a run, most of which is its start; the other half lie between steps.
local function random_moment(i)
  if i % 2 == 0 then return after(0, total * (0.05 + 0.7 * math.random())) end
  return after(math.random(7), 30 * math.random())
end
for i = 1, kills // in_a_row do
  local moments = {}
  for k = 1, in_a_row do moments[k] = random_moment(k == 1 and i // 2 or i + k) end
  chain("random " .. i, table.unpack(moments))
end
local run = T.scratch .. "/chain/tiny"
chain("class image, state", when(run .. "/prior-*/*.tmp-*"), when(run .. "/state/step-*.tmp-*"))
T.shell("rm -rf " .. T.quote(T.burin_cache))  -- otherwise no latents are written
chain("latents, sample", when(T.burin_cache .. "/latents/*/*.tmp-*"), when(run .. "/samples/*.tmp-*"))
chain("latest.json, result", when(run .. "/state/latest.json.tmp-*"), when(run .. "/tiny.safetensors.tmp-*"))

print(("%d kills"):format(met))
T.check(met >= kills * 0.8, "only %d of %d kills met a running process", met, kills + 6)

-- SIGTERM finishes the step and saves; what follows is the same run.
local folder = T.folder "chain"
code, out = T.shell(([[%s %s & p=$!; while ! grep -q '"step": \?3[,}]' %s/metrics.jsonl 2>/dev/null; do sleep 0.02; done
  kill -TERM $p; wait $p]]):format(T.quote(T.burin), train(folder), run))
T.check(code == 130, "SIGTERM: exit code %d: %s", code, out)
T.check(out:find("stopped after step", 1, true) and out:find("burin resume", 1, true), "SIGTERM says: %s", out)
local stopped = tonumber(out:match "step (%d+)")
T.check((T.read(run .. "/state/latest.json") or ""):match(('"step": ?%d[,}]'):format(stopped)),
  "SIGTERM: no state of step %d", stopped)
code, out = T.run(resume(folder))
T.check(code == 0 and T.difference(reference .. "/tiny", run) == "", "after SIGTERM: %s %s", out,
  T.difference(reference .. "/tiny", run))

-- A device that is lost between two states: the run goes on by itself, and nothing but its events tells.
folder = T.folder "chain"
code, out = T.run(train(folder) .. " --waits 0.1", losing(submits // 2, 1))
local events = T.read(run .. "/events.jsonl") or ""
local step = tonumber(events:match '"step": ?(%d+)')
T.check(code == 0 and step and step > 0 and step < 8
  and events:find "goes on by itself from its state of step %d in 0.1 s"
  and events:find "the last work it was given is program", "a lost device: %d %s %s", code, out, events)
os.remove(run .. "/events.jsonl")
T.check(T.difference(reference .. "/tiny", run) == "", "after a lost device, at step %s: %s", step,
  T.difference(reference .. "/tiny", run))
-- One that is lost again and again: the run ends once it has gone on often enough.
folder = T.folder "chain"
code, out = T.run(train(folder) .. " --waits 0.1 --restarts 1", losing(5, 9))
events = T.read(run .. "/events.jsonl") or ""
T.check(code == 75 and select(2, out:gsub("was lost", "")) == 2
  and events:find("it went on by itself 1 time. It can go on from its beginning", 1, true),
  "a device that is lost for good: %d %s %s", code, out, events)
T.finish()
