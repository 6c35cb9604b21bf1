-- SPDX-License-Identifier: MIT
-- `burin sample` from outside: the examples of docs/sampling.md, what the pictures carry, prompts files, mistakes.
--   lua5.4 tests/cli/sampling_test.lua BURIN SCRATCH-FOLDER, from the repository's root
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
local check = T.check
T.private_cache()
local _, root = T.shell "pwd"
root = root:match "[^\n]+"

-- A tree that looks like the repository to commands that write beside it.
local place = T.folder "place"
T.shell(("ln -s %s/models %s/examples %s"):format(root, root, T.quote(place)))
local burin = T.server(place)

-- ---- the page -------------------------------------------------------------------------------------------------------

local page, examples = T.read "docs/sampling.md", 0
for block in page:gmatch "```sh\n(.-)```" do
  local line = block:match "^burin (.*)$"
  examples = examples + 1
  local code, out = burin(line:gsub("\\\n", " "))
  check(code == 0, "docs/sampling.md: '%s' ends with %d: %s", line, code, out)
  if line:match "^inspect" then
    local said = page:match("```sh\nburin " .. line:gsub("%p", "%%%0") .. "```\n\n```\n(.-)```")
    local function any_model(text) return (tostring(text):gsub("Model hash: %x+", "Model hash: ...")) end
    check(any_model(out) == any_model(said), "docs/sampling.md: inspect prints\n%s\nnot\n%s", out, tostring(said))
  end
end
check(examples >= 4, "docs/sampling.md has %d examples", examples)
local _, help = burin "sample --help"
for name in help:match "%-%-sampler NAME *([^\n]*)":gsub(" %(default.*", ""):gmatch "[%w_]+" do
  check(page:find("| `" .. name .. "` |", 1, true), "docs/sampling.md: no sampler %s", name)
end
for flag in page:gmatch "`(%-%-%l[%w-]+)" do check(help:find(flag, 1, true) or #flag == 3,
  "docs/sampling.md: there is no %s", flag) end

-- ---- prompts file, sizes, seeds -------------------------------------------------------------------------------------

local small = "sample models/tiny-sd.safetensors --steps 3 --quiet "
local lines = page:match "out:\n\n```\n(.-)```"
local code, out = burin(small .. "--out lines --count 2 --negative dull --prompts "
  .. T.quote(T.write(place .. "/lines.txt", "# two\n\n" .. lines)))
check(code == 0 and select(2, out:gsub("%.png", "")) == 4, "a prompts file: %d %s", code, out)
local function text_of(path)
  local _, text = burin("inspect " .. path)
  return text:match "^# parameters\n(.*)\n%d+ x %d+ pixels, 1 texts\n$" or text
end
local want = { "a photo of a (red:1.2) cat on snow\nNegative prompt: blurry, dark\n"
    .. "Steps: 12, Sampler: DDIM, CFG scale: 3, Seed: %d, Size: 64x64",
  "a photo of a blue dog on grass\nNegative prompt: dull\n"
    .. "Steps: 3, Sampler: Euler a, CFG scale: 7.5, Seed: %d, Size: 96x64" }
