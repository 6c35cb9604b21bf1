-- SPDX-License-Identifier: MIT
-- latents.lua - what the frozen networks make of pictures and captions: computed once, kept on disk.
local cache = require "burin.base.cache"
local core = require "burin.core"
local data = require "burin.train.data"
local errors = require "burin.base.errors"
local progress = require "burin.base.progress"
local latents = {}

-- The distribution of a picture's latents; nil and the reason when the picture cannot be decoded.
local function latents_of(plan, item, key, codec)
  local why
  local moments = cache.get("latents", key, function()
    local ok, image = pcall(core.image_load, item.path)
    if not ok then
      why = tostring(image)
      return nil
    end
    local b, e = item.bucket, plan.encoders[item.bucket]
    e.pixels:write(core.image_cover(image, b.w, b.h):affine(1 / 127.5, -1, "f32"))
    e.session:run()
    local read = e.moments:read()
    if not read:finite() then
      errors.raise("internal", "%s: the VAE makes a NaN or an infinity of this picture", item.path)
    end
    return read
  end, { of = core.real_path(item.path) or item.path, needs = codec })
  return moments, why
end

-- Goes on without pictures whose damage only decoding shows. A resumed run leaves out the same ones.
local function leave_out(plan, kept)
  local left, pictures = {}, plan.data
  for _, item in ipairs(kept) do if not item.prior then left[item.concept] = true end end
  pictures:report()
  for i, c in ipairs(plan.recipe.concepts) do
    if not left[i] then errors.raise("data", "concept %d: no usable image in '%s'", i, c.images) end
  end
  pictures.items = kept
  pictures:balance_priors()
end

-- Gives every item its latents and its text. Returns a hash of all that the items are.
function latents.fill(plan)
  local model, text, device = plan.model, plan.text, core.device()
  -- Other devices and types compute other bits: a cache that mixed them would make a run depend on earlier ones.
  local how = table.concat({ plan.settings.precision, device.name, device.driver, device.tier, device.engine }, "|")
  local vae_key = model:content_hash "vae" .. how
  local text_key = text:key(how)
  local items, kept, facts = plan.data.items, {}, {}
  local bar = progress.new("caching latents", #items)
  for i, item in ipairs(items) do
    local b = item.bucket
    local read, content, recipe = pcall(function() return core.hash_file(item.path), core.image_recipe(item.path) end)
    local why = not read and content
    if read then
      local key = table.concat({ content, recipe, vae_key, b.w .. "x" .. b.h }, "|")
      item.moments, why = latents_of(plan, item, core.hash(key), recipe)
    end
    if item.moments then
      kept[#kept + 1] = item
      local captions = table.concat(data.captions(item), "\n")
      facts[#facts + 1] = ("%s|%s|%dx%d|%s"):format(content, captions, b.w, b.h, item.prior or false)
      for _, variant in ipairs(item.variants or { item }) do text:fill(variant, text_key) end
    else
      table.insert(plan.data.skipped, { path = item.path, reason = why })
    end
    bar:update(i)
  end
  if text.tokens > 75 then facts[#facts + 1] = ("%d tokens"):format(text.tokens) end
  local key = core.hash(table.concat(facts, "\n"))
  if #kept < #items then leave_out(plan, kept) end
  return key
end

return latents
