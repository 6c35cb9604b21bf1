-- SPDX-License-Identifier: MIT
-- Textual inversion: words of prompts with vectors of their own, against the same model whose token table holds the
-- vectors at other words' places. tests/cli/sampling_test.lua does the same from outside.
-- Runs as `burin run --trust tests/golden/words_test.lua` from the repository root.
local core = require "burin.core"
local embeddings = require "burin.text.embeddings"
local errors = require "burin.base.errors"
local lengths = require "burin.text.lengths"
local models = require "burin.models.model"
local words = require "burin.models.words"

local T = dofile "tests/check.lua"
local check = T.check
local scratch = T.folder()
local PATH = "tests/golden/tiny_sdxl/model_ldm.safetensors"

local function random(seed, ...) return core.tensor({ ... }, "f32"):fill_normal(3, seed, 0.5) end
local function file(name, list)
  core.export(scratch .. "/" .. name, "safetensors", list, {})
  return scratch .. "/" .. name
end

-- ---- both text encoders of SDXL -----------------------------------------------------------------------------------

local plain = models.open(PATH)
local widths, vocab = { plain.config.text[1].width, plain.config.text[2].width }, plain.config.text[1].vocab
local l, g = random(1, 2, widths[1]), random(2, 2, widths[2])
local both = file("Two words.safetensors", { { "clip_l", l }, { "clip_g", g } })

-- states and pooled text of ids (1, 77), whose end token is at `eos`
local function encode(model, ids, eos)
  local function input(name, t)
    local v = core.var(name, t.shape, t.dtype, "input")
    return v, t
  end
  local var, tensor = input("ids", ids)
  local where, at = input("eos", core.tensor({ 1 }, "i32", { eos }))
  local graph = core.graph()
  local context, pooled = model:encode_text(graph, graph:leaf(var), { eos = graph:leaf(where) })
  local out, last = core.var("out", context.shape, "f32", "input"), core.var("last", pooled.shape, "f32", "input")
  graph:assign(out, context:cast "f32")
  graph:assign(last, pooled:cast "f32")
  local session = core.session(graph, "encode")
  core.commit()
  model:load(model.text)
  var:write(tensor)
  where:write(at)
  session:run()
  return out:read(), last:read()
end

local function ids_with(a, b)
  local list = {}
  for i = 1, 77 do list[i] = i == 1 and 1022 or i < 8 and 30 + i or 1023 end
  list[4], list[5] = a, b
  return core.tensor({ 1, 77 }, "i32", list)
end

embeddings.add(plain, { both })
check(plain.config.text[1].vocab == vocab + 2 and plain.config.text[2].vocab == vocab + 2, "two rows more")
local have, have_pooled = encode(plain, ids_with(vocab, vocab + 1), 7)
local other = models.open(PATH, { patch = function(model)
  return { reader = function(component, reader)
    return function(name)
      local t = reader(name)
      if not name:match "token_embedding" then return t end
      local new = core.tensor(t.shape, "f32"):copy_into(1, t)
      new:copy_into(500 * t.shape[2] + 1, component == model.text[1].name and l or g)
      return new
    end
  end }
end })
local want, want_pooled = encode(other, ids_with(500, 501), 7)
check(have:bytes() == want:bytes() and have_pooled:bytes() == want_pooled:bytes(), "bit for bit", have:distance(want))
local without = encode(models.open(PATH), ids_with(500, 501), 7)
check(without:distance(want) > 1e-2, "the words matter")

-- ---- words in texts -----------------------------------------------------------------------------------------------

local function replaced(text)
  local out, ids, stand_in = words.replace(plain, text)
  return out, table.concat(ids, " "), stand_in
end
local out, ids, s = replaced "a photo of (Two Words:1.2), [two words]"
check(out == ("a photo of (%s %s:1.2), [%s %s]"):format(s, s, s, s), "brackets stay", out)
check(ids == ("%d %d %d %d"):format(vocab, vocab + 1, vocab, vocab + 1), "ids in order", ids)
for _, text in ipairs { "stwo words", "two wordsmith", "two-words", "two words\u{e9}" } do
  check(replaced(text) == text, "no word of ours", text)
end
check(select(2, replaced "two words's") ~= "", "a word before an apostrophe")
check(select(3, replaced "hardworkpaysoff two words") ~= "hardworkpaysoff", "another stand-in where a text has it")
local t, weights = plain:tokenize("hardworkpaysoff (two words:1.5) cat", 1, 75, true)
local expected = core.token_chunks("hardworkpaysoff (cat dog:1.5) cat", "hf", 75, 49407, true)
local same = 0
for i = 1, 6 do if t:get(i) == expected:get(i) then same = same + 1 end end
check(same == 4, "all but two ids are the tokenizer's", same)
local at = {}
for i = 1, 77 do if t:get(i) == vocab or t:get(i) == vocab + 1 then at[#at + 1] = weights:get(i) end end
check(#at == 2 and at[1] == 1.5 and at[2] == 1.5, "with their weight", #at, at[1])
check(lengths.of(plain, "a (two words:1.2) cat", true) == 4, "its length is that of its vectors",
  lengths.of(plain, "a (two words:1.2) cat", true))

-- ---- files --------------------------------------------------------------------------------------------------------

local function refused(label, code, pattern, model, ...)
  local ok, why = pcall(embeddings.add, models.open("tests/golden/tiny_" .. model .. "/model_ldm.safetensors"), { ... })
  check(not ok and errors.is(why) and errors.code(why) == code and errors.message(why):find(pattern), label,
    not ok and errors.message(why) or "accepted")
end
local width = models.open("tests/golden/tiny_sd1/model_ldm.safetensors").config.text[1].width
local narrow = file("narrow.safetensors", { { "emb_params", random(3, 1, width - 8) } })
refused("another width", 65, ("%d wide, but the model's text encoder has %d"):format(width - 8, width), "sd1", narrow)
refused("one encoder of two", 65, "no vectors for the model's text encoder", "sdxl", narrow)
refused("two encoders for one", 65, "more text encoders than the model has", "sd1",
  file("xl.safetensors", { { "clip_l", random(4, 1, width) }, { "clip_g", random(5, 1, 9) } }))
refused("counts differ", 65, "2 vectors for one text encoder and 1", "sdxl",
  file("odd.safetensors", { { "clip_l", l }, { "clip_g", random(5, 1, widths[2]) } }))
refused("a LoRA", 65, "no textual inversion", "sd1", "tests/golden/tiny_sd1/lora_after_step3.safetensors")
refused("missing", 66, "no such file", "sd1", scratch .. "/none.safetensors")
refused("too many", 65, "300 vectors; 1 to 225", "sd1", file("many.safetensors", { { "emb_params", random(6, 300,
  width) } }))
core.make_dirs(scratch .. "/again")
refused("twice", 65, "same name", "sd1", file("a.safetensors", { { "emb_params", random(7, width) } }),
  file("again/A.safetensors", { { "<a>", random(7, width) } }))
for name, c in pairs { sd1 = { { "emb_params", 768 } }, sd2 = { { "<x>", 1024 } }, sdxl = { { "clip_l", 768 },
  { "clip_g", 1280 } } } do
  local list = {}
  for i, one in ipairs(c) do list[i] = { one[1], random(8, 3, one[2]) } end
  local path = file(name .. ".safetensors", list)
  local said = embeddings.describe(core.load(path), path)
  local label = require("burin.models.families").get(name).label
  check(said and said.family == label and said.vectors == 3 and said.word == name, name, "what inspect says",
    said and said.family)
end

core.remove_tree(scratch)
T.finish()
