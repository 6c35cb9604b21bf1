-- SPDX-License-Identifier: MIT
-- Many short runs in one process.
-- `from`: a training begins from a file. The picture before its first step is the one after the last step of the run
-- that wrote the file; without a learning rate what comes out is what went in, whatever the spelling; what does not
-- agree with the recipe is an error that names both values.
-- Nothing of the environment gets into what they write.
-- Resuming: with a clock that was set back, and at the cost that it has, whatever the step is.
-- Disks that fail or are full: disk.lua.
--   SCRATCH=folder burin run --trust tests/recipes/runs_test.lua
local core = require "burin.core"
local C = dofile "tests/recipes/commands.lua"
local T = dofile "tests/check.lua"

local MODEL = "models/tiny-sd.safetensors"
local place = assert(os.getenv "SCRATCH") .. "/runs"
os.execute(("rm -rf '%s'; mkdir -p '%s'"):format(place, place))
local runs = place .. "/runs"

local read, write = C.read, C.write
local function recipe(name, fields)
  local usual = { name = ('"%s"'):format(name), base = ('burin.model "%s"'):format(MODEL), resolution = "64",
    concepts = '{ { images = "examples/sks-cat" } }', seed = "7", steps = "1", optimizer = "burin.adamw { lr = 2e-3 }",
    method = "burin.lora { rank = 2, alpha = 2, text_encoder = false }", save = "{ dtype = 'f32' }",
    sample = '{ steps = 1, prompts = { "a photo of sks cat" } }' }
  for field, value in pairs(fields or {}) do usual[field] = value end
  local lines = {}
  for field, value in pairs(usual) do lines[#lines + 1] = ("  %s = %s,\n"):format(field, value) end
  table.sort(lines)
  return write(("%s/%s.lua"):format(place, name), ('local burin = require "burin"\nreturn burin.train {\n%s}\n'):format(
    table.concat(lines)))
end
local function ends(argv, want, ...)
  local code, out = C.run(argv)
  local line = table.concat(argv, " ")
  T.checkf(code == want, "burin %s: exit code %d, not %d: %s", line, code, want, out)
  for _, text in ipairs { ... } do
    T.checkf(out:find(text, 1, true), "burin %s: '%s' does not say '%s'", line, out, text)
  end
end
local function train(name, fields, ...)
  ends({ "train", recipe(name, fields), "--output", runs }, 0, ...)
  return ("%s/%s"):format(runs, name)
end
local function same(a, b, what)
  local x, y = read(a), read(b)
  T.checkf(x and x == y, "%s: %s is not %s", what, b, a)
end
-- Two LoRAs are one when the models that they are merged into are.
local function merged(lora, name)
  local path = ("%s/%s.safetensors"):format(place, name)
  ends({ "merge", MODEL, lora, path }, 0)
  return path
end
local function quoted(path) return ("%q"):format(path) end
local still = "burin.adamw { lr = 1e-30 }"  -- less than what rounding keeps; nothing at all is refused

-- ---- adapters -------------------------------------------------------------------------------------------------------

local first = train("first", { steps = "2" })
local lora = first .. "/first.safetensors"
local hash = core.sha256_file(lora)
local second = train("second", { seed = "8", optimizer = still, from = quoted(lora) }, "beginning from " .. lora,
  "a LoRA of rank 2")
same(first .. "/samples/step-000002-01.png", second .. "/samples/step-000000-01.png", "the sample before step 1")
T.check(read(first .. "/samples/step-000000-01.png") ~= read(second .. "/samples/step-000000-01.png"),
  "two steps change no sample")
local whole = merged(lora, "merged-first")
same(whole, merged(second .. "/second.safetensors", "merged-second"), "without a learning rate")

-- The run keeps the file's hash, and needs the file no more.
T.check(read(second .. "/run.json"):find(hash, 1, true), "run.json lacks the file's hash")
os.execute(("cp -r '%s' '%s/kept'; mv '%s' '%s.away'"):format(second, runs, lora, lora))
ends({ "resume", runs .. "/kept", "--steps", "2" }, 0, "which this run began from, is not there any more")
os.rename(lora .. ".away", lora)
for _, run in ipairs { second, runs .. "/kept" } do
  local text = read(run .. "/second.safetensors")
  T.check(text:find('"burin.from":"first.safetensors"', 1, true) and text:find(hash, 1, true),
    "the metadata do not say what it began from", run)
end
local fields = { steps = "3", seed = "8", optimizer = still, name = '"second"' }
ends({ "resume", second, "--recipe", recipe("without", fields) }, 78, ("from was %s and is not set"):format(lora))
fields.from = quoted(MODEL)
ends({ "resume", second, "--recipe", recipe("another", fields) }, 78, "and is models/tiny-sd.safetensors")
fields.from = quoted(place .. "/copy.safetensors")  -- the same bytes elsewhere
os.execute(("cp '%s' '%s/copy.safetensors'"):format(lora, place))
ends({ "resume", second, "--recipe", recipe("copied", fields) }, 0)

-- Another spelling.
ends({ "convert", lora, place .. "/spelled", "--to", "peft", "--base", MODEL }, 0)
local third = train("third", { optimizer = still, from = quoted(place .. "/spelled") }, "a LoRA of rank 2")
same(whole, merged(third .. "/third.safetensors", "merged-third"), "from a folder of PEFT's")

-- ---- what does not agree --------------------------------------------------------------------------------------------

local function refused(change, code, ...)
  change.from = change.from or quoted(lora)
  ends({ "train", recipe("wrong", change), "--output", runs }, code, ...)
end
refused({ method = "burin.lora { rank = 1, alpha = 2, text_encoder = false }" }, 78, "wrong.lua:",
  "'rank' is 1 in the recipe and 2 in the file", "burin resize " .. lora .. " OUT --rank 1")
refused({ method = "burin.lora { rank = 4, alpha = 2, text_encoder = false }" }, 78,
  "'rank' is 4 in the recipe and 2 in the file", "write rank = 2", "never greater")
refused({ method = "burin.lora { rank = 2, alpha = 1, text_encoder = false }" }, 78,
  "'alpha' is 1 in the recipe and 2 in the file")
refused({ method = "burin.lora { rank = 2 }" }, 78, "'text_encoder' is true in the recipe, and the file lacks")
refused({ method = "burin.locon { rank = 2, text_encoder = false }" }, 78,
  "'conv_rank' is 2 in the recipe, and the file lacks")
refused({ method = "burin.lora { rank = 2, unet = false }" }, 78,
  "'unet' is false in the recipe, and the file has", "that would be lost")
refused({ method = "burin.full {}" }, 78, "'method' is full in the recipe, and the file is a LoRA")
refused({ from = quoted(MODEL) }, 78, "'method' is lora in the recipe, and the file is no adapter")
refused({ from = '"none.safetensors"' }, 66, "none.safetensors", "no such file")
refused({ from = '"examples/sks-cat"' }, 78, "the file is no adapter")
refused({ from = "7" }, 78, "'from' must be a string")
-- A weight that is no number, of a file without sums: found when it is loaded. With sums it is a damaged tensor.
ends({ "convert", lora, place .. "/plain.safetensors", "--metadata", "none", "--base", MODEL }, 0)
for file, says in pairs { [place .. "/plain.safetensors"] = "NaN", [lora] = "does not match its sum" } do
  write(place .. "/nan.safetensors", read(file):sub(1, -5) .. "\0\0\xc0\x7f")
  refused({ from = quoted(place .. "/nan.safetensors") }, 65, "nan.safetensors", says)
end

-- ---- full training --------------------------------------------------------------------------------------------------

local tuned = train("tuned", { method = "burin.full {}" })
local checkpoint = tuned .. "/tuned.safetensors"
local on = train("on", { method = "burin.full {}", optimizer = still, from = quoted(checkpoint) },
  "beginning from " .. checkpoint, "unet")
same(tuned .. "/samples/step-000001-01.png", on .. "/samples/step-000000-01.png", "a checkpoint's sample before step 1")
refused({ method = "burin.full {}", from = quoted "tests/golden/tiny_sd1/model_ldm.safetensors" }, 78,
  "'prediction' is v of the base and epsilon of the file")
refused({ method = "burin.full {}", from = quoted "tests/golden/tiny_sdxl/model_ldm.safetensors" }, 78, "the base is",
  "and the file is SDXL")

-- ---- the clock ------------------------------------------------------------------------------------------------------

local long = { steps = "4", sample = "nil", state = "{ every = 1, keep = 9 }" }
local direct, stopped = train("direct", long), runs .. "/stopped"
os.execute(("cp -r '%s' '%s'; cd '%s'; rm direct.safetensors state/*3.safetensors state/*4.safetensors"):format(direct,
  stopped, stopped))
-- Newer states are older by their dates, and it is 1999.
os.execute(("cd '%s/state'; touch -d 1999-01-03 *0.safetensors; touch -d 1999-01-02 *1.safetensors; "
  .. "touch -d 1999-01-01 *2.safetensors; printf '{' >latest.json"):format(stopped))
local date = core.date
function core.date() return "1999-01-01T00:00:00Z", 915148800 end
ends({ "resume", stopped }, 0, "step-00000002.safetensors")
core.date = date
for _, file in ipairs { "direct.safetensors", "metrics.jsonl", "state/step-00000004.safetensors",
  "state/latest.json" } do same(direct .. "/" .. file, stopped .. "/" .. file, "with a clock that was set back") end

-- ---- what resuming costs --------------------------------------------------------------------------------------------

local state = require "burin.base.state"
-- Seconds of processor time from the command to the end of one further step, behind a step that the state says.
local function cost(step)
  local run = runs .. "/direct"
  local info, file, path = state.latest(run .. "/state")
  local variables = {}
  for name in pairs(info.hashes) do
    local t = file:read(name)
    variables[#variables + 1] = { name, { read = function() return t end } }
  end
  table.sort(variables, function(a, b) return a[1] < b[1] end)
  local lines = ('{"epoch": 0, "grad_norm": 0.1, "loss": 0.5, "lr": 0.002, "step": 1}\n'):rep(step)
  info.step, info.steps_in_all, info.metrics = step, step + 1, #lines
  state.save(run .. "/state", step, variables, info, 1)
  write(run .. "/metrics.jsonl", lines)
  long.steps = tostring(step + 1)
  long.name = '"direct"'
  local edited, began = recipe("edited", long), os.clock()
  ends({ "resume", run, "--recipe", edited }, 0)
  local seconds = os.clock() - began
  T.check(#read(run .. "/metrics.jsonl") > #lines, "no step was done after", path)
  return seconds
end
local early, late = cost(10), cost(1000000)
print(("resuming at step 10: %.2f s, at step 1,000,000: %.2f s"):format(early, late))
-- ---- secrets --------------------------------------------------------------------------------------------------------

if os.getenv "HF_TOKEN" then
  local pipe = io.popen(("cd '%s'; ls | wc -l; grep -rl canary4711 . '%s'; grep -rl %s ."):format(place,
    assert(os.getenv "BURIN_CACHE"), "Y2FuYXJ5NDcxM"))  -- the latter in base64
  T.check(pipe:read "n" > 10 and not pipe:read "a":find "%S", "a secret of the environment is in a file of a run")
  pipe:close()
end
T.checkf(late < early + 2, "resuming at step 1,000,000 takes %.1f s, at step 10 %.1f s", late, early)
os.execute(("rm -rf '%s'"):format(place))
dofile "tests/recipes/disk.lua"
T.finish()
