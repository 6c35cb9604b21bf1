-- SPDX-License-Identifier: MIT
-- Paints the world's images. Each silhouette is rasterised once, finely, into a sprite (coverage
-- and tone); an image is a background with sprites sampled onto it, about a millisecond's work.

local shapes = require "world.shapes"

local draw = { size = 64 }
local SIZE = draw.size
local FINE, GRID = 192, 96 -- a sprite's cells across, before and after smoothing
local REACH = 1.1          -- and its half width in the frame of the silhouettes
local OUTLINE, OUTLINE_TONE = 0.085, -0.52

local char, unpack, concat = string.char, table.unpack, table.concat
local floor, min, max = math.floor, math.min, math.max

-- splitmix64: a stream of numbers in [0, 1) that is a pure function of the seed
function draw.random(seed)
  local state = seed * 0x2545F4914F6CDD1D + 0x1234567
  return function()
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    z = z ~ (z >> 31)
    return (z >> 11) * 2.0 ^ -53
  end
end

-- ---- sprites ----

local function inside_poly(p, x, y)
  local inside, n = false, #p
  local x1, y1 = p[n - 1], p[n]
  for i = 1, n, 2 do
    local x2, y2 = p[i], p[i + 1]
    if (y1 > y) ~= (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1 then
      inside = not inside
    end
    x1, y1 = x2, y2
  end
  return inside
end

local inside = {
  poly = function(p, x, y) return inside_poly(p[1], x, y) end,
  ellipse = function(p, x, y)
    local u, v = (x - p[1]) / p[3], (y - p[2]) / p[4]
    return u * u + v * v <= 1
  end,
  stroke = function(p, x, y)
    local dx, dy = p[3] - p[1], p[4] - p[2]
    local t = ((x - p[1]) * dx + (y - p[2]) * dy) / (dx * dx + dy * dy)
    t = max(0, min(1, t))
    local u, v = x - p[1] - t * dx, y - p[2] - t * dy
    return u * u + v * v <= p[5] * p[5]
  end,
}

local function bounds(p)
  if p.kind == "ellipse" then return p[1] - p[3], p[2] - p[4], p[1] + p[3], p[2] + p[4] end
  if p.kind == "stroke" then
    local r = p[5]
    return min(p[1], p[3]) - r, min(p[2], p[4]) - r, max(p[1], p[3]) + r, max(p[2], p[4]) + r
  end
  local x1, y1, x2, y2 = 9, 9, -9, -9
  for i = 1, #p[1], 2 do
    x1, x2 = min(x1, p[1][i]), max(x2, p[1][i])
    y1, y2 = min(y1, p[1][i + 1]), max(y2, p[1][i + 1])
  end
  return x1, y1, x2, y2
end

-- the tone of every fine cell that the silhouette covers
local function paint(primitives)
  local cells, step = {}, 2 * REACH / FINE
  for _, p in ipairs(primitives) do
    local test, tone = inside[p.kind], p.tone
    local x1, y1, x2, y2 = bounds(p)
    for j = max(0, floor((y1 + REACH) / step)), min(FINE - 1, floor((y2 + REACH) / step)) do
      local y = (j + 0.5) * step - REACH
      for i = max(0, floor((x1 + REACH) / step)), min(FINE - 1, floor((x2 + REACH) / step)) do
        local k = j * FINE + i
        if (tone == nil or cells[k]) and test(p, (i + 0.5) * step - REACH, y) then
          if tone == "hole" then cells[k] = nil else cells[k] = tone or 0 end
        end
      end
    end
  end
  return cells
end

-- A darker rim keeps a white cat visible on snow.
local function outline(cells)
  local radius, ring = OUTLINE * FINE / (2 * REACH), {}
  for a = 0, 15 do
    local angle = math.pi * a / 8
    ring[#ring + 1] = floor(radius * math.sin(angle) + 0.5) * FINE
      + floor(radius * math.cos(angle) + 0.5)
  end
  local rim = {}
  for k in pairs(cells) do
    for r = 1, #ring do
      if not cells[k + ring[r]] then
        rim[#rim + 1] = k
        break
      end
    end
  end
  for _, k in ipairs(rim) do cells[k] = min(cells[k], OUTLINE_TONE) end
end

-- cut(y) of the frame's rows keeps a row when it returns true
local function sprite_of(primitives, cut)
  local cells = paint(primitives)
  outline(cells)
  local alpha, tone, ratio = {}, {}, FINE // GRID
  for j = 0, GRID - 1 do
    for i = 0, GRID - 1 do
      local a, t = 0, 0
      for jj = j * ratio, j * ratio + ratio - 1 do
        if not cut or cut((jj + 0.5) * 2 * REACH / FINE - REACH) then
          for ii = i * ratio, i * ratio + ratio - 1 do
            local c = cells[jj * FINE + ii]
            if c then a, t = a + 1, t + c end
          end
        end
      end
      alpha[j * GRID + i] = a / (ratio * ratio)
      tone[j * GRID + i] = t / (ratio * ratio) -- premultiplied by alpha
    end
  end
  return { alpha = alpha, tone = tone, grid = GRID, reach = REACH }
end

local function in_band(y)
  for _, band in ipairs(shapes.subject_bands) do
    if y >= band[1] and y < band[2] then return true end
  end
  return false
end

local sprites = {}

-- name: a class, "subject_cat", "subject_cream" (its pale bands) or "subject_hat"
function draw.sprite(name)
  if not sprites[name] then
    if name == "subject_cream" then
      sprites[name] = sprite_of(shapes.silhouettes.subject_cat, in_band)
    else
      sprites[name] = sprite_of(shapes.silhouettes[name])
    end
  end
  return sprites[name]
end

-- ---- images ----

local grounds = {}

local function ground(name)
  if not grounds[name] then
    local pixels, scenery, n = {}, shapes.scenery[name], 0
    for y = 0, SIZE - 1 do
      for x = 0, SIZE - 1 do
        local add = { scenery.texture(x, y) }
        for c = 1, 3 do -- room at both ends, so that the shade jitter never clips
          n = n + 1
          pixels[n] = max(8, min(247, floor(scenery.base[c] + add[c] + 0.5)))
        end
      end
    end
    grounds[name] = pixels
  end
  return grounds[name]
end

-- the background with a little shade of its own, mirrored or not
local function canvas_of(name, random)
  local source, canvas = ground(name), {}
  local mirror = random() < 0.5
  local shade = floor(random() * 11) - 5
  local dr, dg, db = shade + floor(random() * 5) - 2, shade + floor(random() * 5) - 2, shade
  local k = 1
  for y = 0, SIZE - 1 do
    local from, step = y * SIZE * 3 + 1, 3
    if mirror then from, step = from + (SIZE - 1) * 3, -3 end
    for _ = 1, SIZE do
      canvas[k], canvas[k + 1], canvas[k + 2] =
        source[from] + dr, source[from + 1] + dg, source[from + 2] + db
      k, from = k + 3, from + step
    end
  end
  return canvas
end

-- pose: cx, cy in pixels; scale in pixels per unit; mirror
local function blend(canvas, sprite, rgb, pose)
  local alpha, tone = sprite.alpha, sprite.tone
  local cells = GRID / (2 * REACH * pose.scale) -- grid cells per pixel
  local half = REACH * pose.scale
  local r0, g0, b0 = rgb[1], rgb[2], rgb[3]
  for y = max(0, floor(pose.cy - half)), min(SIZE - 1, floor(pose.cy + half)) do
    local v = (y + 0.5 - pose.cy + half) * cells - 0.5
    local j = floor(v)
    if j >= 0 and j < GRID - 1 then
      local fy = v - j
      local light = 1.05 - 0.17 * v / GRID -- a soft light from above
      for x = max(0, floor(pose.cx - half)), min(SIZE - 1, floor(pose.cx + half)) do
        local u = (x + 0.5 - pose.cx) * cells
        u = (pose.mirror and -u or u) + half * cells - 0.5
        local i = floor(u)
        if i >= 0 and i < GRID - 1 then
          local fx, k = u - i, j * GRID + i
          local w11 = fx * fy
          local w01, w10 = fx - w11, fy - w11
          local w00 = 1 - fx - w10
          local a = w00 * alpha[k] + w01 * alpha[k + 1] + w10 * alpha[k + GRID]
            + w11 * alpha[k + GRID + 1]
          if a > 0 then
            local t = (w00 * tone[k] + w01 * tone[k + 1] + w10 * tone[k + GRID]
              + w11 * tone[k + GRID + 1]) / a
            local gain, lift = light, 0
            if t < 0 then gain = light * (1 + t) else gain, lift = light * (1 - t), 255 * t end
            local c, rest = (y * SIZE + x) * 3 + 1, 1 - a
            canvas[c] = canvas[c] * rest + (r0 * gain + lift) * a
            canvas[c + 1] = canvas[c + 1] * rest + (g0 * gain + lift) * a
            canvas[c + 2] = canvas[c + 2] * rest + (b0 * gain + lift) * a
          end
        end
      end
    end
  end
end

local function bytes(canvas)
  local rows = {}
  for k = 1, #canvas do
    local v = canvas[k] + 0.5
    canvas[k] = v >= 255 and 255 or v // 1
  end
  for y = 0, SIZE - 1 do
    rows[y + 1] = char(unpack(canvas, y * SIZE * 3 + 1, (y + 1) * SIZE * 3))
  end
  return concat(rows)
end

local function random_pose(random)
  return {
    cx = SIZE / 2 + (random() * 2 - 1) * 3, cy = SIZE / 2 + (random() * 2 - 1) * 3,
    scale = 21.5 + random() * 3, mirror = random() < 0.5,
  }
end

-- an object's colour with a slight shade of its own
local function shaded(rgb, random)
  local shade = (random() * 2 - 1) * 6
  return { max(0, rgb[1] + shade), max(0, rgb[2] + shade), max(0, rgb[3] + shade) }
end

function draw.object(class, colour, background, random)
  local canvas = canvas_of(background, random)
  local pose = random_pose(random)
  blend(canvas, draw.sprite(class), shaded(shapes.palette[colour], random), pose)
  return bytes(canvas)
end

function draw.subject(background, random)
  local canvas, pose = canvas_of(background, random), random_pose(random)
  local rgb = shapes.subject_colours
  blend(canvas, draw.sprite "subject_cat", shaded(rgb.teal, random), pose)
  blend(canvas, draw.sprite "subject_cream", shaded(rgb.cream, random), pose)
  blend(canvas, draw.sprite "subject_hat", shaded(rgb.hat, random), pose)
  return bytes(canvas)
end

-- a background alone, for the recogniser's reference colours
function draw.scenery(name)
  return ground(name)
end

return draw
