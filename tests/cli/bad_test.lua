-- SPDX-License-Identifier: MIT
-- What goes wrong at the user's end: recipes, pictures, captions, models, states, disks, signals. Each mistake has its
-- exit code and a sentence that says what and where; one bad picture costs that picture, not the run.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()

-- burin fails with this exit code, and says all of these (plain texts). run: how it is run.
local function ends(run, line, want, ...)
  local code, out = run(line)
  T.check(code == want, "burin %s: exit code %d, not %d: %s", line, code, want, out)
  for _, text in ipairs { ... } do
    T.check(out:find(text, 1, true), "burin %s: '%s' does not say '%s'", line, out:gsub("\n", " "), text)
  end
  -- The library's positions begin with "burin/"; the folder that the tests lie in may be called so too.
  T.check(not out:find "attempt to" and not out:find "%f[%w/]burin/[%w_/]+%.lua:", "burin %s: an internal error: %s",
    line, out)
end
local function fails(line, want, ...) ends(T.run, line, want, ...) end

-- Trainings and what goes on from them: in one process, which compiles its kernels once, where nothing else is the
-- point.
local served = T.server()
local function refused(line, want, ...) ends(served, line, want, ...) end

-- ---- recipes --------------------------------------------------------------------------------------------------------

-- A recipe of these lines behind `local burin = require "burin"`, which is line 1. Its path is longer than the 60
-- characters that Lua itself keeps of one.
local deep = T.scratch .. "/a folder/whose name/is longer/than any that/Lua would show"
T.shell("mkdir -p " .. T.quote(deep))
local function plan_of(text)
  return "plan " .. T.quote(T.write(deep .. "/bad.lua", 'local burin = require "burin"\n' .. text))
end
local function field(text)  -- as line 6 of an otherwise good recipe
  return plan_of(('return burin.train {\n  name = "x",\n  base = burin.model "models/tiny-sd.safetensors",\n'
    .. '  concepts = { { images = "examples/sks-cat" } },\n  %s\n  resolution = 64,\n%s}\n'):format(text,
    text:find "method" and "" or "  method = burin.lora {},\n"))
end
fails(field "stepz = 4,", 78, "bad.lua:6:", "no option 'stepz'", "did you mean 'steps'")
fails(field "steps = 'four',", 78, "bad.lua:6:", "'steps' must be an integer, not a string")
fails(field "steps = 1.5,", 78, "bad.lua:6:", "'steps' must be an integer, not a number")
fails(field "batch = 0,", 78, "bad.lua:6:", "'batch' = 0 is outside 1 .. 1024")
fails(field "max_grad_norm = 0/0,", 78, "bad.lua:6:", "'max_grad_norm'")
fails(field "precision = 'fp16',", 78, "bad.lua:6:", "did you mean 'f16'")
fails(field "epochs = 1, steps = 2,", 78, "bad.lua:6:", "either epochs or steps")
fails(field "method = burin.lora { rnk = 4 },", 78, "bad.lua:6:", "lora has no option 'rnk'", "did you mean 'rank'")
fails(field "method = burin.lroa {},", 78, "bad.lua:6:", "did you mean 'lora'")
fails(field "optimizer = burin.adamw { lr = -1 },", 78, "bad.lua:6:", "'lr' = -1 is outside")
fails(field "sample = { prompts = 'x' },", 78, "bad.lua:6:", "'prompts' must be a list")
fails(field "state = { every = 'often' },", 78, "'often' is not a time")
fails(field "loss = burin.min_snr { gama = 5 },", 78, "did you mean 'gamma'")
fails(field "= 4,", 78, "bad.lua:6:", "unexpected symbol")
fails(plan_of "return burin.trian {}", 78, "bad.lua:2:", "did you mean 'train'")
fails(plan_of "return brin.train {}", 78, "bad.lua:2:", "unknown name 'brin'")
fails(plan_of "prnt('hello')", 78, "bad.lua:2:", "unknown name 'prnt'", "did you mean 'print'")
fails(plan_of "\nerror('by hand')", 78, "bad.lua:3: by hand")
fails(plan_of "", 78, "a recipe ends with: return burin.train { ... }")
fails(plan_of("return burin.train { name = '../x', base = burin.model 'a', concepts = { { images = 'b' } }, "
  .. "method = burin.lora {} }"), 78, "letters, digits")
