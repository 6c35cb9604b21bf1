-- SPDX-License-Identifier: MIT
-- A run goes on with an edited recipe: every field of a recipe, taken from the schema itself, has a row here. Either it
-- changes nothing of the past, and the run goes on; or resuming is refused with the field, what it was and what it is,
-- nothing is trained, and --fork begins a new run from the state.
--   SCRATCH=folder burin run --trust tests/recipes/fields_test.lua
local options = require "burin.base.options"
local C = dofile "tests/recipes/commands.lua"
local T = dofile "tests/check.lua"

local schema
local plain = options.check
function options.check(what, given, rules, ...)
  if what == "burin.train" then schema = rules end
  return plain(what, given, rules, ...)
end

local place = assert(os.getenv "SCRATCH") .. "/fields"
os.execute(("rm -rf '%s'; mkdir -p '%s/pics' '%s/more'; cp examples/sks-cat/*/1-grass.png '%s/pics'; "
  .. "cp examples/sks-cat/*/2*.png '%s/more'"):format(place, place, place, place, place))

local function images(folder, prompt)
  return ("{ { images = %q, prompt = %q } }"):format(place .. "/" .. folder, prompt)
end
local usual = { name = '"x"', base = 'burin.model "models/tiny-sd.safetensors"', concepts = images("pics", "a cat"),
  method = "burin.lora { rank = 2, text_encoder = false }", resolution = "64", steps = "1" }
