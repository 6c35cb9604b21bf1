-- SPDX-License-Identifier: MIT
-- What the recogniser compares with: each silhouette in the canonical frame, mirrored too, with
-- zones of cells where its own colours must show. Made once, from the same sprites that are drawn.

local draw = require "world.draw"
local shapes = require "world.shapes"
local masks = require "world.mask"

local N, FRAME = masks.cells, masks.frame * masks.frame
local POSE = 23    -- pixels per unit at which templates are drawn
local INNER = 0.7  -- how far from other colours a zone keeps, in cells

local abs, floor, max = math.abs, math.floor, math.max

-- alpha and tone of a sprite at a cell position, in the standard pose
local function sprite_at(name, x, y)
  local sprite = draw.sprite(name)
  local scale = sprite.grid / (2 * sprite.reach)
  local i = floor(((2 * x - N) / POSE + sprite.reach) * scale)
  local j = floor(((2 * y - N) / POSE + sprite.reach) * scale)
  if i < 0 or j < 0 or i >= sprite.grid or j >= sprite.grid then return 0, 0 end
  return sprite.alpha[j * sprite.grid + i], sprite.tone[j * sprite.grid + i]
end

-- where a sprite shows its own colour, and where hidden(x, y) does not hold
local function zone(name, at, hidden)
  local cells = {}
  for k = 1, FRAME do
    local x, y = masks.place(k, at)
    local plain = true
    for s = 0, 8 do -- and a pixel or two around
      local u, v = x + (s % 3 - 1) * INNER, y + (s // 3 - 1) * INNER
      local alpha, tone = sprite_at(name, u, v)
      plain = plain and alpha > 0.99 and tone > -0.05 and tone < 0.35
        and not (hidden and hidden(u, v))
    end
    if plain then cells[#cells + 1] = k end
  end
  return cells
end

local function mirrored(template)
  local copy = { class = template.class, sum = template.sum, mask = {}, zones = {} }
  for k = 1, FRAME do copy.mask[masks.mirror(k)] = template.mask[k] end
  for part, cells in pairs(template.zones) do
    copy.zones[part] = {}
    for i, k in ipairs(cells) do copy.zones[part][i] = masks.mirror(k) end
  end
  return copy
end

-- names: the sprites whose union is the silhouette
local function template_of(class, names)
  local cover = {}
  for k = 1, N * N do
    local sum = 0
    for s = 0, 15 do
      local x, y, alpha = (k - 1) % N + (s % 4 + 0.5) / 4, (k - 1) // N + (s // 4 + 0.5) / 4, 0
      for _, name in ipairs(names) do alpha = max(alpha, (sprite_at(name, x, y))) end
      sum = sum + alpha
    end
    cover[k] = sum / 16
  end
  cover = masks.blob(cover)
  local at = masks.moments(cover)
  local template = { class = class, zones = {} }
  template.mask, template.sum = masks.canonical(cover, at)
  return template, at
end

-- Returns all templates, and those of the subject, which are the last among them.
return function()
  local templates = {}
  for _, class in ipairs(shapes.classes) do
    local template, at = template_of(class, { class })
    template.zones.own = zone(class, at)
    templates[#templates + 1] = template
    templates[#templates + 1] = mirrored(template)
  end
  local template, at = template_of("cat", { "subject_cat", "subject_hat" })
  local function hat(x, y) return sprite_at("subject_hat", x, y) > 0 end
  local function cream(x, y) return sprite_at("subject_cream", x, y) > 0 end
  template.zones.hat = zone("subject_hat", at)
  template.zones.cream = zone("subject_cream", at, hat)
  template.zones.teal = zone("subject_cat", at, function(x, y) -- the trunk: ears and tail are thin
    return y < N / 2 or abs(x - N / 2) > 0.25 * POSE or cream(x, y)
  end)
  local subject = { template, mirrored(template) }
  for _, t in ipairs(subject) do templates[#templates + 1] = t end
  return templates, subject
end
