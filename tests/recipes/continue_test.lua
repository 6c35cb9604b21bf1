-- SPDX-License-Identifier: MIT
-- What a run goes on from: its folder, wherever that lies, and what was kept in it. A run without a state is an error,
-- a recipe that has changed is told field by field.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()

local _, root = T.shell "pwd"
root = root:match "[^\n]*"
if T.burin:sub(1, 1) ~= "/" then T.burin = root .. "/" .. T.burin end
local project = T.folder "project"
if project:sub(1, 1) ~= "/" then project = root .. "/" .. project end
T.shell(("mkdir -p %s/pics %s/help; cp %s/examples/sks-cat/*/1-grass.png %s/pics/; ln -s %s/models %s/models"):format(
  T.quote(project), T.quote(project), T.quote(root), T.quote(project), T.quote(root), T.quote(project)))

-- A recipe whose paths are relative, and which requires a file beside it.
local function recipe(fields)
  return ([[local burin = require "burin"
local numbers = require "help.numbers"
local scale = 1
return burin.train { name = "x", base = burin.model "models/tiny-sd.safetensors",
  concepts = { { images = "pics", prompt = "a cat" } },
  method = burin.lora { rank = numbers.rank, text_encoder = false },
  resolution = 64, seed = 1, state = { every = 1, keep = 8 },
  loss = burin.loss { name = "mine", weight = function(snr) return scale * math.min(1, snr) end }, %s }
]]):format(fields or "steps = 2")
end
T.write(project .. "/r.lua", recipe())
T.write(project .. "/help/numbers.lua", "return { rank = 2 }")

-- Runs burin in a folder (the project's): exit code, output.
local function burin(line, folder)
  return T.shell(("cd %s && %s %s"):format(T.quote(folder or project), T.quote(T.burin), line))
end
local function ends(code, out, want, ...)
  T.check(code == want, "exit code %d, not %d: %s", code, want, out)
  for _, text in ipairs { ... } do T.check(out:find(text, 1, true), "'%s' does not say '%s'", out, text) end
end
local function result(folder) return T.read(folder .. "/x.safetensors") end

local code, out = burin "train r.lua --quiet --output A"
ends(code, out, 0)
local whole = result(project .. "/A/x")
T.check(T.read(project .. "/A/x/recipe/help/numbers.lua") == "return { rank = 2 }", "the required file is not kept")

-- ---- moved, copied, and what it needs changed behind its back -------------------------------------------------------

-- Goes back to the state of step 1.
local function rewind(run)
  T.shell(("rm -f %s/x.safetensors %s/state/step-00000002*"):format(T.quote(run), T.quote(run)))
  T.write(run .. "/state/latest.json", '{"file": "step-00000001.safetensors", "step": 1}\n')
end
T.shell(("cd %s; mv A B; cp -r B/x B/copy"):format(T.quote(project)))
T.write(project .. "/help/numbers.lua", "return { rank = 4 }")
local moved = project .. "/B/x"
rewind(moved)
code, out = burin("resume " .. T.quote(moved), "/")
ends(code, out, 0, "relative paths of the recipe are taken from " .. project)
T.check(result(moved) == whole, "moved: another result")
T.check(not T.read(project .. "/A/x/run.json"), "moved: a run at the old place")
rewind(project .. "/B/copy")
code, out = burin "resume B/copy --quiet"
ends(code, out, 0)
T.check(result(project .. "/B/copy") == whole, "copied: another result")
T.check(T.difference(moved, project .. "/B/copy") == "", "the copy differs: %s",
  T.difference(moved, project .. "/B/copy"))

T.write(moved .. "/recipe/help/numbers.lua", "return { rank = 2, }")
code, out = burin "resume B/x"
ends(code, out, 78, "help/numbers.lua, which it requires, is another file")
T.write(moved .. "/recipe/help/numbers.lua", "return { rank = 2 }")

-- ---- a recipe that has changed --------------------------------------------------------------------------------------

local function edited(text, from, to)
  local at, last = text:find(from, 1, true)
  return text:sub(1, at - 1) .. to .. text:sub(last + 1)
end
local kept = T.read(moved .. "/recipe.lua")
local changed = edited(edited(kept, "seed = 1", "seed = 2, optimizer = burin.adamw { lr = 3e-4 }"),
  "rank = numbers.rank", "rank = 3")
T.write(moved .. "/recipe.lua", changed)
code, out = burin "resume B/x"
ends(code, out, 78, "the recipe has changed", "seed was 1 and is 2", "optimizer.lr was 0.0001 and is 0.0003",
  "method.rank was 2 and is 3", "method.alpha was 2 and is 3")
T.check(not out:find("loss", 1, true), "the loss is the same: %s", out)
for from, to in pairs { ["math.min(1, snr)"] = "math.min(2, snr)", ["scale = 1"] = "scale = 2" } do
  T.write(moved .. "/recipe.lua", edited(kept, from, to))
  code, out = burin "resume B/x"
  ends(code, out, 78, "the function loss.weight is another one")
end
-- The text may look otherwise.
T.write(moved .. "/recipe.lua", "-- a comment\n\n" .. edited(edited(kept, "scale * math",
  "scale  * -- as before\n math"), "seed = 1", "seed = 0 + 1, save = { dtype = 'f32' }"))
rewind(moved)
code, out = burin "resume B/x --quiet"
ends(code, out, 0)
T.check(result(moved) == whole, "with another text: another result")

-- ---- damage ---------------------------------------------------------------------------------------------------------

local latest = moved .. "/state/latest.json"
for name, damage in pairs { ["is damaged"] = "printf '{' >", ["is not there"] = "rm -f" } do
  T.shell(damage .. " " .. T.quote(latest))
  code, out = burin "resume B/x"
  ends(code, out, 0, "latest.json " .. name, "step-00000002.safetensors")
end
T.shell(("printf '\\0\\0' > %s; cd %s/state; printf x | "
  .. "dd of=step-00000002.safetensors bs=1 seek=20000 conv=notrunc 2>/dev/null")
  :format(T.quote(latest), T.quote(moved)))
code, out = burin "resume B/x"
ends(code, out, 0, "latest.json is damaged", "step-00000001.safetensors")
T.check(result(moved) == whole, "after damage: another result")
T.shell(("rm -r %s/state %s/x.safetensors"):format(T.quote(moved), T.quote(moved)))
code, out = burin "resume B/x"
ends(code, out, 66, "there is no state to go on from in B/x/state")
T.check(not result(moved) and T.read(moved .. "/metrics.jsonl") ~= "", "without a state: something was begun")

-- ---- another program, and a project that was moved ------------------------------------------------------------------

local other = T.folder "other"
T.shell(("cp -r %s $(dirname %s)/plugins %s/; rm %s/plugins/template.so"):format(T.quote(T.burin), T.quote(T.burin),
  T.quote(other), T.quote(other)))
code, out = T.shell(("cd %s && %s/burin resume B/copy"):format(T.quote(project),
  T.quote(other:sub(1, 1) == "/" and other or root .. "/" .. other)))
ends(code, out, 0, "plugins have changed since this run was saved: template (not there now)")
local away = project .. "-moved"
T.shell(("rm -rf %s; mv %s %s"):format(T.quote(away), T.quote(project), T.quote(away)))
code, out = burin("resume B/copy", away)
ends(code, out, 0, "is not there; relative paths of its recipe are now taken from " .. away)
T.check(result(away .. "/B/copy") == whole, "a moved project: another result")
T.finish()