local function recipe(fields)
  local lines = {}
  for field, value in pairs(usual) do
    if not fields[field] then lines[#lines + 1] = ("  %s = %s,\n"):format(field, value) end
  end
  for field, value in pairs(fields) do lines[#lines + 1] = ("  %s = %s,\n"):format(field, value) end
  table.sort(lines)
  return C.write(place .. "/edited.lua", ('local burin = require "burin"\nreturn burin.train {\n%s}\n'):format(
    table.concat(lines)))
end

local steps = { epochs = 2, steps = 2 }  -- that the run has then; 1 otherwise
-- Of each field that may change: what it is.
local free = {
  steps = { steps = "2" }, epochs = { steps = "nil", epochs = "2" }, save = { save = '{ dtype = "f16" }' },
  sample = { sample = '{ prompts = { "a cat" }, steps = 1, every = 9 }' },
  state = { state = "{ every = 1, keep = 5 }" },
  output = { output = ("%q"):format(place .. "/elsewhere") }, on_nonfinite = { on_nonfinite = '"back"' },
  max_nonfinite = { max_nonfinite = "5" }, budget = { budget = '"8 GiB"' } }
-- Of each that may not: what it is, and what is said.
local bound = {
  vae = { { vae = '"models/tiny-sd.safetensors"' }, "vae was not set and is models/tiny-sd.safetensors" },
  concepts = { { concepts = images("pics", "a dog") }, "concepts[1].prompt was a cat and is a dog" },
  method = { { method = "burin.lora { rank = 2, alpha = 1, text_encoder = false }" }, "method.alpha was 2 and is 1" },
  from = { { from = ("%q"):format(place .. "/runs/x/x.safetensors") }, "from was not set and is " .. place },
  resolution = { { resolution = "32" }, "resolution was 64 and is 32" },
  buckets = { { buckets = "false" }, "buckets was true and is false" },
  batch = { { batch = "2" }, "batch was 1 and is 2" },
  accumulate = { { accumulate = "2" }, "accumulate was 1 and is 2" },
  seed = { { seed = "7" }, "seed was 0 and is 7" },
  optimizer = { { optimizer = "burin.adamw { lr = 3e-4 }" }, "optimizer.lr was 0.0001 and is 0.0003" },
  schedule = { { schedule = "burin.linear {}" }, "schedule.name was constant and is linear" },
  loss = { { loss = "burin.min_snr { gamma = 5 }" }, "loss.gamma was not set and is 5" },
  max_grad_norm = { { max_grad_norm = "2" }, "max_grad_norm was 1 and is 2" },
  precision = { { precision = '"f16"' }, "precision was f32 and is f16" },
  base_precision = { { base_precision = '"int8"' }, "base_precision was f32 and is int8" },
  clip_skip = { { clip_skip = "2" }, "clip_skip was not set and is 2" },
  max_tokens = { { max_tokens = "150" }, "max_tokens was not set and is 150" },
  weighted_captions = { { weighted_captions = "true" }, "weighted_captions was false and is true" },
  checkpoint = { { checkpoint = "true" }, "checkpoint was false and is true" },
  prediction = { { prediction = '"epsilon"' }, "prediction was not set and is epsilon" } }
-- Of each that has a way of its own to be refused: exit code, what is said.
local other = {
  name = { { name = '"y"' }, 65, "this is run 'x'", "of a run named 'y'" },
  base = { { base = ("burin.model %q"):format(place .. "/other.safetensors") }, 65, "the base has changed" } }

local function ends(argv, want, ...)
  local code, out = C.run(argv)
  T.checkf(code == want, "%s: exit code %d, not %d: %s", table.concat(argv, " "), code, want, out)
  for _, text in ipairs { ... } do T.checkf(out:find(text, 1, true), "'%s' does not say '%s'", out, text) end
  return out
end

local run = place .. "/runs/x"
ends({ "train", recipe {}, "--output", place .. "/runs" }, 0)
-- A base that differs in a bit.
local bytes = C.read "models/tiny-sd.safetensors"
C.write(place .. "/other.safetensors", bytes:sub(1, -2) .. string.char(bytes:byte(-1) ~ 1))

local function sums()
  local pipe <close> = io.popen(("cd '%s' && find . -type f | sort | xargs sha256sum"):format(run))
  return pipe:read "a"
end
local untouched = sums()

for field in pairs(schema) do
  local rows = (free[field] and 1 or 0) + (bound[field] and 1 or 0) + (other[field] and 1 or 0)
  T.checkf(rows == 1, "the field %s has %d rows", field, rows)
end
local function each(rows, f)
  local fields = {}
  for field in pairs(rows) do fields[#fields + 1] = field end
  table.sort(fields)
  for _, field in ipairs(fields) do
    T.checkf(schema[field], "there is no field %s", field)
    f(field, rows[field])
  end
end

each(free, function(field, fields)
  local copy = ("%s/%s/x"):format(place, field)
  os.execute(("mkdir -p '%s/%s'; cp -r '%s' '%s'"):format(place, field, run, copy))
  ends({ "resume", copy, "--recipe", recipe(fields) }, 0)
  local _, done = C.read(copy .. "/metrics.jsonl"):gsub("\n", "")
  T.checkf(done == (steps[field] or 1), "%s: %d steps", field, done)
end)
T.check(not C.read(place .. "/elsewhere/x/run.json"), "an edited output moves the run")

each(bound, function(field, row)
  local out = ends({ "resume", run, "--recipe", recipe(row[1]) }, 78, row[2], "--fork NAME")
  T.checkf(not out:find("steps in", 1, true), "%s: trained: %s", field, out)
  T.checkf(sums() == untouched, "%s: what was refused has changed the run", field)
  ends({ "resume", run, "--recipe", recipe(row[1]), "--fork", "fork-" .. field }, 0, row[2])
  T.checkf(C.read(("%s/runs/fork-%s/fork-%s.safetensors"):format(place, field, field)), "%s: no fork", field)
  T.checkf(sums() == untouched, "%s: a fork has changed the run", field)
end)

each(other, function(field, row)
  ends({ "resume", run, "--recipe", recipe(row[1]) }, table.unpack(row, 2))
  T.checkf(sums() == untouched, "%s: what was refused has changed the run", field)
end)
ends({ "resume", run, "--recipe", recipe(other.base[1]), "--fork", "fork-base" }, 0, "the base has changed")
-- Other pictures under the same settings.
ends({ "resume", run, "--recipe", recipe { concepts = images("more", "a cat") } }, 65,
  "the pictures or captions have changed")
os.execute(("rm -rf '%s'"):format(place))
T.finish()
