-- SPDX-License-Identifier: MIT
-- The lengths of captions and prompts from outside: what `plan` and the log say of them, training on all tokens of long
-- ones, with live text encoders as with cached states, weights in captions.
--   lua5.4 tests/recipes/text_test.lua BURIN SCRATCH-FOLDER, from the repository's root
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
local check = T.check
T.private_cache()
T.in_one_process()

local function base(name) return ('burin.model "tests/golden/%s/model_ldm.safetensors"'):format(name) end
local function lora(text_encoder) return ("burin.lora { rank = 2, text_encoder = %s }"):format(text_encoder) end

-- A folder of pictures with these captions.
local function pictures(name, captions)
  local folder = T.folder(name)
  for i, caption in ipairs(captions) do
    T.shell(("cp 'examples/sks-cat/10_sks cat/1-grass.png' %s"):format(T.quote(("%s/%d.png"):format(folder, i))))
    T.write(("%s/%d.txt"):format(folder, i), caption)
  end
  return ("{ { images = %q } }"):format(folder)
end

-- The same, with class images of this prompt.
local function with_prior(name, captions, prompt)
  local prior = (', prior = { prompt = %q, count = 1, steps = 1 } } }'):format(prompt)
  return (pictures(name, captions):gsub(" } }$", prior))
end

-- Words of one letter, since the reference models know 1,024 tokens; the k-th is `last`, when that is given.
local function words(n, last)
  local list = {}
  for i = 1, n do list[i] = string.char(97 + i * 7 % 26) end
  list[n] = last or list[n]
  return table.concat(list, " ")
end

local function said(line, recipe)
  local code, out = T.run(line:format(T.quote(recipe)))
  check(code == 0, "%s: %d %s", line:format(recipe), code, out)
  return out
end

-- ---- what is said -------------------------------------------------------------------------------------------------

