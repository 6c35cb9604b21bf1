-- SPDX-License-Identifier: MIT
-- words.lua - words of prompts that stand for vectors of their own, as textual inversion learns them (Gal et al. 2022):
-- each becomes further rows of the text encoders' token tables. The tokenizer does not know these words, so a word is
-- replaced by as many copies of one that is a single token and that the text does not have, and their ids by those of
-- the rows afterwards; brackets and weights around a word keep their meaning.
local core = require "burin.core"
local words = {}

-- Single tokens of CLIP's vocabulary that hardly anyone writes.
local stand_ins = { "hardworkpaysoff", "abhcosmetics", "epiconetsy", "wexmondays", "fakespeare", "asiangames",
  "learnenglish", "thcentury" }

local TABLE = "text_model.embeddings.token_embedding.weight"

-- Adds words to a model, before anything of it is traced. list: { { name =, vectors = { a tensor (n, width) for each
-- text encoder } } ... }, of shapes that fit.
function words.add(model, list)
  local first = model.config.text[1].vocab
  local added = { list = {}, rows = {}, first = first }
  for _, word in ipairs(list) do
    local n = word.vectors[1].shape[1]
    added.list[#added.list + 1] = { name = word.name:lower(), first = first, n = n }
    first = first + n
    for i, vectors in ipairs(word.vectors) do
      local name = model.text[i].name
      added.rows[name] = added.rows[name] or {}
      table.insert(added.rows[name], vectors)
      model.config.text[i].vocab = model.config.text[i].vocab + n
    end
  end
  added.stop = first
  table.sort(added.list, function(a, b) return #a.name > #b.name end)
  model.words = added
end

-- reader -> one whose token table has the rows of the model's words too.
function words.reader(model, component, reader)
  local rows = model.words and model.words.rows[component]
  if not rows then return reader end
  return function(name)
    local t = reader(name)
    if name ~= TABLE or not t then return t end
    local width, n = t.shape[2], t.shape[1]
    for _, vectors in ipairs(rows) do n = n + vectors.shape[1] end
    local all = core.tensor({ n, width }, "f32"):copy_into(1, t)
    local at = t.count + 1
    for _, vectors in ipairs(rows) do
      all:copy_into(at, vectors)
      at = at + vectors.count
    end
    return all
  end
end

local function is_part(c) return c:match "[%w_\x80-\xff]" ~= nil end

-- Whether the letters at first..last of a text are a whole word there.
local function stands_alone(text, first, last)
  local function joined(inner, outer) return is_part(text:sub(inner, inner)) and is_part(text:sub(outer, outer)) end
  return not (first > 1 and joined(first, first - 1)) and not (last < #text and joined(last, last + 1))
end

-- The first of the words in a lower-case text from a byte on, the longest of those that begin there: it, first, last.
local function next_word(list, text, from)
  local best, at, stop
  for _, word in ipairs(list) do
    local first, last = text:find(word.name, from, true)
    while first and not stands_alone(text, first, last) do first, last = text:find(word.name, first + 1, true) end
    if first and (not at or first < at) then best, at, stop = word, first, last end
  end
  return best, at, stop
end

local function stand_in_for(text)
  for _, word in ipairs(stand_ins) do
    if not text:find(word, 1, true) then return word end
  end
  return stand_ins[1]
end

-- A text with the model's words replaced; the ids that belong there, in order; the word that stands there.
function words.replace(model, text)
  if not model.words then return text, {} end
  local lower, from, parts, ids = text:lower(), 1, {}, {}
  local stand_in = stand_in_for(lower)
  while true do
    local word, first, last = next_word(model.words.list, lower, from)
    if not word then break end
    parts[#parts + 1] = text:sub(from, first - 1) .. (stand_in .. " "):rep(word.n):sub(1, -2)
    for i = 0, word.n - 1 do ids[#ids + 1] = word.first + i end
    from = last + 1
  end
  return table.concat(parts) .. text:sub(from), ids, stand_in
end

-- Puts the ids of words where their stand-ins are, in token ids (changed).
function words.restore(tokens, ids, stand_in, flavour)
  local wanted, at = #ids > 0 and core.tokenize(stand_in, flavour)[1], 0
  if not wanted then return end
  for k = 1, tokens.count do
    if tokens:get(k) == wanted and at < #ids then
      at = at + 1
      tokens:set(k, ids[at])
    end
  end
end

return words
