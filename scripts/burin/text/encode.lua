-- SPDX-License-Identifier: MIT
-- encode.lua - from texts, captions and prompts alike, to what the U-Net is told: text states, and where the family
-- has conditioning the pooled text and sizes. Texts are padded or cut to one number of tokens: in pieces of 75, each
-- with its two marks, whose states are joined. The text encoders are either part of the graph (live: they are trained),
-- fed with token ids, or they run once per text and their states are kept. Weighted texts, (word:1.2), have their
-- states multiplied by the weights, as sd-scripts does, without restoring their mean.
local class = require "burin.base.class"
local cache = require "burin.base.cache"
local clip = require "burin.models.clip"
local core = require "burin.core"
local errors = require "burin.base.errors"
local encode = {}

local Front, new_front = class("text", {
  "model", "tokens", "weighted", "clip_skip", "live",
  "added",            -- whether pooled text and sizes are told too
  "vars", "session",  -- what encodes one text, unless live
  "kept",             -- text -> { context =, pooled = }
})

-- o: tokens (75; see lengths.lua), weighted, clip_skip, live
function encode.new(model, o)
  return new_front { model = model, tokens = o.tokens or 75, weighted = o.weighted or false, clip_skip = o.clip_skip,
    live = o.live, added = model.config.unet.added and true, kept = {} }
end

-- ---- in graphs ----------------------------------------------------------------------------------------------------

-- A function that declares an input of this field into vars.
local function input_of(vars, name)
  return function(field, shape, dtype) vars[field] = core.var(name:format(field), shape, dtype or "f32", "input") end
end

local function declare_ids(self, vars, name, rows)
  local text, chunks, input = self.model.config.text, self.tokens // 75, input_of(vars, name)
  for i, t in ipairs(text) do input("ids" .. i, { rows * chunks, t.tokens }, "i32") end
  if self.weighted then input("weights", { rows * chunks, text[1].tokens }) end
  if self.added then input("eos", { rows }, "i32") end
end

local function declare_states(self, vars, name, rows)
  local text, input = self.model.config.text, input_of(vars, name)
  input("context", self.model:context_shape(rows, self.tokens))
  if self.added then input("pooled", { rows, text[#text].projection }) end
end

-- Variables of `rows` texts; name: a pattern for theirs, such as "batch.%s".
function Front:declare(name, rows)
  local vars = {}
  if self.live then declare_ids(self, vars, name, rows) else declare_states(self, vars, name, rows) end
  if self.added then input_of(vars, name)("sizes", { rows, #self.model.family.conditioning.sizes }) end
  return vars
end

local function trace_encoders(self, graph, vars)
  local ids = {}
  for i = 1, #self.model.config.text do ids[i] = graph:leaf(vars["ids" .. i]) end
  return self.model:encode_text(graph, ids, { clip_skip = self.clip_skip, chunks = self.tokens // 75,
    weights = vars.weights and graph:leaf(vars.weights), eos = vars.eos and graph:leaf(vars.eos) })
end

-- -> context, extra: the last two arguments of model:predict
function Front:trace(graph, vars)
  local context, pooled
  if self.live then
    context, pooled = trace_encoders(self, graph, vars)
  else
    context, pooled = graph:leaf(vars.context), vars.pooled and graph:leaf(vars.pooled)
  end
  return context, vars.sizes and { pooled = pooled, time_ids = graph:leaf(vars.sizes) }
end

-- The session that encodes one text, for `fill`: of one row, so that states do not depend on the texts beside them.
function Front:trace_encoder()
  if self.live then return end
  self.vars = {}
  declare_ids(self, self.vars, "encode.%s", 1)
  declare_states(self, self.vars, "encode.%s", 1)
  local graph = core.graph()
  local context, pooled = trace_encoders(self, graph, self.vars)
  graph:assign(self.vars.context, context:cast "f32")
  if self.added then graph:assign(self.vars.pooled, pooled:cast "f32") end
  self.session = core.session(graph, "encode.text")
  return self.session
end

-- ---- values -------------------------------------------------------------------------------------------------------

-- The sizes of these names, in pixels: the picture's (height, width), where the crop begins (top, left) once it has
-- been resized to cover its bucket, the bucket's (target height, width). The rule is Stability's, as kohya's programs
-- have it.
local function sizes_of(item, names)
  local b, sizes = item.bucket, { height = item.height, width = item.width }
  local _, _, left, top = core.image_fit(item.width, item.height, b.w, b.h)
  sizes.top, sizes.left, sizes.target_height, sizes.target_width = top, left, b.h, b.w
  local list = {}
  for i, name in ipairs(names) do list[i] = sizes[name] end
  return core.tensor({ #names }, "f32", list)
end

local function tokenize(self, text)
  local out, last = {}, nil
  for i = 1, #self.model.config.text do
    last, out.weights = self.model:tokenize(text, i, self.tokens, self.weighted)
    out["ids" .. i] = last
  end
  if self.added then out.eos = clip.eos_rows(last, self.tokens // 75, self.model.words) end
  return out
end

local function encode_one(self, text)
  for name, t in pairs(tokenize(self, text)) do self.vars[name]:write(t) end
  self.session:run()
  local states = { context = self.vars.context:read(), pooled = self.added and self.vars.pooled:read() or nil }
  for _, t in pairs(states) do
    if not t:finite() then
      errors.raise("internal", "the text encoders make a NaN or an infinity of '%s'; if they compute in f16, bf16 has "
        .. "a wider range", text)
    end
  end
  return states
end

-- Encodes texts once and for all: `fill` then needs no text encoder for them.
function Front:keep(texts)
  for _, text in ipairs(texts) do self.kept[text] = self.kept[text] or encode_one(self, text) end
end

-- What the states of a text depend on beside its words. how: what computes them, and in which types.
function Front:key(how)
  if self.live then return nil end
  local facts = { self.model:content_hash "text", self.clip_skip or 0, self.tokens, tostring(self.weighted), how }
  return table.concat(facts, "|")
end

-- States as they were kept, here or, under a key (see above), on disk; else new ones.
local function states_of(self, text, key)
  if self.kept[text] or not key then return self.kept[text] or encode_one(self, text) end
  self.kept[text] = cache.get("captions", core.hash(text .. "\0" .. key), function() return encode_one(self, text) end,
    { of = text:sub(1, 200) })
  return self.kept[text]
end

-- Gives an item (caption, bucket, width, height) what `write` gathers. key: optional, where the encoders do not change.
function Front:fill(item, key)
  item.text = self.live and tokenize(self, item.caption) or states_of(self, item.caption, key)
  if self.added then item.sizes = sizes_of(item, self.model.family.conditioning.sizes) end
end

-- Writes variables that `declare` made, a row for each item.
function Front:write(vars, items)
  for name, var in pairs(vars) do
    local out = core.tensor(var.shape, var.dtype)
    local each = out.count // #items
    for i, item in ipairs(items) do
      out:copy_into((i - 1) * each + 1, name == "sizes" and item.sizes or item.text[name])
    end
    if name == "eos" then  -- rows of all texts' pieces, one after the other
      local tokens = vars.ids1.count // #items
      for i = 1, #items do out:set(i, out:get(i) + (i - 1) * tokens) end
    end
    var:write(out)
  end
end

return encode
