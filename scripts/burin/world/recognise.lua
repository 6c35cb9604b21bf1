-- SPDX-License-Identifier: MIT
-- Says what a picture of the world shows. It has to be right about pictures that a small model has
-- painted, so it measures with what survives blur, noise and wrong chroma: medians, the largest blob,
-- and the overlap of whole silhouettes. It gives no answer rather than a guess when nothing fits.

local shapes = require "burin.world.shapes"
local draw = require "burin.world.draw"
local masks = require "burin.world.mask"

local N, FRAME = masks.cells, masks.frame * masks.frame
local RING = 2              -- cells along the border that hardly any object reaches
local EDGE = 38             -- least colour distance from the background that makes a cell an object's
local THRESHOLDS = { 0, 0.3, 0.5 } -- ... and as shares of how far its brightest part is
local CLEAR = 0.88          -- a silhouette that fits this well needs no second look
local MIN_CELLS = 40        -- a smaller blob is no object
local MIN_IOU = 0.66        -- below this a silhouette is no class
local MAX_COLOUR, MAX_BACKGROUND = 80, 42 -- beyond these distances a colour has no name
local MIN_PART = 0.55       -- of each of the subject's parts, how much must have its colour
local LIGHTNESS = 0.6       -- the weight of lightness in a colour distance
local INNER = 0.7           -- how far from other colours a zone keeps, in cells
local POSE = 23             -- pixels per unit at which templates are drawn

local byte, floor, min, max, sqrt = string.byte, math.floor, math.min, math.max, math.sqrt

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2] or 0
end

-- Lightness counts for less than hue in telling colours apart: a blurred rim darkens, but does not tint.
local function distance(r, g, b, to)
  local dr, dg, db = r - to[1], g - to[2], b - to[3]
  local dy = 0.30 * dr + 0.59 * dg + 0.11 * db
  dr, dg, db = dr - dy, dg - dy, db - dy
  return sqrt(dr * dr + dg * dg + db * db + LIGHTNESS * dy * dy)
end

local function contrast(r, g, b, to)
  local dr, dg, db = r - to[1], g - to[2], b - to[3]
  return sqrt(dr * dr + dg * dg + db * db)
end

local function nearest(r, g, b, names, palette)
  local best, best_distance
  for _, name in ipairs(names) do
    local d = distance(r, g, b, palette[name])
    if not best or d < best_distance then best, best_distance = name, d end
  end
  return best, best_distance
end

-- pixels at half size, as three planes
local function halve(pixels)
  local R, G, B, k = {}, {}, {}, 0
  local row = draw.size * 3
  for y = 0, N - 1 do
    local top = { byte(pixels, 2 * y * row + 1, (2 * y + 1) * row) }
    local low = { byte(pixels, (2 * y + 1) * row + 1, (2 * y + 2) * row) }
    for x = 1, row, 6 do
      k = k + 1
      R[k] = (top[x] + top[x + 3] + low[x] + low[x + 3]) / 4
      G[k] = (top[x + 1] + top[x + 4] + low[x + 1] + low[x + 4]) / 4
      B[k] = (top[x + 2] + top[x + 5] + low[x + 2] + low[x + 5]) / 4
    end
  end
  return R, G, B
end

-- the median colour along the border
local function border(R, G, B)
  local r, g, b = {}, {}, {}
  for y = 0, N - 1 do
    for x = 0, N - 1 do
      if x < RING or y < RING or x >= N - RING or y >= N - RING then
        local k, n = y * N + x + 1, #r + 1
        r[n], g[n], b[n] = R[k], G[k], B[k]
      end
    end
  end
  return median(r), median(g), median(b)
end

-- ---- templates: a silhouette in the canonical frame, and zones of cells with a known colour ----

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

local templates, subject_templates

