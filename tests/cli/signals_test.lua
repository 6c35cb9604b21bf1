-- SPDX-License-Identifier: MIT
-- What ends a run from outside: a closing terminal, Ctrl-C once and twice, a reader that goes away.
--   lua5.4 tests/cli/signals_test.lua BURIN SCRATCH FAULTS.so
local T = dofile "tests/recipes/support.lua"
T.private_cache()
local FAULTS = assert(arg[3])

local function waiting(condition)
  return ("for i in $(seq 1200); do %s && break; sleep 0.05; done"):format(condition)
end
local function steps(folder, n) return ("[ $(cat %s/tiny/metrics.jsonl 2>/dev/null | wc -l) -ge %d ]"):format(folder,
  n) end

-- Starts burin, waits for a condition of the shell, then runs a line with $p: exit code, output.
local function during(line, before, condition, act)
  return T.shell(("%s %s %s & p=$!; %s; %s; wait $p"):format(before, T.quote(T.burin), line, waiting(condition), act))
end
local function unfinished(folder) return select(2, T.shell("find " .. folder .. " -name '*.tmp-*'")) end

local long = T.recipe("long", { steps = "4000" })

-- A terminal that closes: SIGHUP, from itself and from its shell.
local folder = T.folder "hup"
local code, out = during(("train %s --output %s"):format(long, folder), "env --default-signal=HUP", steps(folder, 2),
  "kill -HUP $p; kill -HUP $p")
T.check(code == 130 and out:find "stopped after step", "SIGHUP: %d %s", code, out)
local saved = tonumber((T.read(folder .. "/tiny/state/latest.json") or ""):match '"step": ?(%d+)')
T.check(saved and saved == #T.metrics(folder .. "/tiny", "step"), "SIGHUP: the state is of step %s", saved)

-- nohup: it was ignored and stays so.
folder = T.folder "nohup"
code, out = during(("train %s --output %s"):format(T.recipe("short", { steps = "12" }), folder),
  "env --ignore-signal=HUP", steps(folder, 2), "kill -HUP $p")
T.check(code == 0 and T.read(folder .. "/tiny/tiny.safetensors"), "nohup: %d %s", code, out)

-- Twice: at once, and no partial file. The disk takes ten seconds for each file meanwhile.
local slow = ("env --default-signal=INT LD_PRELOAD=%s FAULT='fsync 0 %%d 100'"):format(T.quote(FAULTS))
folder = T.folder "twice"
local began = os.time()
code, out = during(("train %s --output %s"):format(long, folder), slow:format(3),
  "[ -n \"$(find " .. folder .. "/tiny -name '*.tmp-*')\" ]", "kill -INT $p; sleep 0.1; kill -INT $p")
T.check(code == 130 and unfinished(folder) == "", "Ctrl-C twice: %d %s %s", code, out, unfinished(folder))
T.check(os.time() - began < 60, "Ctrl-C twice: it took %d s", os.time() - began)

-- Other commands end at the first, with nothing half written either: a file, and a folder with files in it.
for name, line in pairs { file = "--to single --dtype f16", folder = "--to diffusers" } do
  folder = T.folder("convert-" .. name)
  code, out = during(("convert models/tiny-sd.safetensors %s/x%s %s"):format(folder,
    name == "file" and ".safetensors" or "", line), slow:format(2 - (name == "file" and 1 or 0)),
    "[ -n \"$(find " .. folder .. " -name '*.tmp-*')\" ] && sleep 0.3", "kill -INT $p")
  local left = select(2, T.shell("find " .. folder .. " -mindepth 1"))
  T.check(code == 130 and left == "", "Ctrl-C in convert (%s): %d %s left: %s", name, code, out, left)
end

T.finish()
