-- SPDX-License-Identifier: MIT
-- Runs that go on with other settings: what may change does, what may not is named, a fork takes everything; and the
-- names that runs may have.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
T.in_one_process()

local pics, runs = T.folder "pics", T.folder "runs"
T.shell(("cp examples/sks-cat/*/1-grass.png %s/"):format(T.quote(pics)))
local function recipe(file, fields)
  local usual = { name = '"x"', concepts = ("{ { images = %q, prompt = 'a cat' } }"):format(pics), batch = "1",
    steps = "2", state = "{ every = 1, keep = 9 }", save = "{ every = 2 }" }
  for name, value in pairs(fields or {}) do usual[name] = value end
  return T.quote(T.recipe(file, usual))
end
local function ends(line, want, ...)
  local code, out = T.run(line)
  T.check(code == want, "burin %s: exit code %d, not %d: %s", line, code, want, out)
  for _, text in ipairs { ... } do T.check(out:find(text, 1, true), "burin %s: '%s' does not say '%s'", line, out,
    text) end
  return out
end

-- ---- more steps -----------------------------------------------------------------------------------------------------

local short = recipe "short"
local run, direct = runs .. "/short/x", runs .. "/direct/x"
ends(("train %s --quiet --output %s/short"):format(short, runs), 0)
ends(("train %s --quiet --output %s/direct"):format(recipe("direct", { steps = "4" }), runs), 0)
local out = ends(("resume %s --steps 4"):format(run), 0, "4 steps in all instead of 2; going on after step 2")
T.check(not out:find("learning rate follows", 1, true), "a constant rate does not follow from the steps: %s", out)
local function same(what)
  for _, file in ipairs { "x.safetensors", "x-000002.safetensors", "metrics.jsonl", "state/step-00000003.safetensors",
    "state/step-00000004.safetensors" } do
    local text = T.read(run .. "/" .. file)
    T.check(text and text == T.read(direct .. "/" .. file), "%s: %s is not as in a run of 4 steps", what, file)
  end
end
same "--steps 4"
-- The command line is remembered.
T.shell(("rm %s/x.safetensors %s/state/*4.safetensors %s/state/latest.json"):format(run, run, run))
ends(("resume %s --quiet"):format(run), 0)
same "resumed without --steps"
ends(("resume %s --epochs 5"):format(run), 0, "5 steps in all instead of 4")
T.check(#T.metrics(run, "step") == 5, "5 epochs of a picture make %d steps", #T.metrics(run, "step"))
ends(("resume %s --steps 3"):format(run), 78, "has done 5 steps already, which is more than 3")
ends(("resume %s --steps 0"):format(run), 2, "--steps needs a whole number")
ends(("resume %s --epochs 0"):format(run), 2, "--epochs needs a number above 0")
ends(("resume %s --steps 6 --epochs 6"):format(run), 2, "not both")

-- What a recipe may take of the processor begins anew with each step: here 6 take more than one may.
ends(("train %s --quiet --output %s/slow --recipe-time 0.6"):format(recipe("slow", { steps = "6", save = "{}",
  state = "{}", schedule = "burin.schedule('slow', function() for i = 1, 2e7 do end return 1 end)" }), runs), 0)

-- ---- an edited recipe -----------------------------------------------------------------------------------------------

local edited = recipe("edited", { steps = "6", save = "{ dtype = 'f16' }" })
ends(("train %s --output %s/short"):format(edited, runs), 73, "steps was not set and is 6",
  "save.dtype was f32 and is f16",
  "save.every was 2 and is not set", "--recipe")
ends(("resume %s --recipe %s"):format(run, edited), 0, "6 steps in all instead of 5")
T.check(T.read(run .. "/recipe.lua") == T.read(T.scratch .. "/edited.lua"), "the edited recipe is not kept")
local other = recipe("other", { steps = "7", schedule = "burin.linear {}", optimizer = "burin.adamw { lr = 1e-3 }" })
ends(("resume %s --recipe %s"):format(run, other), 78, "schedule.name was constant and is linear",
  "optimizer.lr was 0.002 and is 0.001", "--fork")
T.check(T.read(run .. "/recipe.lua") == T.read(T.scratch .. "/edited.lua"), "a refused recipe is kept")
ends(("resume %s --recipe %s/none.lua"):format(run, runs), 66, "no such recipe")

-- ---- forks ----------------------------------------------------------------------------------------------------------

T.shell(("cp -r %s %s/before"):format(run, runs))
local fork = runs .. "/short/y"
ends(("resume %s --recipe %s --fork y"):format(run, other), 0, "schedule.name was constant and is linear")
T.check(T.difference(run, runs .. "/before") == "", "a fork changes its origin: %s",
  T.difference(run, runs .. "/before"))
T.check(T.read(fork .. "/y.safetensors") and #T.metrics(fork, "step") == 7, "the fork has no result or %d steps",
  #T.metrics(fork, "step"))
T.check((T.read(fork .. "/metrics.jsonl") or ""):sub(1, 9) == T.read(run .. "/metrics.jsonl"):sub(1, 9),
  "metrics of the fork")
ends(("resume %s --recipe %s --fork y"):format(run, other), 73, "exists: a fork is a new run")
ends(("resume %s --fork ../z"):format(run), 2, "letters, digits")
ends(("resume %s --fork state"):format(run), 2, "holds something of this name")
-- It is a run like others; its rates fall with the number of steps.
ends(("resume %s --steps 8"):format(fork), 0, "the learning rate follows from the number of steps",
  fork .. "/y.safetensors")

-- ---- folders of others ----------------------------------------------------------------------------------------------

local foreign = T.folder "runs/foreign/x"
T.write(foreign .. "/recipe.lua", "mine")
for _, more in ipairs { "", " --force" } do
  ends(("train %s --output %s/foreign%s"):format(short, runs, more), 73,
    "foreign/x exists and is not the folder of a run")
end
T.shell(("cp -r %s %s/short/z"):format(foreign, runs))
ends(("resume %s --fork z"):format(run), 73, "short/z exists and is not the folder of a run")
T.check(T.read(foreign .. "/recipe.lua") == "mine" and T.read(runs .. "/short/z/recipe.lua") == "mine",
  "a file of others is gone")

-- ---- names and times ------------------------------------------------------------------------------------------------

for name, says in pairs { ["_x"] = "begins with a letter or a digit", ["-x"] = "begins with a letter or a digit",
  [".x"] = "begins",
  [".."] = "begins with a letter", state = "of this name", samples = "of this name", recipe = "of this name",
    Metrics = "of this name",
  ["run.json"] = "of this name", ["recipe.lua"] = "of this name", ["prior-1-x"] = "of this name",
  ["x.tmp-1-2"] = "of this name" } do
  ends("plan " .. recipe("name", { name = ("%q"):format(name) }), 78, "name.lua:", "name '" .. name .. "'", says)
end
for _, field in ipairs { { steps = "", epochs = "0" }, { save = "{ every = 0 }" }, { save = "{ every = -5 }" },
  { state = "{ every = '0 steps' }" }, { sample = "{ every = 0, prompts = { 'a cat' } }" } } do
  ends("plan " .. recipe("time", field), 78, "time.lua:")
end
T.finish()
