-- SPDX-License-Identifier: MIT
-- What is written, to stdout, to a terminal, to a disk that fails.
--   lua5.4 tests/cli/output_test.lua BURIN SCRATCH FAULTS.so
local T = dofile "tests/recipes/support.lua"
T.private_cache()
local FAULTS = assert(arg[3])
local MODEL, LORA = "models/tiny-sd.safetensors", "tests/golden/tiny_sd1/lora_after_step3.safetensors"

-- ---- stdout ---------------------------------------------------------------------------------------------------------

local says = "not all of the output could be written to stdout"
for _, line in ipairs { "inspect " .. MODEL, "inspect --json " .. LORA, "--help", "plan --help", "--version", "ops",
  "plugins", "hash " .. MODEL,
    "plan recipes/lora-tiny.lua --device null" } do
  for _, to in ipairs { ">/dev/full", ">&-", "| true" } do
    local _, out = T.shell(("{ sleep 0.05; %s %s; echo code $? >&2; } %s"):format(T.quote(T.burin), line, to))
    T.check(out:find "code 74" and out:find(says, 1, true), "%s %s: %s", line, to, out)
  end
end

-- A closed stdout, or one that nobody reads, ends no training.
for i, to in ipairs { ">&-", "| true" } do
  local folder = T.folder("stdout" .. i)
  local code, out = T.shell(("{ %s train %s --output %s; echo code $? >&2; } %s"):format(T.quote(T.burin),
    T.recipe("closed", { steps = "2" }), folder, to))
  T.check(out:find "code 74" and #T.metrics(folder .. "/tiny",
    "step") == 2 and T.read(folder .. "/tiny/tiny.safetensors"), "training %s: %d %s", to, code, out)
end

-- ---- disks ----------------------------------------------------------------------------------------------------------

local function failing(line, fault)
  return T.run(line, ("LD_PRELOAD=%s FAULT='%s' %s"):format(T.quote(FAULTS), fault,
    fault == "short" and "SHORT=1" or ""))
end
local EINTR, EIO, ENOSPC = 4, 5, 28

-- A disk that is too small is said before the run begins.
local function planned(free, fields, how)
  local code, out = T.run(("plan --device null %s %s"):format(how or "", T.recipe("space", fields)),
    ("LD_PRELOAD=%s FREE=%d"):format(T.quote(FAULTS), free))
  T.check(code == 0, "plan of a run on a disk with %d bytes: %d %s", free, code, out)
  return out
end
local roomy, tight = planned(1 << 30, {}), planned(1 << 20, {})
T.check(roomy:find "disk   about [%d.]+ MiB in runs/tiny %(1.00 GiB free%)\n"
  and not roomy:find "wait for room", "a disk with room: %s", roomy)
T.check(tight:find "runs/tiny has 1.00 MiB left: it would wait for room at a save", "a disk without room: %s", tight)
local function needed(fields) return tonumber((planned(1 << 30, fields, "--json"):match '"disk": ?(%d+)')) end
local few, many = needed { state = "{ keep = 1 }" }, needed { state = "{ keep = 4 }" }
T.check(many / few > 2 and many / few < 3, "keeping four states and one: %d and %d bytes", many, few)
T.check(needed { save = "{ every = 1 }" } > needed {}, "results that are saved on the way take no room")
local place = T.folder "disk"
local cases = { single = "--to single --dtype f16", folder = "--to diffusers" }
for name, how in pairs(cases) do
  T.run(("convert %s %s/good-%s%s %s"):format(MODEL, place, name, name == "single" and ".safetensors" or "", how))
  local good = ("%s/good-%s%s"):format(place, name, name == "single" and ".safetensors" or "")
  local n = 0
  local function attempt(fault, expected)
    n = n + 1
    local path = ("%s/%s-%d%s"):format(place, name, n, name == "single" and ".safetensors" or "")
    if name == "single" then T.write(path, "the file before it") end
    local code, out = failing(("convert %s %s %s"):format(MODEL, path, how), fault)
    T.check(code == expected, "%s, %s: %d %s", name, fault, code, out)
    if expected == 0 then
      local same, said = T.shell(("diff -r %s %s"):format(good, path))
      T.check(same == 0, "%s, %s: %s", name, fault, said)
    else
      T.check(out:find(path:match "[^/]*$", 1, true), "%s, %s: the file is not named: %s", name, fault, out)
      if name == "single" then T.check(T.read(path) == "the file before it", "%s, %s: the file before it is gone", name,
        fault)
      else T.check(T.shell("[ ! -e " .. path .. " ]") == 0, "%s, %s: half a folder", name, fault) end
    end
    local _, left = T.shell("find " .. place .. " -name '*.tmp-*'")
    T.check(left == "", "%s, %s leaves %s", name, fault, left)
  end
  for _, fault in ipairs { "short", "fsync %d 1 1", "fsync-folder %d 1 1", "posix_fallocate %d 1 1" } do
    attempt(fault:format(EINTR), 0)
  end
  for first = 1, name == "single" and 1 or 9, 4 do
    attempt(("fsync %d %d 1"):format(EIO, first), 0)
    attempt(("fsync-folder %d %d 1"):format(EIO, first), 0)
  end
  attempt(("fsync %d 1 100"):format(EIO), 74)
  attempt(("pwrite %d 5 100"):format(ENOSPC), 74)
  attempt(("posix_fallocate %d 1 1"):format(ENOSPC), 74)
