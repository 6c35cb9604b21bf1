-- SPDX-License-Identifier: MIT
-- burin cache: what is kept, of what; what is damaged; what may go.   lua5.4 tests/cli/cache_test.lua BURIN SCRATCH
local T = dofile "tests/recipes/support.lua"
T.private_cache()

local cache, pictures, runs = T.burin_cache, T.folder "pictures", T.folder "runs"
local xdg = T.folder "xdg/burin/pipelines"
local EVIL = "a\27[2J"
T.shell(("cp examples/sks-cat/*/1-grass.png %s/one.png; cp examples/sks-cat/*/5-brick.jpg %s"):format(
  T.quote(pictures), T.quote(pictures .. "/" .. EVIL .. ".jpg")))
T.write(pictures .. "/one.txt", "a grey cat")
local recipe = T.recipe("cached", { concepts = ("{ { images = %q, prompt = 'another cat' } }"):format(pictures),
  steps = "1", batch = "1" })
local function train()
  local code, out = T.run(("train %s --force --quiet --output %s"):format(recipe, runs))
  T.check(code == 0, "training: %d %s", code, out)
end
train()

-- Of the drivers' pipelines there are others: a folder of our own stands in for them.
local function ask(line, want)
  local code, out = T.run("cache " .. line, "env XDG_CACHE_HOME=" .. T.scratch .. "/xdg")
  T.check(code == (want or 0), "cache %s: exit code %d: %s", line, code, out)
  T.check(not out:find "\27", "cache %s: a control character", line)
  return out
end
-- The entries of a kind: { { path, whole text } ... }
local function entries(kind, json)
  local list = {}
  for one in (json or ask "list --json"):gmatch '%b{}' do
    for entry in one:sub(2):gmatch '%b{}' do
      if entry:find('"kind": ?"' .. kind .. '"') and entry:find '"path"' then
        list[#list + 1] = { path = entry:match '"path": ?"([^"]*)"', text = entry }
      end
    end
  end
  return list
end
local function there(path) return T.read(path) ~= nil end

local latents, captions = entries "latents", entries "captions"
T.check(#latents == 2 and #captions == 2, "%d latents and %d captions: %s", #latents, #captions, ask "list --json")
local out = ask "list --entries"
for _, text in ipairs { "of /", "/one.png", "a\\u001b[2J.jpg", "of a grey cat", "of another cat", "latents" } do
  T.check(out:find(text, 1, true), "list does not say '%s': %s", text, out)
end
T.check(ask "verify":find "4 entries, 0 damaged", "verify finds damage where there is none")

-- ---- damage ---------------------------------------------------------------------------------------------------------

local function change(path, f)
  local text = T.read(path)
  local new = f(text)
  T.check(new ~= text, "%s was not changed", path)
  T.write(path, new)
end
change(latents[1].path, function(s) return s:sub(1, -2) .. string.char(s:byte(-1) ~ 1) end)
change(captions[1].path, function(s) return s:sub(1, -9) end)
T.write(xdg .. "/fake-00000001.bin", "burinpc1" .. ("\0"):rep(16) .. "x")
out = ask("verify", 65)
for _, path in ipairs { latents[1].path, captions[1].path, "fake-00000001.bin" } do
  T.check(out:find(path, 1, true), "verify does not name %s: %s", path, out)
end
T.check(not out:find(latents[2].path, 1, true) and out:find "5 entries, 3 damaged" and there(latents[1].path),
  "verify: %s", out)
out = ask("verify --remove --json")
T.check(out:find '"removed": ?3' and not there(latents[1].path) and not there(captions[1].path)
  and not there(xdg .. "/fake-00000001.bin") and there(latents[2].path), "verify --remove: %s", out)
train()
T.check(#entries "latents" == 2 and #entries "captions" == 2, "what was damaged is not made again")
local _, real = T.shell("ls ${XDG_CACHE_HOME:-$HOME/.cache}/burin/pipelines/*.bin | head -1")
T.shell(("cp %s %s/"):format(T.quote(real:match "[^\n]*"), xdg))
T.check(ask "verify":find "5 entries, 0 damaged", "the pipelines of a driver count as damaged: %s", ask("verify"))

-- ---- what goes ------------------------------------------------------------------------------------------------------

latents, captions = entries "latents", entries "captions"
T.write(cache .. "/mine.txt", "not ours")
T.write(latents[1].path:match "^(.*)/" .. "/note.txt", "not ours")
T.check(ask "prune --size '1 GiB' --days 30":find "0 of 5 entries removed", "prune removes what is used")
T.shell("touch -d '40 days ago' " .. captions[1].path)
T.check(ask "prune --days 30 --dry-run":find "1 of 5 entries would be removed" and there(captions[1].path),
  "--dry-run")
ask "prune --days 30"
T.check(not there(captions[1].path) and there(captions[2].path), "--days 30")
-- Another version's, a codec's that is gone, and what a killed process left.
change(captions[2].path, function(s) return (s:gsub('"format":"2"', '"format":"1"')) end)
change(latents[1].path, function(s) return (s:gsub('"needs":"stb_image', '"needs":"stb_imagX')) end)
local folder = latents[2].path:match "^(.*)/"
T.write(folder .. "/0123.safetensors.tmp-999999999-0", "half")
out = ask "prune --entries"
for _, says in ipairs { "another version of Burin", "no plugin any more", "its process has ended" } do
  T.check(out:find(says, 1, true), "prune does not say '%s': %s", says, out)
end
T.check(not there(captions[2].path) and not there(latents[1].path) and there(latents[2].path), "what is of no use stays")
T.check(not there(folder .. "/0123.safetensors.tmp-999999999-0"), "a file that was not finished stays")
-- What a process that is there writes is left alone.
local code
code, out = T.shell(("sleep 60 & f=%s/4567.safetensors.tmp-$!-0; touch $f; %s cache prune; ls $f; kill $!"):format(folder,
  T.quote(T.burin)))
T.check(out:find "4567.safetensors.tmp", "prune removes what is being written: %d %s", code, out)
-- The longest unused go first: what is read is not the oldest.
train()
latents, captions = entries "latents", entries "captions"
for _, e in ipairs { latents[1], latents[2], captions[1], captions[2] } do T.shell("touch -d '3 days ago' " .. e.path) end
T.shell("touch -d '2 days ago' " .. latents[2].path)
ask(("prune --size '%d B'"):format(#T.read(latents[2].path) + #T.read((xdg .. "/" .. real:match "[^/\n]*\n"):sub(1, -2))))
T.check(there(latents[2].path) and not there(latents[1].path) and not there(captions[1].path), "--size")
T.shell("touch -d '50 days ago' " .. latents[2].path)
train()
ask "prune --days 30"
T.check(there(latents[2].path), "what was used now counts as old")
T.check(there(cache .. "/mine.txt") and there(latents[1].path:match "^(.*)/" .. "/note.txt"), "a file of others is gone")

for line, says in pairs { [""] = "usage: burin cache", ["lst"] = "not 'lst'", ["prune --size many"] = "--size needs",
  ["prune --days=-1"] = "--days takes" } do
  T.check(ask(line, 2):find(says, 1, true), "cache %s does not say '%s'", line, says)
end
T.check(ask "--help":find "prune", "--help")
T.finish()