local function prepare()
  if templates then return end
  templates, subject_templates = {}, {}
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
  template.zones.teal = zone("subject_cat", at, function(x, y) return hat(x, y) or cream(x, y) end)
  subject_templates = { template, mirrored(template) }
  for _, t in ipairs(subject_templates) do templates[#templates + 1] = t end
end

-- ---- matching ----

-- the templates that fit best at first sight
local function shortlist(own, at, count)
  local shape, sum = masks.canonical(own, at)
  local ranked = {}
  for i, template in ipairs(templates) do
    ranked[i] = { template = template, index = i,
      iou = masks.overlap(shape, sum, template.mask, template.sum) }
  end
  table.sort(ranked, function(a, b)
    if a.iou ~= b.iou then return a.iou > b.iou end
    return a.index < b.index
  end)
  local list = {}
  for i = 1, count do list[i] = ranked[i].template end
  return list
end

-- The best of them when the blob's centre and radius may be a little wrong: template, at, iou, and the
-- iou of the second best class.
local function fit(own, around, candidates)
  local best, of_class = { iou = -1, second = 0 }, {}
  for pose = 0, 26 do
    local dx, dy, scale = pose % 3 - 1, pose // 3 % 3 - 1, pose // 9 - 1
    local at = {
      radius = around.radius * (1 + 0.06 * scale),
      x = around.x + 0.07 * dx * around.radius, y = around.y + 0.07 * dy * around.radius,
    }
    local shape, sum = masks.canonical(own, at)
    for _, template in ipairs(candidates) do
      local iou = masks.overlap(shape, sum, template.mask, template.sum)
      of_class[template.class] = max(of_class[template.class] or 0, iou)
      if iou > best.iou then best.iou, best.template, best.at = iou, template, at end
    end
  end
  for class, iou in pairs(of_class) do
    if class ~= best.template.class then best.second = max(best.second, iou) end
  end
  return best
end

-- The silhouette against a background colour. A faint object needs a low threshold and a bright one
-- with bleeding colours a high one, so both are tried and the clearer answer counts.
local function silhouette(planes, middle)
  local R, G, B = planes[1], planes[2], planes[3]
  local far, sorted = {}, {}
  for k = 1, N * N do
    far[k] = contrast(R[k], G[k], B[k], middle)
    sorted[k] = far[k]
  end
  table.sort(sorted)
  local strong = sorted[N * N * 7 // 8] -- objects cover a quarter to a third
  local best
  for _, share in ipairs(THRESHOLDS) do
    local level = max(EDGE, share * strong)
    if not best or best.iou < CLEAR and level > best.level then
      local mask = {}
      for k = 1, N * N do mask[k] = max(0, min(1, 0.5 + (far[k] - level) / (0.8 * level))) end
      local own, count = masks.blob(mask)
      if count >= MIN_CELLS then
        local around = masks.moments(own)
        local found = fit(own, around, shortlist(own, around, 5))
        found.level = level
        if not best or found.iou > best.iou then best = found end
      end
    end
  end
  return best
end

-- calls visit(r, g, b) for every cell of a zone of a fitted template, dy cells lower
local function each(cells, at, dy, planes, visit)
  for _, k in ipairs(cells) do
    local x, y = masks.place(k, at)
    x, y = floor(x), floor(y + dy)
    if x >= 0 and y >= 0 and x < N and y < N then
      local c = y * N + x + 1
      visit(planes[1][c], planes[2][c], planes[3][c])
    end
  end
end

local function own_colour(found, planes)
  local r, g, b = {}, {}, {}
  each(found.template.zones.own, found.at, 0, planes, function(cr, cg, cb)
    local n = #r + 1
    r[n], g[n], b[n] = cr, cg, cb
  end)
  return nearest(median(r), median(g), median(b), shapes.colours, shapes.palette)
end

-- what the subject's parts are told from: each other and the world's colours, except that the hat is
-- red and that cream may fade to white
local part_names, part_palette = { "teal", "cream", "hat" }, {}
for name, rgb in pairs(shapes.subject_colours) do part_palette[name] = rgb end
for _, name in ipairs(shapes.colours) do
  if name ~= "red" and name ~= "white" then
    part_names[#part_names + 1], part_palette[name] = name, shapes.palette[name]
  end
end

-- Of each part of the subject, the share of cells that have its colour. The silhouette says little
-- about left and right, or about a cell up or down, so the best of those counts.
local function subject_parts(found, planes)
  local best
  for _, template in ipairs(subject_templates) do
    for dy = -1, 1, 0.5 do
      local share = {}
      for part, cells in pairs(template.zones) do
        local hits, total = 0, 0
        each(cells, found.at, dy, planes, function(r, g, b)
          total = total + 1
          if nearest(r, g, b, part_names, part_palette) == part then hits = hits + 1 end
        end)
        share[part] = hits / max(1, total)
      end
      share.least = min(share.teal, share.cream, share.hat)
      if not best or share.least > best.least then best = share end
    end
  end
  return best
end

local bases = {}
for name, scenery in pairs(shapes.scenery) do bases[name] = scenery.base end

return function(pixels)
  assert(#pixels == draw.size * draw.size * 3, "world.recognise: needs 64*64*3 bytes")
  prepare()
  local R, G, B = halve(pixels)
  local middle = { border(R, G, B) }
  local background, far = nearest(middle[1], middle[2], middle[3], shapes.backgrounds, bases)
  local scores = { background_distance = far, iou = 0, margin = 0 }
  local result = { subject = false, scores = scores }
  if far <= MAX_BACKGROUND then result.background = background end

  local planes = { R, G, B }
  local found = silhouette(planes, middle)
  if not found then return result end
  scores.iou, scores.margin = found.iou, found.iou - found.second
  if found.iou >= MIN_IOU then result.class = found.template.class end

  if found.template.zones.own then
    local colour, off = own_colour(found, planes)
    scores.colour_distance = off
    if off <= MAX_COLOUR then result.colour = colour end
  else
    local share = subject_parts(found, planes)
    scores.teal, scores.cream, scores.hat = share.teal, share.cream, share.hat
    result.subject = result.class == "cat" and share.least >= MIN_PART
  end
  return result
end
