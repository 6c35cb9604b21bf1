-- SPDX-License-Identifier: MIT
-- conditioning.lua - from prompts to what the U-Net is told: text states with A1111's weights, and for SDXL the pooled
-- text and the picture's size. (word:1.2), (word), [word] and a backslash before a literal bracket are read; states are
-- multiplied by the weights as sd-scripts does, without restoring their mean.
local class = require "burin.base.class"
local core = require "burin.core"
local models = require "burin.models.model"
local conditioning = {}

local Conditioning, new_conditioning = class "conditioning"

-- o: rows (prompts at a time), tokens (75, 150, 225: the length that prompts are padded or cut to), clip_skip, width
-- and height in pixels (SDXL).
function conditioning.new(model, o)
  local chunks = (o.tokens or 75) // 75
  local self = new_conditioning { model = model, rows = o.rows, tokens = chunks * 75, ids = {} }
  local function input(name, shape, dtype) return core.var("prompt." .. name, shape, dtype or "f32", "input") end
  for i in ipairs(model.text) do self.ids[i] = input("ids." .. i, { o.rows * chunks, 77 }, "i32") end
  self.weights = input("weights", { o.rows * chunks, 77 })
  local added = model.config.unet.added
  if added then
    self.eos, self.sizes = input("eos", { o.rows }, "i32"), input("sizes", { o.rows, 6 })
    self.size = { o.height, o.width, 0, 0, o.height, o.width }
  end

  local g, ids = core.graph(), {}
  for i, var in ipairs(self.ids) do ids[i] = g:leaf(var) end
  local states, pooled = model:encode_text(g, ids, { clip_skip = o.clip_skip, chunks = chunks, weights = g:leaf(self.weights),
    eos = self.eos and g:leaf(self.eos) })
  self.context = input("context", states.shape)
  g:assign(self.context, states:cast "f32")
  if added then
    self.pooled = input("pooled", pooled.shape)
    g:assign(self.pooled, pooled:cast "f32")
  end
  self.session = core.session(g, "sample.text")
  return self
end

-- Encodes texts once and for all: write() then needs no text encoder for them.
function Conditioning:keep(texts)
  local kept = {}
  for first = 1, #texts, self.rows do
    local round = {}
    for i = 1, self.rows do round[i] = texts[math.min(first + i - 1, #texts)] end
    self:write(round)
    local context, pooled = self.context:read(), self.pooled and self.pooled:read()
    for i, text in ipairs(round) do kept[text] = { context = context:rows(i), pooled = pooled and pooled:rows(i) } end
  end
  self.kept = kept
end

local function put_rows(var, texts, kept, name)
  local all = core.tensor(var.shape, "f32")
  for i, text in ipairs(texts) do all:copy_into((i - 1) * (all.count // #texts) + 1, kept[text][name]) end
  var:write(all)
end

local function recall(self, texts)
  for _, text in ipairs(texts) do
    if not (self.kept and self.kept[text]) then return false end
  end
  put_rows(self.context, texts, self.kept, "context")
  if self.pooled then put_rows(self.pooled, texts, self.kept, "pooled") end
  return true
end

local function encode(self, texts)
  local chunks, model, last = self.tokens // 75, self.model, nil
  local weights = core.tensor(self.weights.shape, "f32")
  for i, var in ipairs(self.ids) do
    last = core.tensor(var.shape, "i32")
    for k, text in ipairs(texts) do
      local at = (k - 1) * chunks * 77 + 1
      local ids, w = model:tokenize(text, i, self.tokens, true)
      last:copy_into(at, ids)
      weights:copy_into(at, w)
    end
    var:write(last)
  end
  self.weights:write(weights)
  if self.eos then self.eos:write(models.eos_rows(last, chunks)) end
  self.session:run()
end

-- One text per row, encoded unless it was kept.
function Conditioning:write(texts)
  if not recall(self, texts) then encode(self, texts) end
  if self.sizes then
    local sizes = core.tensor(self.sizes.shape, "f32")
    for k = 0, self.rows - 1 do sizes:copy_into(6 * k + 1, core.tensor({ 6 }, "f32", self.size)) end
    self.sizes:write(sizes)
  end
end

-- The last two arguments of model:predict.
function Conditioning:leaves(graph)
  return graph:leaf(self.context), self.pooled and { pooled = graph:leaf(self.pooled), time_ids = graph:leaf(self.sizes) }
end

-- Whether a text has at most this many tokens.
function conditioning.fits(model, text, tokens)
  local ids = model:tokenize(text, 1, tokens + 75, true)
  return ids:get(tokens // 75 * 77 + 2) == 49407  -- the end mark of core/data/chunks.c
end

return conditioning