local tags = {}  -- 489 tokens: `tag number 0, tag number 1, ...`
for i = 0, 99 do tags[#tags + 1] = "tag number " .. i end
tags = table.concat(tags, ", ")

local long = T.recipe("long", { concepts = pictures("long", { tags, "a cat" }) })
local plan = said("plan --device null %s", long)
check(plan:find("texts  captions of 225 tokens (the longest has 489)", 1, true), "plan of a long caption: %s", plan)
check(plan:find("/1.png: 489 tokens are cut to 225 at 'tag', word 142", 1, true), "plan names no cut: %s", plan)
local json = said("plan --device null %s --json", long)
for _, field in ipairs { '"word": ?"tag"', '"tokens": ?489', '"longest": ?489', '"at": ?142' } do
  check(json:find(field), "plan --json lacks %s: %s", field, json)
end

for _, case in ipairs { { "a cat", 75, 2 }, { words(75), 75, 75 }, { words(76), 150, 76 }, { words(200), 225, 200 } } do
  plan = said("plan --device null %s", T.recipe("fits", { concepts = pictures("fits", { "a", case[1] }) }))
  local line = ("texts  captions of %d tokens (the longest has %d)\n"):format(case[2], case[3])
  check(plan:find(line, 1, true), "plan of a caption of %d tokens: %s", case[3], plan)
end

-- Seven captions that are cut: five are listed; all are in the JSON. The same one twice is one.
local seven = {}
for i = 1, 7 do seven[i] = words(225 + i) end
seven[8] = seven[1]
local many = T.recipe("many", { concepts = pictures("seven", seven) })
plan = said("plan --device null %s", many)
check(select(2, plan:gsub("tokens are cut to 225", "")) == 5
  and plan:find("captions that are cut, and are not listed: 2", 1, true)
  and plan:find("/1.png and 1 more: 226 tokens", 1, true), "seven cut captions: %s", plan)
check(select(2, said("plan --device null %s --json", many):gsub('"word"', "")) == 7, "plan --json has not all seven")

-- Weights that captions have, and that nobody reads.
local weights = pictures("weights", { "a (b:1.3) c, d (e)", "a b" })
plan = said("plan --device null %s", T.recipe("unread", { concepts = weights }))
check(plan:find("captions with weights such as (word:1.2) that are read as words: 1; weighted_captions", 1, true),
  "weights that are not read: %s", plan)
plan = said("plan --device null %s", T.recipe("read", { concepts = weights, weighted_captions = "true" }))
check(not plan:find("weights such as", 1, true) and plan:find("the longest has 6)", 1, true),
  "weights that are read: %s", plan)

-- Prompts have lengths of their own: a long one changes nothing of the captions.
local drawn = ('{ prompts = { "a", "(%s:1.2) --n %s" } }'):format(words(100), words(230))
local prior = with_prior("prompts", { "a cat" }, words(80))
plan = said("plan --device null %s", T.recipe("prompts", { sample = drawn, concepts = prior }))
check(plan:find("captions of 150 tokens (the longest has 80)\n", 1, true), "a long class prompt is a caption: %s", plan)
check(plan:find("sample prompts of 225 tokens (the longest has 230)\n", 1, true)
  and plan:find("the negative of sample prompt 2: 230 tokens are cut to 225", 1, true), "long sample prompts: %s", plan)
check(plan:find("class prompts of 150 tokens (the longest has 80)\n", 1, true) and plan:find "class images step",
  "long class prompts: %s", plan)

-- A setting that a family leaves no choice of.
local skips = { clip_skip = "2", concepts = pictures("skips", { "a cat" }) }
local quiet = said("plan --device null %s", T.recipe("skips", skips))
skips.base = base "tiny_sdxl"
local aloud = said("plan --device null %s", T.recipe("skips", skips))
check(aloud:find("clip_skip = 2 is not used", 1, true) and not quiet:find "not used", "clip_skip: %s", aloud)

local code, out = T.run("plan " .. T.quote(T.recipe("wrong", { max_tokens = "100" })))
check(code == 78 and out:find "wrong.lua:%d+: .*max_tokens.* 75, 150, 225", "max_tokens = 100: %d %s", code, out)

-- ---- what is learnt -----------------------------------------------------------------------------------------------

local runs = 0
-- Trains on captions; returns its losses, gradient norms, output folder.
local function train(fields, captions)
  runs = runs + 1
  local name = "run" .. runs
  local output = T.folder(name)
  local usual = { base = base "tiny_sd1", method = lora "false", steps = "1", batch = "2", max_grad_norm = "0",
    concepts = pictures(name .. "-pictures", captions) }
  for k, v in pairs(fields) do usual[k] = v end
  out = said("train %s --output " .. T.quote(output), T.recipe(name, usual))
  local folder = output .. "/tiny"
  return T.metrics(folder, "loss"), T.metrics(folder, "grad_norm"), folder, out
end
local function near(a, b) return math.abs(a / b - 1) < 1e-5 end

-- All of 200 words are learnt from, as live as cached; texts of different lengths share a batch.
local one, other = { words(200), "b c" }, { words(200, "q"), "b c" }
local still = "burin.adamw { lr = 2e-3, text_encoder_lr = 0 }"
local cached, _, folder, log = train({ steps = "2" }, one)
local live = train({ steps = "2", method = lora "true", optimizer = still }, one)
check(#cached == 2 and #live == 2 and near(cached[1], live[1]) and near(cached[2], live[2]),
  "losses %s cached, %s live", table.concat(cached, " "), table.concat(live, " "))
check(train({}, other)[1] ~= cached[1], "the 200th word changes nothing")
check(log:find("captions of 225 tokens (the longest has 200)", 1, true), "the log: %s", log)
check(T.read(folder .. "/tiny.safetensors"):find '"ss_max_token_length": ?"225"', "ss_max_token_length")

local xl_cached = train({ base = base "tiny_sdxl", steps = "2" }, one)
local xl_live, norms = train({ base = base "tiny_sdxl", steps = "2", method = lora "true" }, one)
local _, other_norms = train({ base = base "tiny_sdxl", method = lora "true" }, other)
check(near(xl_cached[1], xl_live[1]), "SDXL: first loss %.8g cached, %.8g live", xl_cached[1], xl_live[1])
check(xl_cached[2] ~= xl_live[2], "SDXL: the text encoders learn nothing from long captions")
check(norms[1] ~= other_norms[1], "SDXL: the 200th word changes no gradient")

-- What is cut is not there: to 75 tokens, the first 75 words and all 200 are one caption, be weights read or not.
local short = train({}, { words(75), "b c" })
local cut, _, _, warned = train({ max_tokens = "75", weighted_captions = "true" }, { words(200), "b c" })
check(short[1] == cut[1] and warned:find "warning: .-200 tokens are cut to 75 at '%l', word 76",
  "cut: %.8g, not %.8g: %s", cut[1], short[1], warned)

-- Weights count where they are asked for, live as cached.
local function weighted(caption, text_encoder)
  return train({ weighted_captions = "true", method = lora(text_encoder) }, { caption, "b c" })[1]
end
local read, read_live = weighted("a (b:1.5) c", "false"), weighted("a (b:1.5) c", "true")
check(near(read, read_live), "weights: loss %.8g cached, %.8g live", read, read_live)
check(read ~= weighted("a b c", "false"), "weights change nothing")

-- Samples and class images of long prompts are drawn, each with a length of its own.
local _, _, drawing = train({ sample = ('{ prompts = { %q }, steps = 1 }'):format(words(80)),
  concepts = with_prior("drawn", { "a" }, words(160)) }, {})
check(T.read(drawing .. "/samples/step-000001-01.png"), "no sample of a long prompt")
T.finish()
