-- SPDX-License-Identifier: MIT
-- data.lua - concepts to batches. The order of an epoch is a pure function of (seed, epoch), so a resumed run
-- needs no more than its step number.
local class = require "burin.base.class"
local core = require "burin.core"
local options = require "burin.base.options"
local rng = require "burin.base.rng"
local samplers = require "burin.sample.samplers"
local data = {}

local concept_schema = {
  images = { "string", required = true, help = "a folder of images, or of folders named like '10_sks dog'" },
  prompt = { "string", help = "caption of every image that has no caption file, or a blank one" },
  lines = { "string", one_of = { "first", "all", "any" },
    help = "which lines of a caption file count: the first (default), all, or any, one at a time" },
  repeats = { "integer", min = 1, max = 100000, help = "times each image is seen in an epoch" },
  weight = { "number", default = 1, min = 0, help = "loss weight" },
  prior = { "table", example = '{ prompt = "a photo of a dog" }',
    help = "prior preservation: { prompt =, count =, weight =, images = }" },
}
local prior_schema = {
  prompt = { "string", required = true, help = "what the class looks like without the subject" },
  count = { "integer", default = 100, min = 1, help = "class images; missing ones are generated" },
  weight = { "number", default = 1, min = 0, help = "loss weight" },
  images = { "string", help = "folder of class images of one's own, only read; missing ones are drawn elsewhere" },
  steps = { "integer", default = 30, min = 1, help = "sampler steps of generated images" },
  guidance = { "number", default = 7.5, help = "guidance scale of generated images" },
  sampler = { "string", default = "ddim", one_of = samplers.names, help = "sampler of generated images" },
}

-- Checks the concepts of a recipe and returns them with defaults. at: their place.
function data.concepts(list, at)
  if #list == 0 then options.fail_at(at, "concepts: at least one { images = ... } is needed") end
  local out = {}
  for i, given in ipairs(list) do
    out[i] = options.check("concept " .. i, given, concept_schema, at:at(i))
    if given.prior then out[i].prior = options.check("prior of concept " .. i, given.prior, prior_schema, at:at(i,
      "prior")) end
  end
  return out
end

