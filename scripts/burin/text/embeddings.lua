-- SPDX-License-Identifier: MIT
-- embeddings.lua - files of textual inversion: vectors that a word of prompts stands for. Layouts, by their keys:
-- A1111's emb_params (.safetensors) and string_to_param (.pt), diffusers' <word> (learned_embeds), and clip_l, clip_g
-- of models with two text encoders (A1111's modules/textual_inversion/textual_inversion.py; diffusers' loaders/
-- textual_inversion.py).
local core = require "burin.core"
local errors = require "burin.base.errors"
local families = require "burin.models.families"
local words = require "burin.models.words"
local embeddings = {}

local fail = errors.file
local MOST = 225  -- vectors: no prompt has more tokens
local floats = { f32 = true, f16 = true, bf16 = true, f64 = true }

-- A file's stem, which is the word.
local function stem(path) return (path:match "[^/]*$":gsub("%.%w+$", "")) end

-- The text encoder that a key says, "" where it says none; nil when it is no key of such a file.
local function encoder_of(key, alone)
  if key:match "^clip_[lgh]$" then return key end
  if key == "emb_params" or key:match "^string_to_param%." or alone and key:match "^<.*>$" then return "" end
end

-- What is in an opened file: { [text encoder or ""] = { dims } }, nil when it is no textual inversion.
local function look(f)
  local all, found = f:names(), {}
  for _, key in ipairs(all) do
    local encoder, info = encoder_of(key, #all == 1), f:info(key)
    local dims = #info.shape
    if not encoder or found[encoder] or (dims ~= 1 and dims ~= 2) or not floats[info.dtype] then return nil end
    found[encoder] = { key = key, n = dims == 2 and info.shape[1] or 1, width = info.shape[dims] }
  end
  return next(found) and found or nil
end

-- The family whose text encoders have these widths.
local function family_of(found)
  for _, family in families.each() do
    local text, fits = family.published and family.published().text or {}, 0
    for i, config in ipairs(text) do
      local own = found[family.text[i].native] or #text == 1 and found[""]
      fits = fits + (own and own.width == config.width and 1 or 0)
    end
    local n = 0
    for _ in pairs(found) do n = n + 1 end
    if fits == #text and fits == n then return family end
  end
end

-- What an opened file is, for people: { word =, vectors =, widths =, family = its label or nil }; nil when it is no
-- textual inversion.
function embeddings.describe(f, path)
  local found = look(f)
  if not found then return nil end
  local widths, family, n = {}, family_of(found), nil
  for _, one in pairs(found) do
    widths[#widths + 1], n = one.width, math.max(n or 0, one.n)
  end
  table.sort(widths)
  return { word = stem(path), vectors = n, widths = table.concat(widths, " and "), family = family and family.label }
end

-- The vectors of one text encoder of a model, as f32.
local function vectors_of(f, path, one, width, label)
  if not one then fail(path, "it has no vectors for the model's %s", label) end
  if one.width ~= width then
    fail(path, "its vectors are %d wide, but the model's %s has %d: it was made for another kind of model", one.width,
      label, width)
  end
  if one.n < 1 or one.n > MOST then fail(path, "it has %d vectors; 1 to %d are read", one.n, MOST) end
  local t = f:read(one.key):cast "f32":reshape { one.n, one.width }
  if not t:stats().finite then fail(path, "%s holds a NaN or an infinity", one.key) end
  return t
end

-- Reads a file for a model -> { name =, vectors = } as words.add takes it.
local function read(path, model)
  local f = errors.guard("input", core.load, path)
  local found, text = look(f), model.config.text
  if not found then
    fail(path, "this is no textual inversion (keys emb_params, string_to_param, <word>, or clip_l and clip_g)")
  end
  local vectors, used = {}, 0
  for i, config in ipairs(text) do
    local label = i == 1 and "text encoder" or "second text encoder"
    local one = found[model.family.text[i].native] or #text == 1 and found[""] or nil
    vectors[i], used = vectors_of(f, path, one, config.width, label), used + 1
    if config.vocab ~= text[1].vocab then fail(path, "the model's text encoders have vocabularies of two sizes") end
    if vectors[i].shape[1] ~= vectors[1].shape[1] then
      fail(path, "it has %d vectors for one text encoder and %d for the other", vectors[1].shape[1],
        vectors[i].shape[1])
    end
  end
  for _ in pairs(found) do used = used - 1 end
  if used < 0 then fail(path, "it has vectors for more text encoders than the model has") end
  return { name = stem(path), vectors = vectors }
end

-- Makes the stems of files words of a model's prompts, before anything of it is traced.
function embeddings.add(model, paths)
  local list, seen = {}, {}
  for i, path in ipairs(paths or {}) do
    if not core.exists(path) then errors.raise("input", path .. ": there is no such file") end
    list[i] = read(path, model)
    local name = list[i].name:lower()
    if not name:find "%S" then fail(path, "its name is no word") end
    if seen[name] then fail(path, "%s has the same name, so prompts cannot tell them apart", seen[name]) end
    seen[name] = path
    core.log("info", ("'%s' in prompts: %d vectors of %s"):format(list[i].name, list[i].vectors[1].shape[1], path))
  end
  if #list > 0 then words.add(model, list) end
end

return embeddings
