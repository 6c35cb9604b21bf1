-- SPDX-License-Identifier: MIT
-- Every recipe of recipes/ is sound. Those that return burin.train{...} pass the schema, are planned when their model
-- is there, and train two steps on the small reference model of its family in the place of theirs; loop.lua runs; the
-- rest parses. The trainings are one process, which compiles its kernels once (support.lua's T.server).
--   lua5.4 tests/cli/recipes_test.lua BURIN SCRATCH-FOLDER, from the repository's root
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
local scratch = T.scratch
local models = { { "/v2%-", "tiny_sd2" }, { "xl", "tiny_sdxl" }, { "", "tiny_sd1" } }  -- by the name of the base
local function model_for(base)
  for _, m in ipairs(models) do
    if base:find(m[1]) then return ("tests/golden/%s/model_ldm.safetensors"):format(m[2]) end
  end
end

local server = T.server()
local function read(path) return assert(T.read(path), path) end
local function run(text, ...) return T.run(text:format(...)) end
local function train(path) return server(("train '%s' --force --output '%s/runs'"):format(path, scratch)) end
local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local trained, count = 0, 0
local function small(path, text)
  local function replace(pattern, by)
    local n
    text, n = text:gsub(pattern, by)
    return n
  end
  assert(replace('burin%.model "([^"]*)"', function(base) return ('burin.model "%s"'):format(model_for(base)) end) == 1,
    path)
  replace('images = "[^"]*"', 'images = "examples/sks-cat"')
  replace("resolution = %d+", "resolution = 64")
  replace("count = %d+", "count = 2, steps = 3")
  assert(replace("epochs = %d+, seed", "steps = 2, seed") + replace("steps = %d+, seed", "steps = 2, seed") >= 1, path)
  replace("prompts = {", "steps = 2, prompts = {")
  return T.write(scratch .. "/" .. path:match "[^/]+$", text)
end

local pipe = io.popen "ls recipes/*.lua"
for path in pipe:lines() do
  local text = read(path)
  assert(load(text, "@" .. path, "t", {}))
  count = count + 1
  local base = text:match 'burin%.model "([^"]*)"'
  if text:find "return burin%.train" then
    local code, out = run("plan %s --device null", path)
    assert(code == 0 or (code ~= 78 and not exists(base) and out:find(base, 1, true)), path .. ": " .. out)
    -- sampling settings occur once more in the quickstart's own recipe, which ./quickstart tests whole
    if path ~= "recipes/quickstart.lua" then
      code, out = train(small(path, text))
      assert(code == 0, path .. ": " .. out)
      trained = trained + 1
    end
  end
end
pipe:close()

-- The program that made the tiny model, with few pictures and steps: it writes a model, and goes on where it stopped.
do
  local text, name = read "recipes/tiny/pretrain.lua", scratch .. "/pretrain.lua"
  os.execute(("cp -r recipes/tiny/world recipes/tiny/world.lua '%s'"):format(scratch))
  for from, to in pairs { ["IMAGES = 1, %d+"] = "IMAGES = 1, 16", ["VAE_LR = %d+, %d+"] = "VAE_LR = 2, 2",
    ["UNET_LR = %d+, %d+"] = "UNET_LR = 4, 2", ["step %% 250"] = "step % 2" } do
    local n
    text, n = text:gsub(from, (to:gsub("%%", "%%%%")))
    assert(n >= 1, from)
  end
  local folder = scratch .. "/pretrain"
  os.execute(("rm -rf '%s'"):format(folder))
  T.write(name, text)
  local code, out = run("run '%s' --output '%s'", name, folder)
  assert(code == 0 and out:find("U-Net step 4 loss", 1, true), out)
  local first = read(folder .. "/tiny-sd.safetensors")
  os.remove(folder .. "/state/step-00000004.safetensors")
  code, out = run("run '%s' --output '%s'", name, folder)
  assert(code == 0 and not out:find("VAE step", 1, true), out)
  assert(read(folder .. "/tiny-sd.safetensors") == first, "the stopped program ends elsewhere")
end

local code, out = run "run recipes/loop.lua"
assert(code == 0, out)
local first, last
for loss in out:gmatch "loss (%d+%.%d+)" do first, last = first or tonumber(loss), tonumber(loss) end
assert(last < 0.85 * first, out)
print(("%d recipes, %d trained on a small model, the loop's loss %.3f -> %.3f"):format(count, trained, first, last))
T.finish()