-- kohya's bucket list for an area of resolution^2 pixels: sizes are multiples of `step` between min and max.
function data.bucket_sizes(resolution, min, max, step)
  local set, list, area = {}, {}, resolution * resolution
  local function add(w, h)
    local key = w .. "x" .. h
    if not set[key] then
      set[key] = true
      list[#list + 1] = { w = w, h = h }
    end
  end
  local square = resolution // step * step
  add(square, square)
  for w = min, max, step do
    local h = math.min(max, area // w // step * step)
    if h >= min then
      add(w, h)
      add(h, w)
    end
  end
  table.sort(list, function(a, b) return a.w < b.w or a.w == b.w and a.h < b.h end)
  return list
end

local function choose_bucket(sizes, w, h)
  local best, error_
  for _, s in ipairs(sizes) do
    if s.w == w and s.h == h then return s end
    local e = math.abs(w / h - s.w / s.h)
    if not error_ or e < error_ then best, error_ = s, e end
  end
  return best
end

local Dataset, new_dataset = class("dataset", {
  "o", "items", "sizes",
  "skipped",  -- { { path =, reason =, concept =, prior = } ... }
  "remarks",  -- what the owner of the pictures may not expect: { { text =, concept =, prior = } ... }
  "said",     -- sentences that are in the log already
})

local dataset_schema = {
  resolution = { "integer", required = true, min = 8, max = 4096,
    help = "pixels; the area of a picture is its square" },
  batch = { "integer", default = 1, min = 1, help = "pictures per batch" },
  seed = { "integer", default = 0, help = "of the order" },
  buckets = { "boolean", default = false, help = "group images by aspect ratio instead of cropping to squares" },
  granularity = { "integer", default = 16, min = 1, help = "sides are multiples of it where resolution is below 256" },
}

-- o: the fields above.
function data.new(o)
  o = options.check("burin.dataset", o, dataset_schema)
  local self = new_dataset { o = o, items = {}, skipped = {}, remarks = {}, said = {} }
  local r = o.resolution
  local step = r >= 256 and 64 or o.granularity
  self.sizes = o.buckets and data.bucket_sizes(r, math.max(step, r // 2 // step * step), r * 2, step)
    or { { w = r, h = r } }
  return self
end

-- The bucket that an image of this size falls into.
function Dataset:bucket_of(w, h) return choose_bucket(self.sizes, w, h) end

-- A picture's caption, where it is from, and the lines of its file, if there are several. Blank ones count as none.
local function caption_of(found, o)
  local text = found.caption or ""
  if text ~= "" then
    local lines = {}
    for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
    return o.lines == "all" and text:gsub("[,%s]*\n%s*", ", ") or lines[1], "file", #lines > 1 and lines or nil
  end
  if o.prompt and o.prompt:find "%S" then return o.prompt, "prompt" end
  if found.class_tokens then return found.class_tokens, "folder" end
  return "", "none"
end

-- An item of a picture that a source found; nil and the reason where it cannot be read.
local function new_item(self, found, o, extra)
  local ok, w, h = pcall(core.image_size, found.path)
  if not ok then return nil, (tostring(w):gsub("^.-: ", "", 1)) end
  local caption, from, lines = caption_of(found, o)
  local item = { path = found.path, caption = caption, caption_from = from, lines = lines and #lines, width = w,
    height = h, repeats = o.repeats or found.repeats, bucket = self:bucket_of(w, h) }
  for k, v in pairs(extra) do item[k] = v end
  if lines and o.lines == "any" then  -- the same picture with each of its captions
    item.variants = {}
    for i, line in ipairs(lines) do item.variants[i] = setmetatable({ caption = line }, { __index = item }) end
  end
  return item
end

local NAMED = 3  -- pictures in a remark; the rest is counted

-- What is to be said of sizes that are hardly meant.
local function remark_sizes(items, remark)
  local function name(text, odd)
    local names = {}
    for i = 1, math.min(#odd, NAMED) do
      names[i] = ("%s (%d x %d)"):format(odd[i].path, odd[i].width, odd[i].height)
    end
    if #odd > NAMED then names[#names + 1] = ("and %d more"):format(#odd - NAMED) end
    if #odd > 0 then remark("%s: %s", text, table.concat(names, ", ")) end
  end
  local small, long = {}, {}
  for _, item in ipairs(items) do
    local w, h, b = item.width, item.height, item.bucket
    if w * h * 4 < b.w * b.h then small[#small + 1] = item end
    if math.max(w, h) > 8 * math.min(w, h) then long[#long + 1] = item end
  end
  name("enlarged, since they have less than a quarter of their bucket's pixels", small)
  name("longer than 8 : 1, so that most is cut off", long)
end

-- What is to be said of the captions of items.
local function remark_captions(items, o, remark)
  local blank, several, example = 0, 0, nil
  for _, item in ipairs(items) do
    if item.caption_from == "none" then blank, example = blank + 1, example or item.path end
    if item.lines then several = several + 1 end
  end
  if blank > 0 then
    remark("%d of %d pictures have no caption (no file, no prompt, no folder like '10_name') and are learnt without "
      .. "words; the first is %s", blank, #items, example)
  end
  if several > 0 and not o.lines then
    remark("%d of %d captions have several lines, of which the first is taken; lines = 'all' or 'any' takes the others "
      .. "too, lines = 'first' says that this is meant", several, #items)
  end
end

-- Adds the images of a folder. o: prompt (caption of images without one), lines, repeats. extra: fields copied into
-- each item (weight, prior, concept). Returns how many were added.
function Dataset:add(location, o, extra)
  extra = extra or {}
  local found, skipped, remarks = core.source(location, { repeats = o.repeats })
  local added = 0
  local function skip(path, reason)
    table.insert(self.skipped, { path = path, reason = reason, concept = extra.concept, prior = extra.prior })
  end
  for _, s in ipairs(skipped) do skip(s.path, s.reason) end
  for _, text in ipairs(remarks) do
    table.insert(self.remarks, { text = text, concept = extra.concept, prior = extra.prior })
  end
  for _, f in ipairs(found) do
    local item, reason = new_item(self, f, o, extra)
    if item then
      table.insert(self.items, item)
      item.index = #self.items
      added = added + 1
    else
      skip(f.path, reason)
    end
  end
  local function remark(text, ...)
    local of = extra.concept and ("concept %d: "):format(extra.concept) or ""
    table.insert(self.remarks, { text = of .. text:format(...), concept = extra.concept, prior = extra.prior })
  end
  local items = table.move(self.items, #self.items - added + 1, #self.items, 1, {})
  remark_sizes(items, remark)
  remark_captions(items, o, remark)
  return added
end

local function copy(list) return table.move(list, 1, #list, 1, {}) end

-- The same pictures in a dataset of its own: what is added there is not added here.
function Dataset:copy()
  return new_dataset { o = self.o, items = copy(self.items), skipped = copy(self.skipped), remarks = copy(self.remarks),
    said = self.said, sizes = self.sizes }
end

-- Says which pictures were left out, and what else is to be said of them, since the last time.
function Dataset:report()
  local function say(text)
    if not self.said[text] then core.log("warn", text) end
    self.said[text] = true
  end
  for _, s in ipairs(self.skipped) do say(("%s left out: %s"):format(s.path, s.reason)) end
  for _, r in ipairs(self.remarks) do say(r.text) end
end

local function without_priors(list)
  local kept = {}
  for _, row in ipairs(list) do if not row.prior then kept[#kept + 1] = row end end
  return kept
end

function Dataset:drop_priors()
  self.items, self.skipped, self.remarks = without_priors(self.items), without_priors(self.skipped),
    without_priors(self.remarks)
end

-- Prior images are shown as often as instance images in total: their repeats are dealt out round-robin, and a
-- surplus is left out (kohya's rule for regularization images).
function Dataset:balance_priors()
  local wanted, priors = {}, {}
  for _, item in ipairs(self.items) do
    local c = item.concept or 0
    wanted[c], priors[c] = wanted[c] or 0, priors[c] or {}
    if item.prior then table.insert(priors[c], item) else wanted[c] = wanted[c] + item.repeats end
  end
  for c, list in pairs(priors) do
    for i, item in ipairs(list) do
      item.repeats = wanted[c] // #list + (i <= wanted[c] % #list and 1 or 0)
    end
  end
end

-- Every caption of an item that may be learnt.
function data.captions(item)
  local list = {}
  for i, v in ipairs(item.variants or { item }) do list[i] = v.caption end
  return list
end

-- The buckets in use: list of { w, h, count }.
function Dataset:buckets()
  local list, seen = {}, {}
  for _, item in ipairs(self.items) do
    local key = item.bucket
    if not seen[key] then
      seen[key] = { w = key.w, h = key.h, bucket = key, count = 0 }
      list[#list + 1] = seen[key]
    end
    seen[key].count = seen[key].count + item.repeats
  end
  return list
end

function Dataset:steps_per_epoch()
  local n = 0
  for _, b in ipairs(self:buckets()) do n = n + (b.count + self.o.batch - 1) // self.o.batch end
  return n
end

-- The weights of a batch of which only the first n items are real: fillers count nothing, and the mean over the whole
-- batch becomes the mean over the real ones.
local function weights_of(items, n)
  local weights = {}
  for i, item in ipairs(items) do weights[i] = i <= n and (item.weight or 1) * (#items / n) or 0 end
  return weights
end

-- Every picture, and what becomes of it; class images that are yet to be drawn are left out.
function Dataset:images()
  local list = {}
  for _, item in ipairs(self.items) do
    if item.path then
      local b = item.bucket
      local w, h, left, top = core.image_fit(item.width, item.height, b.w, b.h)
      list[#list + 1] = { path = item.path, concept = item.concept, prior = item.prior or false, repeats = item.repeats,
        captions = data.captions(item), caption_from = item.caption_from, lines = item.lines or 1, width = item.width,
        height = item.height, bucket = { b.w, b.h }, resized = { w, h }, crop = { left, top } }
    end
  end
  return list
end

-- The number of pictures of a bucket, the one that is cut most and the one that is enlarged most.
local function add_to_bucket(of, image)
  local w, h, bucket = image.resized[1], image.resized[2], image.bucket
  local key = bucket[1] .. "x" .. bucket[2]
  local b = of[key]
  if not b then
    b = { bucket = bucket, pictures = 0, cut = 0, enlarged = 1 }
    of[key], of[#of + 1] = b, b
  end
  b.pictures = b.pictures + 1
  local cut, enlarged = 1 - bucket[1] * bucket[2] / (w * h), math.max(w / image.width, h / image.height)
  if cut > b.cut then b.cut, b.cut_path = cut, image.path end
  if enlarged > b.enlarged then b.enlarged, b.enlarged_path = enlarged, image.path end
end

-- What there is of each concept, and of its class images: { { concept =, prior =, pictures =, views = (in an epoch),
-- captions = { file =, prompt =, folder =, none = }, several = (captions of several lines), buckets = { { bucket =,
-- pictures =, cut =, cut_path =, enlarged =, enlarged_path = } ... }, left_out = { { path =, reason = } ... },
-- remarks = { text ... } } ... }.
function Dataset:summary()
  local list, index = {}, {}
  local function of(row)
    local key = (row.concept or 0) .. (row.prior and "p" or "")
    if not index[key] then
      index[key] = { concept = row.concept, prior = row.prior or false, pictures = 0, views = 0, several = 0,
        buckets = {}, captions = { file = 0, prompt = 0, folder = 0, none = 0 }, left_out = {}, remarks = {} }
      list[#list + 1] = index[key]
    end
    return index[key]
  end
  local buckets = {}
  for _, image in ipairs(self:images()) do
    local c = of(image)
    buckets[c] = buckets[c] or {}
    c.pictures, c.views = c.pictures + 1, c.views + image.repeats
    c.captions[image.caption_from] = c.captions[image.caption_from] + 1
    if image.lines > 1 then c.several = c.several + 1 end
    add_to_bucket(buckets[c], image)
  end
  for c, rows in pairs(buckets) do c.buckets = copy(rows) end
  for _, s in ipairs(self.skipped) do table.insert(of(s).left_out, { path = s.path, reason = s.reason }) end
  for _, r in ipairs(self.remarks) do table.insert(of(r).remarks, r.text) end
  return list
end

-- Batches of an epoch (0-based): list of { bucket =, items = { batch items }, weights = { of the loss } }. A short last
-- batch of a bucket is filled from the bucket's own start, so that every batch has one static shape; the fillers weigh
-- nothing, so that each picture counts as often as its repeats say.
function Dataset:epoch(epoch)
  local batches = {}
  for k, b in ipairs(self:buckets()) do
    local order, choose = {}, rng.new(self.o.seed, epoch * 1024 + 512 + k)
    for _, item in ipairs(self.items) do
      if item.bucket == b.bucket then
        local v = item.variants
        for _ = 1, item.repeats do order[#order + 1] = v and v[choose(#v)] or item end
      end
    end
    rng.shuffle(order, rng.new(self.o.seed, epoch * 1024 + k))
    for first = 1, #order, self.o.batch do
      local items = {}
      for i = 0, self.o.batch - 1 do items[#items + 1] = order[(first + i - 1) % #order + 1] end
      batches[#batches + 1] = { bucket = b.bucket, items = items,
        weights = weights_of(items, math.min(self.o.batch, #order - first + 1)) }
    end
  end
  return rng.shuffle(batches, rng.new(self.o.seed, epoch * 1024))
end

-- The batches of an epoch, grouped into updates of `accumulate`. The last update of an epoch may have fewer.
function Dataset:updates(epoch, accumulate)
  local updates = {}
  for i, batch in ipairs(self:epoch(epoch)) do
    if i % accumulate == 1 or accumulate == 1 then updates[#updates + 1] = {} end
    table.insert(updates[#updates], batch)
  end
  return updates
end

-- for step, batch in d:batches{ epochs = 2 } do ... end
function Dataset:batches(o)
  local step, epoch, list, at = 0, -1, {}, 0
  return function()
    at = at + 1
    if at > #list then
      epoch, at = epoch + 1, 1
      if epoch >= (o and o.epochs or 1) then return nil end
      list = self:epoch(epoch)
    end
    step = step + 1
    return step, list[at]
  end
end

return data
