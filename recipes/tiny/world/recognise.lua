-- SPDX-License-Identifier: MIT
-- Says what a picture of the world shows. It has to be right about pictures that a small model
-- painted, so it measures with what survives blur, noise and wrong chroma: medians, the largest
-- blob, and the overlap of whole silhouettes. It gives no answer rather than a guess.

local shapes = require "world.shapes"
local draw = require "world.draw"
local masks = require "world.mask"
local make_templates = require "world.templates"

local N = masks.cells
local RING = 2              -- cells along the border that hardly any object reaches
local CLEAR = 0.88          -- a silhouette that fits this well needs no second look
local MIN_CELLS, MAX_CELLS = 60, 560 -- a smaller or larger blob is no object
local MIN_IOU = 0.66        -- below this a silhouette is no class
local MAX_COLOUR, MAX_BACKGROUND = 80, 42 -- beyond these distances a colour has no name
local MIN_PART = 0.5        -- of each of the subject's parts, how much must have its colour
local LIGHTNESS = 0.6       -- the weight of lightness in a colour distance

local byte, abs, floor, min, max = string.byte, math.abs, math.floor, math.min, math.max
local sqrt = math.sqrt

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2] or 0
end

-- Lightness counts for less than hue in telling colours apart: a blurred rim darkens, but does not
-- tint.
local function distance(r, g, b, to)
  local dr, dg, db = r - to[1], g - to[2], b - to[3]
  local dy = 0.30 * dr + 0.59 * dg + 0.11 * db
  dr, dg, db = dr - dy, dg - dy, db - dy
  return sqrt(dr * dr + dg * dg + db * db + LIGHTNESS * dy * dy)
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

local templates, subject_templates -- made at the first picture

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

-- The best of them when the blob's centre and radius may be a little wrong: template, at, iou, and
-- the iou of the second best class.
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

-- How far each cell is from the background's colour, and what the brightest parts reach.
local function contrasts(planes, middle, measure)
  local far, sorted = {}, {}
  for k = 1, N * N do
    far[k] = measure(planes[1][k] - middle[1], planes[2][k] - middle[2], planes[3][k] - middle[3])
    sorted[k] = far[k]
  end
  table.sort(sorted)
  return far, sorted[N * N * 7 // 8] -- objects cover a quarter to a third of the picture
end

local function euclid(dr, dg, db) return sqrt(dr * dr + dg * dg + db * db) end
local function lightness(dr, dg, db) return abs(0.30 * dr + 0.59 * dg + 0.11 * db) end

-- A faint object needs a low threshold, a bright one whose colours bleed a high one or none of the
-- colours: each is tried until the silhouette is clear, and the clearest counts.
local LOOKS = {
  { measure = euclid, least = 38, share = 0 }, { measure = euclid, least = 38, share = 0.35 },
  { measure = lightness, least = 22, share = 0 }, { measure = lightness, least = 22, share = 0.4 },
}

local function silhouette(planes, middle)
  local best, far, strong, level
  for _, look in ipairs(LOOKS) do
    if best and best.iou >= CLEAR then break end
    if look.share == 0 then far, strong = contrasts(planes, middle, look.measure) end
    level = max(look.least, look.share * strong)
    local mask = {}
    for k = 1, N * N do mask[k] = max(0, min(1, 0.5 + (far[k] - level) / (0.8 * level))) end
    local own, count = masks.blob(mask)
    if count >= MIN_CELLS and count <= MAX_CELLS then
      local around = masks.moments(own)
      local found = fit(own, around, shortlist(own, around, 5))
      if not best or found.iou > best.iou then best = found end
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

-- what the subject's parts are told from: each other and the world's colours, except that the hat
-- is red and that cream may fade to white
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
  if not templates then templates, subject_templates = make_templates() end
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
