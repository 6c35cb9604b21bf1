-- SPDX-License-Identifier: MIT
-- lengths.lua - how many tokens texts have, the smallest length that holds them, and where longer ones are cut.
local core = require "burin.core"
local errors = require "burin.base.errors"
local words = require "burin.models.words"
local lengths = {}

-- Tokens that the text encoders are told of a text, without marks: pieces of 75, as in sd-scripts.
lengths.limits = { 75, 150, 225 }

-- The tokens of a text. weighted: (word:1.2) and the like are read, and are no tokens.
function lengths.of(model, text, weighted)
  local most, plain = 0, words.replace(model, text)
  for _, t in ipairs(model.tokenizers) do most = math.max(most, core.token_count(plain, t.flavour, weighted)) end
  return most
end

-- The smallest limit that holds n tokens; the largest when none does.
function lengths.holding(n)
  for _, limit in ipairs(lengths.limits) do
    if n <= limit then return limit end
  end
  return lengths.limits[#lengths.limits]
end

-- The words of a text: { { text =, stop = its last byte } ... }. A weight belongs to what it weighs.
local function words_of(text, weighted)
  local list, at = {}, 1
  while true do
    local first, stop = text:find("[%w_'\x80-\xff]+", at)
    if not first then return list end
    local _, weight = text:find("^:[+-]?[%d.]+%)", stop + 1)
    list[#list + 1] = { text = text:sub(first, stop), stop = weighted and weight or stop }
    at = list[#list].stop + 1
  end
end

-- The word at which a text of more tokens is cut, and its number, by halving: a long caption costs ten counts.
local function cut_at(model, text, tokens, weighted)
  local words = words_of(text, weighted)
  local low, high = 1, #words
  while low < high do
    local middle = (low + high) // 2
    local n = lengths.of(model, text:sub(1, words[middle].stop), weighted)
    if n > tokens then high = middle else low = middle + 1 end
  end
  return words[low] and words[low].text or text, low
end

-- texts: { { text =, from = where it is written } ... }. o: what (these texts, for messages), tokens (the length, where
-- it is set), weighted. Returns { what =, tokens = the length that they get, longest =, weighted =, plain = how many
-- have weights that are read as words, cut = { { from =, text =, tokens =, word =, at = its number, times = as many
-- texts are the same } ... } }.
function lengths.survey(model, texts, o)
  local survey = { what = o.what, longest = 0, weighted = o.weighted or false, cut = {}, plain = 0 }
  local seen, list = {}, {}
  for _, t in ipairs(texts) do
    local known = seen[t.text]
    if known then
      known.times = known.times + 1
    else
      local ok, n = pcall(lengths.of, model, t.text, o.weighted)
      if not ok then errors.file(t.from, "%s", errors.message(n)) end
      known = { from = t.from, text = t.text, tokens = n, times = 1 }
      seen[t.text], list[#list + 1] = known, known
      survey.longest = math.max(survey.longest, n)
    end
    if not o.weighted and t.text:find "%([^()]+:%d*%.?%d+%)" then survey.plain = survey.plain + 1 end
  end
  survey.tokens = o.tokens or lengths.holding(survey.longest)
  for _, t in ipairs(list) do
    if t.tokens > survey.tokens then
      t.word, t.at = cut_at(model, t.text, survey.tokens, o.weighted)
      table.insert(survey.cut, t)
    end
  end
  return survey
end

local LISTED = 5  -- cut texts in messages; the rest is counted

-- "pics/a.png: its 511 tokens are cut to 225 at 'number', word 97"
local function sentence(t, tokens)
  local word = utf8.len(t.word) and t.word:sub(1, (utf8.offset(t.word, 25) or 0) - 1) or t.word
  return ("%s%s: %d tokens are cut to %d at '%s', word %d"):format(t.from,
    t.times > 1 and (" and %d more"):format(t.times - 1) or "", t.tokens, tokens, word, t.at)
end

-- What to tell people of a survey: a line about the length, and lines about what the user may not expect.
function lengths.report(survey)
  local warnings = {}
  for i = 1, math.min(#survey.cut, LISTED) do warnings[i] = sentence(survey.cut[i], survey.tokens) end
  local function warn(text, ...) warnings[#warnings + 1] = text:format(...) end
  if #survey.cut > LISTED then warn("%s that are cut, and are not listed: %d", survey.what, #survey.cut - LISTED) end
  if survey.plain > 0 then
    warn("%s with weights such as (word:1.2) that are read as words: %d; weighted_captions = true reads the weights",
      survey.what, survey.plain)
  end
  return ("%s of %d tokens (the longest has %d)"):format(survey.what, survey.tokens, survey.longest), warnings
end

-- The same, into the log.
function lengths.log(survey)
  local line, warnings = lengths.report(survey)
  core.log("info", line)
  for _, text in ipairs(warnings) do core.log("warn", text) end
end

return lengths