fails("plan " .. T.quote(T.scratch .. "/none.lua"), 66, "no such recipe")
fails("train", 2, "usage: burin train")
fails("train a.lua --ouput x", 2, "did you mean --output")

-- No way out of the sandbox: each is unknown, or an error that names the line.
for text, says in pairs {
  ["io.open('/etc/passwd')"] = "unknown name 'io'", ["os.execute('true')"] = "unknown name 'os'",
  ["debug.getregistry()"] = "unknown name 'debug'", ["package.loadlib('x', 'y')"] = "unknown name 'package'",
  ["load('return 1')"] = "unknown name 'load'", ["dofile('x.lua')"] = "unknown name 'dofile'",
  ["loadfile('x.lua')"] = "unknown name 'loadfile'", ["collectgarbage()"] = "unknown name 'collectgarbage'",
  ["_G.io.open('x')"] = "unknown name '_G'", ["string.dump(print)"] = "a nil value",
  ["require 'burin.core'"] = "cannot require 'burin.core'", ["require 'burin.cli.train'"] = "cannot require",
  ["require '../../secret'"] = "cannot require", ["require '/etc/passwd'"] = "cannot require",
  ["require 'io'"] = "cannot open", ["getmetatable('').__index.rep = nil"] = "a nil value",
  ["getmetatable(_ENV).__index = nil"] = "a boolean value", ["setmetatable(_ENV, {})"] = "protected metatable",
} do
  local code, out = T.run(plan_of(text))
  T.check(code == 78 and out:find(says, 1, true) and out:find("bad.lua:2:", 1, true), "sandbox: %s: %d %s", text, code,
    out)
end
T.write(T.scratch .. "/bad.lua", "")
T.shell(("lua5.4 -e 'io.write(string.dump(function() return 1 end))' > %s/bad.lua"):format(T.scratch))
fails("plan " .. T.scratch .. "/bad.lua", 78, "bad.lua is compiled Lua")

-- ---- loops without end ----------------------------------------------------------------------------------------------

local function interrupted(line, ready)
  return T.shell(("%s %s & p=$!; %s; kill -INT $p; wait $p"):format(T.quote(T.burin), line, ready))
end
-- sh starts background jobs with SIGINT ignored, hence env.
local plain = T.burin
local function wait_for(pattern, file)
  return ("for i in $(seq 600); do grep -q '%s' %s 2>/dev/null && break; sleep 0.1; done"):format(pattern, file)
end
T.burin = T.write(T.scratch .. "/interruptible",
  ("#!/bin/sh\nexec env --default-signal=INT %s \"$@\"\n"):format(T.quote(plain)))
T.shell("chmod +x " .. T.burin)
local code = interrupted(plan_of "while true do end", "sleep 1")
T.check(code == 130, "a loop in a recipe: exit code %d", code)
local loop = T.recipe("loop", { steps = "50", seed = "7, schedule = burin.schedule('endless', function(step)\n"
  .. "    while step == 2 do pcall(function() while true do end end) end\n    return 1\n  end)" })
local runs = T.folder "runs"
local c, out = interrupted(("train %s --quiet --output %s"):format(loop, runs),
  wait_for('"step": \\?2', runs .. "/tiny/metrics.jsonl") .. "; sleep 1")
T.check(c == 130 and out:find "loop.lua:%d+: stopped here, inside the recipe", "a loop in a schedule: %d %s", c, out)
T.burin = plain

-- ---- models ---------------------------------------------------------------------------------------------------------

local function base(path) return "plan " .. T.quote(T.recipe("base", { base = ("burin.model %q"):format(path) })) end
local function file(name, text) return T.write(T.scratch .. "/" .. name, text) end
fails(base "nowhere/model.safetensors", 66, "nowhere/model.safetensors", "no such model")
fails(base(file("page.safetensors", "<!DOCTYPE html>\n<html><body>404</body></html>\n")), 65, "page.safetensors",
  "HTML page")
fails(base(file("pointer.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n")), 65,
  "git-lfs pointer")
