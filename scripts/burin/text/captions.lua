-- SPDX-License-Identifier: MIT
-- captions.lua - what a batch tells the U-Net beside the latents: text, and for SDXL the pooled text and six sizes.
-- The text encoders are either part of the training graph (live: they are trained), fed with token ids, or they run once
-- per caption and their results are cached.
local class = require "burin.base.class"
local cache = require "burin.base.cache"
local core = require "burin.core"
local models = require "burin.models.model"
local captions = {}

local Captions, new_captions = class "captions"

-- o: live, clip_skip
function captions.new(model, o)
  return new_captions { model = model, live = o.live, clip_skip = o.clip_skip,
    added = model.config.unet.added and true }
end

local function declare_text(self, vars, name, b)
  local text = self.model.config.text
  for i, t in ipairs(text) do vars["ids" .. i] = core.var(name:format("ids" .. i), { b, t.tokens }, "i32", "input") end
  if self.added then vars.eos = core.var(name:format "eos", { b }, "i32", "input") end
end

local function declare_states(self, vars, name, b)
  vars.context = core.var(name:format "context", self.model:context_shape(b), "f32", "input")
  local text = self.model.config.text
  if self.added then vars.pooled = core.var(name:format "pooled", { b, text[#text].projection }, "f32", "input") end
end

local function encode(self, graph, vars)
  local ids = {}
  for i = 1, #self.model.config.text do ids[i] = graph:leaf(vars["ids" .. i]) end
  return self.model:encode_text(graph, ids, { clip_skip = self.clip_skip, eos = vars.eos and graph:leaf(vars.eos) })
end

-- Variables of a batch of b; name: a pattern for theirs, such as "batch.%s".
function Captions:declare(name, b)
  local vars = {}
  if self.live then declare_text(self, vars, name, b) else declare_states(self, vars, name, b) end
  if self.added then vars.sizes = core.var(name:format "sizes", { b, 6 }, "f32", "input") end
  return vars
end

-- -> context, extra: the last two arguments of model:predict
function Captions:trace(graph, vars)
  local context, pooled
  if self.live then
    context, pooled = encode(self, graph, vars)
  else
    context, pooled = graph:leaf(vars.context), vars.pooled and graph:leaf(vars.pooled)
  end
  return context, vars.sizes and { pooled = pooled, time_ids = graph:leaf(vars.sizes) }
end

-- The session that encodes one text: made once, used by `fill`.
function Captions:trace_encoder()
  if self.live then return end
  self.vars = {}
  declare_text(self, self.vars, "encode.%s", 1)
  declare_states(self, self.vars, "encode.%s", 1)
  local graph = core.graph()
  local context, pooled = encode(self, graph, self.vars)
  graph:assign(self.vars.context, context:cast "f32")
  if self.added then graph:assign(self.vars.pooled, pooled:cast "f32") end
  self.session = core.session(graph, "encode.text")
  return self.session
end

-- Sizes that SDXL is conditioned on, in pixels: the picture's (height, width), where the crop begins (top, left) once it
-- has been resized to cover its bucket, the bucket's (height, width). The rule is Stability's, as kohya's programs have it.
function captions.sizes(item)
  local b, scale = item.bucket, math.max(item.bucket.w / item.width, item.bucket.h / item.height)
  local function crop(size, target) return math.max(0, math.floor((math.floor(size * scale + 0.5) - target) / 2)) end
  return core.tensor({ 6 }, "f32", { item.height, item.width, crop(item.height, b.h), crop(item.width, b.w), b.h, b.w })
end

-- Gives an item (caption, bucket, width, height) what `write` gathers. key: of all that the text encoders are.
function Captions:fill(item, key)
  local text = {}
  for i, t in ipairs(self.model.config.text) do text["ids" .. i] = self.model:tokenize(item.caption, i) end
  if self.added then
    text.eos = models.eos_rows(text["ids" .. #self.model.config.text])
    item.sizes = captions.sizes(item)
  end
  if self.live then
    for name, t in pairs(text) do item[name] = t end
    return
  end
  self.texts = self.texts or {}  -- captions repeat
  local states = self.texts[item.caption] or cache.get("captions", core.hash(item.caption .. "\0" .. key), function()
    for name, t in pairs(text) do self.vars[name]:write(t) end
    self.session:run()
    return { context = self.vars.context:read(), pooled = self.added and self.vars.pooled:read() or nil }
  end)
  self.texts[item.caption] = states
  item.context, item.pooled = states.context, states.pooled
end

-- Writes the variables of a batch.
function Captions:write(vars, items)
  for name, var in pairs(vars) do
    local out = core.tensor(var.shape, var.dtype)
    local each = out.count // #items
    for i, item in ipairs(items) do out:copy_into((i - 1) * each + 1, item[name]) end
    if name == "eos" then  -- rows of all texts, one after the other
      local tokens = self.model.config.text[1].tokens
      for i = 1, #items do out:set(i, out:get(i) + (i - 1) * tokens) end
    end
    var:write(out)
  end
end

return captions