for i, seed in ipairs { 1, 2, 0, 1 } do
  local said = text_of(("lines/%05d.png"):format(i))
  check(said:find(want[(i + 1) // 2]:format(seed), 1, true) == 1, "picture %d of the file carries %s", i, said)
end
local _, json = burin "inspect lines/00003.png --json"
check(json:find('"height": ?64') and json:find('"width": ?96') and json:find '"parameters": ?"a photo of a blue dog',
  "inspect --json: %s", json)
local _, sum = T.shell("sha256sum " .. T.quote(place .. "/models/tiny-sd.safetensors"))
check(text_of "lines/00001.png":find("Model hash: " .. sum:sub(1, 10) .. ", Model: tiny-sd, ", 1, true),
  "the model's hash")

-- A picture is the same whatever it is drawn together with, also with noise in each step.
for _, sampler in ipairs { "euler_a", "unipc" } do
  local both = small .. "--sampler " .. sampler .. " --prompt 'a red cat' --batch 2 "
  burin(both .. "--count 3 --seed 5 --out together-" .. sampler)
  for i = 1, 3, 2 do
    burin(("%s--count 1 --seed %d --out alone-%s-%d"):format(both, 4 + i, sampler, i))
    local a, b = T.read(("%s/together-%s/%05d.png"):format(place, sampler, i)),
      T.read(("%s/alone-%s-%d/00001.png"):format(place, sampler, i))
    check(a and a == b, "%s: picture %d depends on the batch", sampler, i)
  end
  check(T.read(("%s/together-%s/00001.png"):format(place, sampler)) ~= T.read(("%s/together-%s/00003.png"):format(place,
    sampler)), "%s: two seeds, one picture", sampler)
end

-- ---- LoRAs ----------------------------------------------------------------------------------------------------------

local recipe = T.recipe("lora", { sample = '{ prompts = { "a (red:1.2) cat --ss euler_a" }, steps = 2 }' })
code, out = burin(("train %s --output %s/runs"):format(T.quote(recipe), T.quote(place)))
check(code == 0, "a LoRA to sample with: %s", out)
check(text_of "runs/tiny/samples/step-000004-01.png":find(
  "^a %(red:1.2%) cat\nSteps: 2, Sampler: Euler a, CFG scale: 7.5, Seed: 0, Size: 64x64"),
  "a training sample carries %s", text_of "runs/tiny/samples/step-000004-01.png")
local lora = "runs/tiny/tiny.safetensors"
code, out = burin(small .. ("--prompt cat --out loras --lora %s:0.8 --lora %s:-0.5"):format(lora, lora))
local digest = select(2, T.shell(([[cd %s && tail -c +$((9 + $(od -An -tu8 -N8 %s))) %s | sha256sum]]):format(
  T.quote(place), lora, lora))):sub(1, 12)
local said = text_of "loras/00001.png"
check(code == 0 and said:find("cat <lora:tiny:0.8> <lora:tiny:-0.5>\n", 1, true) == 1, "LoRAs in the prompt: %s", said)
check(said:find(('Lora hashes: "tiny: %s, tiny: %s"'):format(digest, digest), 1, true), "LoRA hashes: %s, not %s", said,
  digest)

-- ---- image to image -------------------------------------------------------------------------------------------------

local init = "--prompt 'a cat' --init 'examples/sks-cat/10_sks cat/1-grass.png' "
code = burin("sample models/tiny-sd.safetensors --steps 10 --quiet --out init --strength 0.2 " .. init)
check(code == 0 and text_of "init/00001.png":find("Size: 64x64, .*Denoising strength: 0.2"), "image to image")

-- ---- mistakes -------------------------------------------------------------------------------------------------------

local function fails(line, want_code, pattern)
  local c, text = burin(line)
  check(c == want_code and text:find(pattern), "burin %s: exit code %d, not %d: %s", line, c, want_code, text)
end
local model = "sample models/tiny-sd.safetensors --prompt cat "
fails(model .. "--sampler eular", 2, "did you mean 'euler'")
fails(model .. "--sigmas big", 2, "normal, karras")
fails(model .. "--spacing x", 2, "trailing")
fails(model .. "--tokens 100", 2, "75, 150 or 225")
fails(model .. "--steps 2.5", 2, "whole number")
fails(model .. "--strength 0.5", 2, "%-%-init")
fails(model .. "--rescale 2", 2, "between 0 and 1")
fails(model .. "--prediction epsilon --zero-snr", 78, "predicts v")
fails(model .. "--prediction x", 2, "epsilon, v")
burin(small .. "--prompt cat --out epsilon --prediction epsilon")
burin(small .. "--prompt cat --out v")
check(T.read(place .. "/epsilon/00001.png") ~= T.read(place .. "/v/00001.png"), "--prediction changes nothing")
fails(model .. "--width 65", 78, "multiple of 8")
fails(model .. "--init nowhere.png", 66, "nowhere.png")
fails("sample models/tiny-sd.safetensors --prompts nowhere.txt", 66, "nowhere.txt")
fails("sample models/tiny-sd.safetensors --prompt 'cat --q 3'", 2, "unknown option %-%-q")
fails("sample models/tiny-sd.safetensors --prompt 'cat --ss eular'", 2, "there is no sampler 'eular'")
T.write(place .. "/cut.png", "\x89PNG\r\n\x1a\n\0\0")
fails("inspect cut.png", 65, "without its header")

-- ---- long prompts ---------------------------------------------------------------------------------------------------

local aloud, cats = small:gsub("%-%-quiet ", ""), "--prompt '" .. ("cat "):rep(76) .. "' "
code, out = burin(aloud .. "--tokens 75 " .. cats)
check(code == 0 and out:find("picture 1: 76 tokens are cut to 75 at 'cat', word 76", 1, true),
  "a prompt that is cut: %d %s", code, out)
code, out = burin(aloud .. cats)
check(code == 0 and not out:find " cut ", "a prompt of 76 tokens is read whole: %d %s", code, out)
code, out = burin(aloud .. "--prompt '" .. ("(cat:1.1) "):rep(226) .. "'")
check(code == 0 and out:find("226 tokens are cut to 225 at 'cat', word 226", 1, true),
  "a prompt that is too long: %d %s", code, out)
-- What is beyond token 75 counts, also in negatives; a short prompt does not depend on a long one beside it.
local hares = T.write(place .. "/long.txt", ("a red cat\n%share\n%sfox\na red cat --n %share\n"):format(
  ("cat "):rep(80), ("cat "):rep(80), ("dog "):rep(80)))
burin(small .. "--prompt 'a red cat' --out short")
code, out = burin(small .. "--out long --prompts " .. T.quote(hares))
local function picture(path) return T.read(place .. "/" .. path) end
check(code == 0 and picture "short/00001.png" == picture "long/00001.png", "a short prompt beside a long one: %d %s",
  code, out)
check(picture "long/00002.png" ~= picture "long/00003.png", "a word beyond token 75 changes nothing")
check(picture "long/00001.png" ~= picture "long/00004.png", "a long negative changes nothing")
check(picture "long/grid.png", "no grid of pictures of one size")

-- ---- nothing is replaced, and mistakes have their place -------------------------------------------------------------

local again = small .. "--steps 1 --out again "
burin(again .. "--prompt 'a red cat'")
local first = T.read(place .. "/again/00001.png")
for _, more in ipairs { "--prompt 'a blue dog'", "--prompt 'a red cat' --count 2",
  "--prompt 'a dog' --count 2" } do burin(again .. more) end
T.write(place .. "/again/00042.png", "mine")
code, out = burin(again .. "--prompt x")
check(code == 0 and out == "again/00043.png\n" and T.read(place .. "/again/00042.png") == "mine",
  "numbers go on: %d %s", code, out)
check(T.read(place .. "/again/00001.png") == first, "the first picture is another one")
local _, there = T.shell("ls " .. T.quote(place .. "/again"))
check(there == "00001.png\n00002.png\n00003.png\n00004.png\n00005.png\n"
  .. "00006.png\n00042.png\n00043.png\ngrid-00006.png\ngrid.png\n", "pictures: %s", there)

for _, bad in ipairs { "--ar 16:9", "--s many", "--ss nothing" } do
  code, out = burin(again .. T.quote("--prompt=a cat " .. bad))
  check(code == 2 and out:find("prompt 'a cat " .. bad .. "'", 1, true) and not out:find "%.lua", "%s: %d %s", bad,
    code, out)
  T.write(place .. "/bad.txt", "# mine\r\na good cat\r\n\r\na cat " .. bad .. "\r\n")
  code, out = burin(again .. "--prompts bad.txt")
  check(code == 2 and out:find("bad.txt:4: prompt 'a cat " .. bad .. "'", 1, true), "%s in a file: %d %s", bad, code,
    out)
end
-- A byte-order mark, as editors on Windows put it in front
T.write(place .. "/mark.txt", "\xef\xbb\xbfa red cat\n")
burin(again .. "--prompts mark.txt")
check(text_of "again/00044.png":find "^a red cat\n", "a mark in a prompts file: %q", text_of "again/00044.png")
code, out = T.shell(("cd %s && printf '\\357\\273\\277# none\\nx' | %s %s --prompts /dev/stdin"):format(T.quote(place),
  T.quote(T.burin), again))
check(code == 0 and out == "again/00045.png\n", "prompts from a pipe: %d %s", code, out)
local plain, marked = T.read(T.recipe("mark", { steps = "1" })), T.scratch .. "/marked.lua"
T.write(marked, "\xef\xbb\xbf" .. plain)
code, out = T.run("plan --device null " .. marked)
check(code == 0, "a mark in a recipe: %d %s", code, out)
T.write(marked, "\xef\xbb\xbf" .. plain:gsub("steps = 1", "stepz = 1"))
code, out = T.run("plan --device null " .. marked)
check(code == 78 and out:find "marked.lua:%d+:", "a mistake in a recipe with a mark: %d %s", code, out)

-- ---- textual inversion ----------------------------------------------------------------------------------------------

-- A word with two vectors gives, bit for bit, the picture of a checkpoint whose token table has them at two words.
local model = T.read(root .. "/models/tiny-sd.safetensors")
local header = model:sub(9, 8 + ("<I8"):unpack(model))
local begin = header:match 'token_embedding.weight"[^}]*"data_offsets":%s*%[(%d+)'
check(begin, "the token table of the tiny model")
local WIDTH = 32
T.write(place .. "/ids.lua", 'local c = require "burin.core" print(c.tokenize("zzzz")[1], c.tokenize("hokkaido")[1])')
code, out = burin "run --trust ids.lua"
local taken = { tonumber(out:match "^(%d+)"), tonumber(out:match "(%d+)%s*$") }
check(code == 0 and taken[1] and taken[2] and taken[1] ~= taken[2], "two tokens: %s", out)
local vectors = {}
for i = 1, 2 * WIDTH do  -- f16
  vectors[i] = string.char(i * 37 % 256, (i % 3 == 0 and 0x80 or 0) + 0x34 + i % 9)
end
local rows = { table.concat(vectors, "", 1, WIDTH), table.concat(vectors, "", WIDTH + 1) }
local function safetensors(json, bytes) return ("<s8"):pack(json) .. bytes end
T.write(place .. "/My-Word.safetensors", safetensors(
  '{"emb_params":{"dtype":"F16","shape":[2,32],"data_offsets":[0,128]}}', rows[1] .. rows[2]))
local data = 8 + #header
for i, id in ipairs(taken) do
  local at = data + begin + id * WIDTH * 2
  model = model:sub(1, at) .. rows[i] .. model:sub(at + WIDTH * 2 + 1)
end
T.write(place .. "/taught.safetensors", model)
local draw = "sample %s --out words/%s --steps 2 --seed 3 %s --prompt " .. T.quote "a photo of a (%s:1.2) cat on sand"
code, out = burin(draw:format("taught.safetensors", "a", "", "zzzz hokkaido"))
check(code == 0, "the taught checkpoint: %s", out)
code, out = burin(draw:format("models/tiny-sd.safetensors", "b", "--embedding My-Word.safetensors", "my-word"))
check(code == 0 and out:find "'My%-Word' in prompts: 2 vectors", "with an embedding: %s", out)
local function pixels(name) return T.read(place .. "/words/" .. name .. "/00001.png"):match "IDAT.*" end
check(pixels "a" == pixels "b", "a word with vectors of its own draws another picture than their rows")
check(T.read(place .. "/words/b/00001.png"):find "TI hashes: \"My%-Word: %x+\"", "the picture names the embedding")
code, out = burin(draw:format("models/tiny-sd.safetensors", "c", "--embedding models/tiny-sd.safetensors", "x"))
check(code == 65 and out:find "no textual inversion", "a checkpoint as an embedding: %d %s", code, out)
code, out = burin "inspect --summary My-Word.safetensors"
check(code == 0 and out:find "textual inversion for an unknown model: the word 'My%-Word'" and out:find "vectors%s+2",
  "inspect: %s", out)

T.finish()