fails(base(file("empty.safetensors", "")), 65, "is empty")
local model = T.read "models/tiny-sd.safetensors"
fails(base(file("cut.safetensors", model:sub(1, #model // 2))), 65, "cut.safetensors", "cut off")
fails(base(file("text.safetensors", "hello, world")), 65, "text.safetensors", "no known model format")
fails(base(file("old.safetensors", "\x80\2}.")), 65, "old.safetensors", "a Python pickle", "save it again")
fails(base "tests/data/torch/whole-2.15.pt", 65, "call \"torch.nn.modules.linear.Linear\"", "nothing of it was run")
fails(base "tests/data/torch/flat-2.15.pt", 65, "no Stable Diffusion U-Net")

-- A safetensors file of zeros: { name = { dims } }
local function zeros(name, tensors)
  local rows, at, names = {}, 0, {}
  for key in pairs(tensors) do names[#names + 1] = key end
  table.sort(names)
  for i, key in ipairs(names) do
    local n = 4
    for _, d in ipairs(tensors[key]) do n = n * d end
    rows[i] = ('"%s":{"dtype":"F32","shape":[%s],"data_offsets":[%d,%d]}'):format(key, table.concat(tensors[key], ","),
      at, at + n)
    at = at + n
  end
  local header = "{" .. table.concat(rows, ",") .. "}"
  header = header .. (" "):rep(-#header % 8)
  return file(name, ("<I8"):pack(#header) .. header .. ("\0"):rep(at))
end
fails(base(zeros("lora.safetensors", { ["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"] = { 2, 8 } })), 65,
  "this is a LoRA, not a base model")
fails(base(zeros("other.safetensors", { ["layer.weight"] = { 2, 8 } })), 65, "no Stable Diffusion U-Net")
fails(base(zeros("torso.safetensors", { ["model.diffusion_model.input_blocks.0.0.weight"] = { 8, 4, 3, 3 } })), 65,
  "torso.safetensors", "tensors are missing")

-- The model itself with two dims of one weight exchanged: found when the weights are loaded.
local shape = 'diffusion_model%.out%.2%.weight":{"dtype":"F16","shape":%[%d+,'
local inputs = model:match(shape .. "(%d+),3,3%]")
if T.check(inputs, "the tiny model has no output convolution of this shape") then
  local wrong = model:gsub("(" .. shape .. ")%d+,3,3%]", "%13," .. inputs .. ",3]", 1)
  T.check(#wrong == #model and wrong ~= model, "the model was not changed")
  local recipe = T.recipe("shapes", { base = ("burin.model %q"):format(file("shapes.safetensors", wrong)) })
  refused(("train %s --quiet --output %s"):format(recipe, T.folder "runs"), 65, "out", "shape")
end

-- A base that another took the place of: neither its class images nor its training state are for the new one.
do
  local path, place = file("base.safetensors", model), T.folder "replaced"
  local recipe = T.recipe("replaced", { base = ("burin.model %q"):format(path), steps = "1",
    concepts = '{ { images = "examples/sks-cat", prior = { prompt = "a cat", count = 1, steps = 1 } } }' })
  local code, text = served(("train %s --quiet --output %s"):format(recipe, place))
  T.check(code == 0, "a run of one step: exit code %d: %s", code, text)
  file("base.safetensors", model:sub(1, -2) .. string.char(model:byte(-1) ~ 1))
  local resume = ("resume %s --quiet"):format(T.quote(place .. "/tiny"))
  refused(resume, 65, "prior-1-", "class images are of another base")
  T.shell(("rm -r %s/tiny/prior-1-*"):format(T.quote(place)))
  refused(resume, 65, "base.safetensors", "the base has changed")
end

-- Class images of the user's own are read; what is missing is drawn into the run's folder.
do
  local own, place = T.folder "cats", T.folder "own"
  T.write(own .. "/mine.png", T.read "examples/sks-cat/10_sks cat/1-grass.png")
  local recipe = T.recipe("own", { steps = "1",
    concepts = ('{ { images = "examples/sks-cat", prior = { prompt = "a cat", count = 2, steps = 1, images = %q } } }')
      :format(own) })
  local code, text = served(("train %s --quiet --output %s"):format(recipe, place))
  T.check(code == 0, "class images of one's own: exit code %d: %s", code, text)
  local _, mine = T.shell("ls " .. T.quote(own))
  local _, drawn = T.shell(("cd %s/tiny/prior-1-* && ls"):format(T.quote(place)))
  T.check(mine == "mine.png\n" and drawn == "base\nclass-00001.png\n", "class images: '%s' and '%s'", mine, drawn)
end

-- ---- datasets -------------------------------------------------------------------------------------------------------

local cat = "examples/sks-cat/10_sks cat/"
local function images(path) return ('{ { images = %q, prompt = "a cat" } }'):format(path) end
local function data(path) return "plan " .. T.quote(T.recipe("data", { concepts = images(path) })) end
fails(data(T.folder "nothing"), 66, "nothing", "no images found")
fails(data(T.scratch .. "/absent"), 66, "absent")

local mixed = T.folder "mixed"
local png, jpeg = T.read(cat .. "1-grass.png"), T.read(cat .. "5-brick.jpg")
T.write(mixed .. "/good.png", png)
T.write(mixed .. "/sjis.png", png)
T.write(mixed .. "/sjis.txt", "\x94\x4c\x82\xcc\x8e\xca\x90\x5e\x82\xc5\x82\xb7")  -- Shift-JIS
T.write(mixed .. "/utf16.jpg", jpeg)
T.write(mixed .. "/utf16.txt", "a\0 \0c\0a\0t\0")                              -- UTF-16 without its mark
T.write(mixed .. "/nul.png", png)
T.write(mixed .. "/nul.txt", "a \0cat")
T.write(mixed .. "/marked.png", png)
T.write(mixed .. "/marked.txt", "\xff\xfea\0 \0c\0a\0t\0")                   -- UTF-16 with its mark is fine
T.write(mixed .. "/cut.png", png:sub(1, #png // 2))
T.write(mixed .. "/cut.jpg", jpeg:sub(1, #jpeg // 2))
T.write(mixed .. "/head.png", png:sub(1, 20))
T.write(mixed .. "/animation.png", "GIF89a" .. ("\0"):rep(64))
T.write(mixed .. "/zero.png", "")
local recipe = T.recipe("mixed", { concepts = images(mixed), steps = "", epochs = "2", batch = "1" })
runs = T.folder "runs"
c, out = served(("train %s --output %s"):format(recipe, runs))
T.check(c == 0, "a dataset with bad pictures: exit code %d: %s", c, out)
for name, why in pairs { ["sjis.txt"] = "Shift-JIS", ["utf16.txt"] = "UTF-16", ["nul.txt"] = "", ["cut.png"] = "",
  ["cut.jpg"] = "", ["head.png"] = "", ["animation.png"] = "a GIF image", ["zero.png"] = "it is empty" } do
  local line = out:match("[^\n]*" .. name:gsub("%.", "%%.") .. "[^\n]*") or ""
  T.check(line:find("left out", 1, true) and line:find(why, 1, true), "%s is not left out for '%s': %s", name, why,
    line)
end
T.check(#T.metrics(runs .. "/tiny", "step") == 4, "2 good pictures and 2 epochs make %d steps",
  #T.metrics(runs .. "/tiny", "step"))
T.shell(("rm %s/good.png %s/marked.*"):format(mixed, mixed))
refused(("train %s --quiet --force --output %s"):format(recipe, runs), 65, "no usable image")

-- ---- states ---------------------------------------------------------------------------------------------------------

recipe = T.recipe("state", { steps = "4", state = '{ every = "2 steps" }' })
local start = ("train %s --quiet --output %s"):format(recipe, runs)
local tiny, latest = runs .. "/tiny", runs .. "/tiny/state/step-00000004.safetensors"
runs = T.folder "runs"
c, out = served(start)
T.check(c == 0, "training ends with %d: %s", c, out)
refused(start, 73, "continue it with 'burin resume", "--force")
refused("resume " .. T.quote(T.scratch), 66, "not the folder of a run")
local whole, result = T.read(latest), T.read(tiny .. "/tiny.safetensors")
local resume = "resume --quiet " .. T.quote(tiny)
local header = ("<I8"):unpack(whole)
local function flip(at)
  return whole:sub(1, at - 1) .. string.char(whole:byte(at) ~ 4) .. whole:sub(at + 1)
end
for what, at in pairs { tensor = #whole - 1000, ["first tensor"] = header + 9 + 64,
  metadata = whole:find '\\"step\\":' + 9 } do
  T.write(latest, flip(at))
  refused(resume, 65, "step-00000004.safetensors", what == "metadata" and "checksum" or "does not match its checksum")
end
T.write(latest, whole:sub(1, -100))
refused(resume, 65, "step-00000004.safetensors")
os.remove(latest)  -- as the message advises: the state before it is used
c, out = served(resume)
T.check(c == 0 and T.read(tiny .. "/tiny.safetensors") == result, "without the damaged state: %d %s", c, out)
T.check(T.read(latest) == whole, "the state made again differs")
T.write(tiny .. "/state/latest.json", "{")  -- the newest whole state is used, and that is said
c, out = served("resume " .. T.quote(tiny))
T.check(c == 0 and out:find("latest.json is damaged", 1, true), "a damaged latest.json: %d %s", c, out)
T.check(T.read(tiny .. "/tiny.safetensors") == result, "after a damaged latest.json the result differs")
T.write(tiny .. "/state/latest.json", '{"file":"step-00000004.safetensors","step":4}')
local text = T.read(tiny .. "/recipe.lua")
T.write(tiny .. "/recipe.lua", (text:gsub("seed = 7", "seed = 8")))
refused(resume, 78, "the recipe has changed", "seed was 7 and is 8")
T.write(tiny .. "/recipe.lua", text)
local metrics = T.read(tiny .. "/metrics.jsonl")
T.write(tiny .. "/metrics.jsonl", metrics:sub(1, -30))
refused(resume, 65, "metrics.jsonl", "shorter than the saved state says")
T.write(tiny .. "/metrics.jsonl", metrics)

-- Two processes on one run: the second is turned away before it changes anything. flock stands in for the first. The
-- run is a copy, since the process that made it holds its lock for good; and it was begun with --trust, as all there.
local taken = T.folder "taken"
T.shell(("cp -r %s %s"):format(T.quote(tiny), T.quote(taken)))
local before = T.read(taken .. "/tiny/run.json")
for _, line in ipairs { ("resume --trust --quiet %s/tiny"):format(taken),
  ("train %s --quiet --force --output %s"):format(recipe, taken) } do
  c, out = T.shell(("flock %s/tiny/.lock %s %s"):format(taken, T.quote(T.burin), line))
  T.check(c == 75 and out:find("another process is training this run", 1, true), "two processes: %d %s", c, out)
end
T.check(before and T.read(taken .. "/tiny/run.json") == before, "the second process wrote run.json")

-- A full disk: the run waits for room, SIGTERM ends it meanwhile with the state before whole, and one that gets room
-- goes on by itself. Needs the right to mount.
local disk = T.folder "disk"
if T.shell(("mount -t tmpfs -o size=1m none %s 2>/dev/null"):format(T.quote(disk))) == 0 then
  local log = T.scratch .. "/disk.log"
  local function waits(line, act)
    return T.shell(("%s %s >%s 2>&1 & p=$!; %s; %s; wait $p; code=$?; cat %s; exit $code"):format(T.quote(T.burin),
      line, T.quote(log), wait_for("the run waits for room", T.quote(log)), act, T.quote(log)))
  end
  c, out = waits(("train %s --output %s"):format(T.recipe("disk", { steps = "4",
    state = '{ every = "1 steps", keep = 4 }' }), disk), "kill -TERM $p")
  T.check(c == 74 and out:find("stopped while it waited for room; the newest state is of step", 1, true),
    "SIGTERM while it waits: %d %s", c, out)
  local named = (T.read(disk .. "/tiny/state/latest.json") or ""):match '"file": ?"([^"]+)"'
  T.check(named, "a full disk: no state at all")
  local _, left = T.shell(("find %s -name '*.tmp-*'"):format(disk))
  T.check(left == "", "a full disk: half-written files stay: %s", left)
  c, out = waits("resume " .. T.quote(disk .. "/tiny"), "mount -o remount,size=8m " .. T.quote(disk))
  T.check(c == 0 and out:find("there is room in", 1, true), "once there is room: %d %s", c, out)
  T.check(T.read(disk .. "/tiny/tiny.safetensors") == result, "after a full disk the result differs")
  T.shell("umount " .. T.quote(disk))
else
  print "skipped: a full disk (no right to mount)"
end
T.finish()
