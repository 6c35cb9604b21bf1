-- SPDX-License-Identifier: MIT
-- burin cache: what is kept, of what; what is damaged; what may go.
--   SCRATCH=folder BURIN_CACHE=folder/kept burin run --trust tests/cli/cache_test.lua
local core = require "burin.core"
local C = dofile "tests/recipes/commands.lua"
local T = dofile "tests/check.lua"

local place, cache = assert(os.getenv "SCRATCH"), assert(os.getenv "BURIN_CACHE")
local xdg = place .. "/xdg/burin/pipelines"
function core.cache_root() return place .. "/xdg/burin" end  -- the pipelines of this machine are not ours to damage
local pictures = place .. "/pictures"
local EVIL = "a\27[2J"
os.execute(([[rm -rf '%s' '%s' '%s'; mkdir -p '%s' '%s'; cp examples/sks-cat/*/1-grass.png '%s/one.png'
  cp examples/sks-cat/*/5-brick.jpg '%s/%s.jpg']]):format(cache, xdg, pictures, pictures, xdg, pictures,
    pictures, EVIL))

local read, write = C.read, C.write
local function there(path) return core.exists(path) ~= nil end
local function aged(path, days) os.execute(("touch -d '%d days ago' '%s'"):format(days, path)) end

-- A training that caches and then ends: a schedule is asked before each step.
write(pictures .. "/one.txt", "a grey cat")
local recipe = write(place .. "/cached.lua", ([[local burin = require "burin"
return burin.train { name = "cached", base = burin.model "models/tiny-sd.safetensors", resolution = 64,
  steps = 1, buckets = false,
  concepts = { { images = %q, prompt = "another cat" } }, method = burin.lora { rank = 2, text_encoder = false },
  schedule = burin.schedule("ends", function() error "cached" end) }
]]):format(pictures))
local function train()
  local code, out = C.run { "train", recipe, "--force", "--output", place .. "/runs" }
  T.check(code == 78 and out:find "cached%.lua:5: cached", "training", code, out)
end
train()

local function ask(want, ...)
  local argv = { "cache", ... }
  local code, out = C.run(argv)
  local line = table.concat(argv, " ")
  T.check(code == want, line, code, out)
  T.check(not core.shown(out:gsub("\n", "")):find "\\u001b%[2J.*\\u001b%[2J.*\27", line, "a control character")
  return out
end
local function entries(kind)
  local list = {}
  for _, e in ipairs(core.json_decode(ask(0, "list", "--json"), "list").entries) do
    if e.kind == kind then list[#list + 1] = e end
  end
  return list
end
local function says(out, ...)
  for _, text in ipairs { ... } do T.check(out:find(text, 1, true), text, "is not in", out) end
end

local latents, captions = entries "latents", entries "captions"
T.check(#latents == 2 and #captions == 2, "entries", #latents, #captions)
says(ask(0, "list", "--entries"), "/one.png", "a\\u001b[2J.jpg", "of a grey cat", "of another cat", "2 entries")
says(ask(0, "verify"), "4 entries, 0 damaged")

-- ---- damage ---------------------------------------------------------------------------------------------------------

local function change(path, f)
  local text = read(path)
  local new = f(text)
  T.check(new ~= text, path, "was not changed")
  write(path, new)
end
change(latents[1].path, function(s) return s:sub(1, -2) .. string.char(s:byte(-1) ~ 1) end)
change(captions[1].path, function(s) return s:sub(1, -9) end)
local fake = write(xdg .. "/fake-00000001.bin", "burinpc1" .. ("\0"):rep(16) .. "x")
local out = ask(65, "verify")
says(out, latents[1].path, captions[1].path, fake, "5 entries, 3 damaged")
T.check(not out:find(latents[2].path, 1, true) and there(latents[1].path), "verify names or removes too much", out)
out = core.json_decode(ask(0, "verify", "--remove", "--json"), "verify")
T.check(out.removed == 3 and #out.entries == 3, "verify --remove", out.removed)
T.check(not there(latents[1].path) and not there(captions[1].path) and not there(fake) and there(latents[2].path),
  "verify --remove removes something else")
train()
T.check(#entries "latents" == 2 and #entries "captions" == 2, "what was damaged is not made again")
-- As core/gpu/kernel.c writes it.
local body = "what a driver compiled"
local pipelines = write(xdg .. "/driver-00000002.bin",
  "burinpc1" .. ("<I8I8"):pack(math.tointeger(tonumber("0x" .. core.hash(body))), #body) .. body)
says(ask(0, "verify"), "5 entries, 0 damaged")

-- ---- what goes ------------------------------------------------------------------------------------------------------

latents, captions = entries "latents", entries "captions"
local others = { write(cache .. "/mine.txt", "not ours"),
  write(latents[1].path:match "^.*/" .. "note.txt", "nor this") }
says(ask(0, "prune", "--size", "1 GiB", "--days", "30"), "0 of 5 entries removed")
aged(captions[1].path, 40)
says(ask(0, "prune", "--days", "30", "--dry-run"), "1 of 5 entries would be removed")
T.check(there(captions[1].path), "--dry-run removes")
ask(0, "prune", "--days", "30")
T.check(not there(captions[1].path) and there(captions[2].path), "--days 30")
-- Another version's, a codec's that is gone, and what a killed process left; not what a process is writing.
change(captions[2].path, function(s) return (s:gsub('"format":"2"', '"format":"1"')) end)
change(latents[1].path, function(s) return (s:gsub('"needs":"stb_image', '"needs":"stb_imagX')) end)
local folder = latents[2].path:match "^.*/"
local left = write(folder .. "0123.safetensors.tmp-999999999-0", "half")
local busy = write(folder .. "4567.safetensors.tmp-1-0", "half")
says(ask(0, "prune", "--entries"), "another version of Burin", "no plugin any more", "its process has ended")
T.check(not there(captions[2].path) and not there(latents[1].path) and there(latents[2].path),
  "what is of no use stays")
T.check(not there(left) and there(busy), "files that are not finished")
-- The longest unused go first; what is used is new again.
train()
latents, captions = entries "latents", entries "captions"
for _, e in ipairs { latents[1], latents[2], captions[1], captions[2] } do aged(e.path, 3) end
aged(latents[2].path, 2)
ask(0, "prune", "--size", ("%d B"):format(#read(latents[2].path) + #read(pipelines)))
T.check(there(latents[2].path) and there(pipelines), "--size removes too much")
T.check(not there(latents[1].path) and not there(captions[1].path), "--size removes too little")
aged(latents[2].path, 50)
train()
ask(0, "prune", "--days", "30")
T.check(there(latents[2].path), "what was used now counts as old")
for _, path in ipairs(others) do T.check(there(path), "a file of others is gone", path) end

for _, wrong in ipairs { { "usage: burin cache" }, { "not 'lst'", "lst" }, { "--size needs", "prune", "--size", "x" },
  { "--days takes", "prune", "--days=-1" } } do
  says(ask(2, table.unpack(wrong, 2)), wrong[1])
end
says(ask(0, "--help"), "prune")
T.finish()