end

-- Every folder of a folder result is on the disk before it gets its name.
local _, trace = T.run(("convert %s %s/traced --to diffusers"):format(MODEL, place),
  ("LD_PRELOAD=%s TRACE=1"):format(T.quote(FAULTS)))
local synced = {}
for call, path in trace:gmatch "trace: (%S+) (%S+)" do
  if call == "fsync" then synced[path:gsub("/$", "")] = true end
  if call == "rename" and path:find "traced%.tmp%-0%-0$" then break end
end
for _, inner in ipairs { "", "/unet", "/vae", "/text_encoder", "/tokenizer", "/scheduler" } do
  T.check(synced[place .. "/traced.tmp-0-0" .. inner], "traced%s was not synced: %s", inner, trace)
end

-- A training whose disk fails now and then goes on as if nothing was.
local function train(name, fault)
  local folder = T.folder(name)
  local code, out = failing(("train %s --output %s --quiet"):format(T.recipe("faulty",
    { steps = "2", state = '{ every = "1 step" }' }), folder), fault)
  return folder, code, out
end
local good = train("train-good", "none 0 0")
for i, fault in ipairs { "fsync 5 3 1", "fsync-folder 5 5 1" } do
  local folder, code, out = train("train-" .. i, fault)
  T.check(code == 0 and T.difference(good, folder) == "", "%s: %d %s %s", fault, code, out, T.difference(good, folder))
end

-- ---- terminals ------------------------------------------------------------------------------------------------------

local function harmless(what, out)
  local found = out:find "[\0-\8\11-\31\127]" or out:find "\xc2[\x80-\x9f]" or out:find "\xe2\x80[\xaa-\xae]"
    or not utf8.len(out)
  T.check(not found, "%s: a control character: %q", what, out)
end

local EVIL = "\27]0;x\7\27[2J"
local function safetensors(path, meta, name)
  local function json(s) return (s:gsub("[%c\127]", function(c) return ("\\u%04x"):format(c:byte()) end)) end
  local header = ('{"__metadata__":{%s},"%s":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'):format(json(meta),
    json(name))
  header = header .. (" "):rep(-#header % 8)
  return T.write(path, ("<I8"):pack(#header) .. header .. "\0\0\0\0")
end
place = T.folder "evil"
local evil = safetensors(place .. "/evil.safetensors",
  ('"modelspec.title":"%sTRUSTED","%skey":"x\r\nis       a verified file","rtl":"\u{202e}gnp.exe","long":"%s"')
  :format(EVIL, EVIL, ("\u{e9}"):rep(90)), "lora_unet_\u{9b}31m\u{202e}.lora_down.weight")
for _, how in ipairs { "", "--json", "--summary", "--base " .. MODEL } do
  local code, out = T.run(("inspect %s %s"):format(evil, how))
  harmless("inspect " .. how, out)
  T.check(code == 0 and (how:find "json" or not out:find "\nis       a verified"), "inspect %s: %d %s", how, code, out)
end
for _, line in ipairs { "convert %s %s/out.safetensors", "hash %s", "merge " .. MODEL .. " %s %s/out.safetensors" } do
  harmless(line, select(2, T.run(line:format(evil, place))))
end
local function chunk(kind, data) return (">I4"):pack(#data) .. kind .. data .. "\0\0\0\0" end
local picture = T.write(place .. "/p.png", "\x89PNG\r\n\x1a\n" .. chunk("IHDR", (">I4I4"):pack(1, 1) .. "\8\2\0\0\0")
  .. chunk("tEXt", "para" .. EVIL .. "\0a cat" .. EVIL) .. chunk("IEND", ""))
for _, how in ipairs { "", "--json" } do harmless("picture " .. how, select(2,
  T.run(("inspect %s %s"):format(picture, how)))) end
-- Names of files, captions, recipes
local pictures = place .. "/pictures"
T.shell(("mkdir -p %s; cp examples/sks-cat/*/* %s"):format(pictures, pictures))
T.write(pictures .. "/" .. EVIL .. ".png", "no picture" .. EVIL)
T.shell(("cp \"$(ls -d examples/sks-cat/*/*.png | head -1)\" %s"):format(T.quote(pictures .. "/long" .. EVIL
  .. ".png")))
T.write(pictures .. "/long" .. EVIL .. ".txt", ("word" .. EVIL .. " "):rep(200))
local recipe = T.recipe("evil", { concepts = ('{ { images = "%s" } }'):format(pictures), steps = "1",
  sample = '{ prompts = { "a cat \\27]0;x\\7" } }' })
for _, line in ipairs { "plan %s --device null", "plan %s --device null --json", "train %s --output " .. place } do
  local _, out = T.run(line:format(recipe))
  harmless(line, out)
  T.check(line:find "json" or out:find "\\u001b]0;x\\u0007", "%s: the name is not shown: %s", line, out)
end
for _, line in ipairs { "plan %s", "train %s", "inspect %s", "sample %s --prompt x", "run %s" } do
  harmless(line, select(2, T.run(line:format(T.quote(place .. "/none" .. EVIL .. "\nerror: x.lua")))))
end
local said = T.write(place .. "/says" .. EVIL .. ".lua", "print('a\\27[2Jb')\nlocal x = nil + 1\n")
harmless("a recipe that fails", select(2, T.run("plan " .. T.quote(said))))
T.finish()
