-- SPDX-License-Identifier: MIT
-- What the world is made of: ten silhouettes, eight colours, six backgrounds, and the subject.
--
-- A silhouette is a list of primitives painted in order, in a frame where x and y run from -1 to 1
-- (y down). The last field of a primitive is its tone: nil is the object's own colour and adds to
-- the silhouette; a number only repaints what is already there, from -1 (black) to 1 (white).
-- "hole" cuts out.
-- The outlines differ already at 8x8 pixels, because the models trained here see 8x8 latents.

local shapes = {}

local function ellipse(x, y, rx, ry, tone)
  return { kind = "ellipse", x, y, rx, ry, tone = tone }
end

local function poly(points, tone)
  return { kind = "poly", points, tone = tone }
end

-- a thick line with round ends
local function stroke(x1, y1, x2, y2, r, tone)
  return { kind = "stroke", x1, y1, x2, y2, r, tone = tone }
end

local function box(x1, y1, x2, y2, tone)
  return poly({ x1, y1, x2, y1, x2, y2, x1, y2 }, tone)
end

local DARK, INK, LIGHT, GLOW = -0.4, -0.92, 0.7, 0.3

local function star_points(outer, inner)
  local points = {}
  for i = 0, 9 do
    local r, a = i % 2 == 0 and outer or inner, math.pi * (i / 5 - 0.5)
    points[#points + 1] = r * math.cos(a)
    points[#points + 1] = r * math.sin(a) + 0.08
  end
  return points
end

local function heart_points()
  local points = {}
  for i = 0, 47 do
    local t = 2 * math.pi * i / 48
    local y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
    points[#points + 1] = math.sin(t) ^ 3 * 0.98
    points[#points + 1] = -y / 16.5 - 0.12
  end
  return points
end

shapes.classes = { "cat", "dog", "fish", "bird", "tree", "house", "car", "star", "heart", "cup" }

shapes.silhouettes = {
  cat = { -- sitting, seen from the front, its tail to the side
    stroke(0.35, 0.80, 0.80, 0.76, 0.14), stroke(0.80, 0.76, 0.88, 0.30, 0.14),
    stroke(0.88, 0.30, 0.80, 0.08, 0.14),
    ellipse(0, 0.50, 0.57, 0.48), ellipse(-0.28, 0.86, 0.29, 0.14), ellipse(0.28, 0.86, 0.29, 0.14),
    ellipse(0, -0.26, 0.68, 0.48),
    poly { -0.70, -1.00, -0.68, -0.22, -0.06, -0.62 },
    poly { 0.70, -1.00, 0.68, -0.22, 0.06, -0.62 },
    poly({ -0.60, -0.82, -0.57, -0.52, -0.32, -0.64 }, DARK),
    poly({ 0.60, -0.82, 0.57, -0.52, 0.32, -0.64 }, DARK),
    ellipse(0, 0.58, 0.26, 0.27, GLOW), ellipse(-0.27, -0.28, 0.105, 0.14, INK),
    ellipse(0.27, -0.28, 0.105, 0.14, INK), ellipse(0, -0.02, 0.08, 0.055, DARK),
  },
  dog = { -- standing, seen from the side
    stroke(-0.72, 0.02, -0.90, -0.48, 0.12), stroke(-0.50, 0.12, 0.30, 0.10, 0.33),
    stroke(-0.64, 0.20, -0.66, 0.80, 0.18), stroke(-0.52, 0.20, -0.50, 0.80, 0.18),
    stroke(0.28, 0.20, 0.26, 0.80, 0.18), stroke(0.40, 0.10, 0.42, 0.80, 0.18),
    stroke(0.34, 0.00, 0.48, -0.40, 0.28), ellipse(0.50, -0.52, 0.36, 0.34),
    stroke(0.64, -0.40, 0.86, -0.36, 0.18),
    poly({ -0.59, 0.62, -0.55, 0.62, -0.55, 1, -0.59, 1 }, -0.5),
    poly({ 0.32, 0.62, 0.36, 0.62, 0.36, 1, 0.32, 1 }, -0.5),
    stroke(0.34, -0.62, 0.26, -0.24, 0.15, DARK), ellipse(0.64, -0.58, 0.085, 0.10, INK),
    ellipse(0.95, -0.44, 0.10, 0.09, INK),
  },
  fish = {
    ellipse(0.24, 0, 0.76, 0.56), poly { -0.20, 0, -1.00, -0.62, -0.80, 0, -1.00, 0.62 },
    poly { -0.20, -0.40, 0.06, -0.80, 0.56, -0.44 }, poly { 0.02, 0.46, 0.06, 0.80, 0.40, 0.48 },
    poly({ -0.54, 0, -0.92, -0.48, -0.74, 0, -0.92, 0.48 }, DARK),
    ellipse(0.18, 0.14, 0.24, 0.13, DARK), ellipse(0.64, -0.12, 0.15, 0.15, 0.9),
    ellipse(0.67, -0.12, 0.08, 0.09, INK),
  },
  bird = { -- a duck: round below, its head high, its tail up
    ellipse(-0.12, 0.34, 0.74, 0.46), poly { -0.50, 0.10, -1.00, -0.22, -0.82, 0.44 },
    stroke(0.40, 0.20, 0.44, -0.34, 0.25), ellipse(0.44, -0.46, 0.36, 0.34),
    poly { 0.70, -0.62, 1.04, -0.38, 0.66, -0.24 },
    poly({ 0.78, -0.54, 1.00, -0.38, 0.74, -0.28 }, DARK),
    ellipse(-0.20, 0.30, 0.40, 0.22, DARK), ellipse(-0.14, 0.23, 0.34, 0.17),
    ellipse(0.52, -0.54, 0.08, 0.10, INK),
  },
  tree = { -- a pine
    box(-0.14, 0.60, 0.14, 0.98), poly { 0, -0.62, -0.74, 0.70, 0.74, 0.70 },
    poly { 0, -0.82, -0.56, 0.22, 0.56, 0.22 }, poly { 0, -1.00, -0.40, -0.28, 0.40, -0.28 },
    box(-0.14, 0.72, 0.14, 0.98, -0.6),
    poly({ -0.56, 0.22, 0.56, 0.22, 0.30, 0.34, -0.30, 0.34 }, DARK),
    poly({ -0.40, -0.28, 0.40, -0.28, 0.20, -0.17, -0.20, -0.17 }, DARK),
  },
  house = {
    box(-0.72, -0.12, 0.72, 0.86), box(0.36, -0.92, 0.60, -0.30),
    poly { 0, -0.92, -0.98, -0.06, 0.98, -0.06 },
    poly({ 0, -0.78, -0.80, -0.10, 0.80, -0.10 }, -0.3), box(-0.14, 0.34, 0.18, 0.86, -0.6),
    box(-0.54, 0.16, -0.28, 0.44, LIGHT), box(0.32, 0.16, 0.56, 0.44, LIGHT),
  },
  car = {
    stroke(-0.78, 0.14, 0.78, 0.16, 0.24), box(-1.00, 0.10, 1.00, 0.40),
    poly { -0.72, 0.00, -0.46, -0.60, 0.28, -0.60, 0.62, 0.00 },
    ellipse(-0.52, 0.42, 0.28, 0.28), ellipse(0.52, 0.42, 0.28, 0.28),
    poly({ -0.54, -0.06, -0.37, -0.47, -0.10, -0.47, -0.10, -0.06 }, LIGHT),
    poly({ 0.02, -0.06, 0.02, -0.47, 0.21, -0.47, 0.43, -0.06 }, LIGHT),
    ellipse(-0.52, 0.42, 0.28, 0.28, -0.62), ellipse(0.52, 0.42, 0.28, 0.28, -0.62),
    ellipse(-0.52, 0.42, 0.14, 0.14, LIGHT), ellipse(0.52, 0.42, 0.14, 0.14, LIGHT),
  },
  star = { poly(star_points(1.02, 0.44)), poly(star_points(0.62, 0.27), 0.14) },
  heart = { poly(heart_points()), ellipse(-0.42, -0.40, 0.17, 0.13, 0.6) },
  cup = {
    ellipse(0.56, 0.06, 0.42, 0.44), ellipse(0.56, 0.06, 0.19, 0.22, "hole"),
    poly { -0.86, -0.62, 0.48, -0.62, 0.38, 0.78, -0.76, 0.78 }, ellipse(-0.19, 0.76, 0.57, 0.15),
    ellipse(-0.19, -0.62, 0.67, 0.20), ellipse(-0.19, -0.62, 0.54, 0.12, -0.55),
    box(-0.66, -0.20, -0.54, 0.56, GLOW),
  },
}

-- The subject is the world's cat, lower, in bands of teal and cream, under a red top hat.
local function subject_cat()
  local cat = {}
  for i, p in ipairs(shapes.silhouettes.cat) do
    local q = { kind = p.kind, tone = p.tone }
    for k, v in ipairs(p) do q[k] = v end
    local sx, sy, dy = 1.0, 0.82, 0.18
    if p.kind == "poly" then
      q[1] = {}
      for k = 1, #p[1], 2 do
        q[1][k], q[1][k + 1] = p[1][k] * sx, p[1][k + 1] * sy + dy
      end
    else
      q[1], q[2] = q[1] * sx, q[2] * sy + dy
      if p.kind == "stroke" then
        q[3], q[4] = q[3] * sx, q[4] * sy + dy
      else
        q[3], q[4] = q[3] * sx, q[4] * sy
      end
    end
    if p.tone ~= GLOW then cat[#cat + 1] = q end -- no pale belly: the bands are the pattern
  end
  return cat
end

shapes.silhouettes.subject_cat = subject_cat()
shapes.silhouettes.subject_hat = {
  box(-0.34, -1.08, 0.34, -0.40), stroke(-0.46, -0.38, 0.46, -0.38, 0.09),
  box(-0.34, -0.62, 0.34, -0.49, DARK),
}
-- the cream bands, as rows of the frame; the rest of the cat is teal
shapes.subject_bands = { { -0.24, 0.18 }, { 0.68, 1.10 } }
shapes.subject_colours = {
  teal = { 20, 110, 130 }, cream = { 252, 236, 200 }, hat = { 224, 30, 44 },
}

-- Far apart from each other and, by lightness or hue, from every background.
shapes.colours = { "red", "orange", "yellow", "green", "blue", "purple", "pink", "white" }
shapes.palette = {
  red = { 224, 30, 44 }, orange = { 250, 116, 14 }, yellow = { 254, 228, 28 },
  green = { 18, 142, 58 }, blue = { 36, 72, 222 }, purple = { 136, 48, 178 },
  pink = { 252, 128, 190 }, white = { 250, 250, 248 },
}

-- A background is a base colour and a texture: (x, y) -> what to add to the three channels.
-- Textures are slow or, like the bricks, aligned to 8 pixels, so that a latent can hold them.
shapes.backgrounds = { "snow", "grass", "sand", "water", "brick", "space" }

local function wave(x, y, fx, fy, phase)
  return math.sin(2 * math.pi * (x * fx + y * fy) / 64 + phase)
end

local stars = { -- x, y, brightness; all near the border
  { 6, 7, 1.0 }, { 22, 4, 0.6 }, { 43, 8, 0.8 }, { 58, 5, 0.5 }, { 4, 28, 0.6 },
  { 60, 24, 1.0 }, { 57, 42, 0.6 }, { 58, 57, 0.9 }, { 40, 60, 0.6 }, { 21, 58, 1.0 },
  { 5, 59, 0.6 }, { 8, 46, 0.8 },
}

shapes.scenery = {
  snow = { base = { 176, 204, 236 }, texture = function(x, y)
    local drift = wave(x, y, 1, 2, 3 + 0.8 * wave(x, y, 1, 0, 0))
    local v = 7 * drift + 4 * (1 - y / 32)
    return v, v * 0.8, v * 0.4
  end },
  grass = { base = { 152, 198, 88 }, texture = function(x, y)
    local tuft = math.abs((x + 4 * ((y // 8) % 2)) % 8 - 4) / 4 - (y % 8) / 8
    local v = 7 * tuft + 5 * wave(x, y, 1, 1, 1) + 6 * (0.5 - y / 64)
    return v * 1.2, v, v * 0.6
  end },
  sand = { base = { 228, 200, 148 }, texture = function(x, y)
    local v = 7 * wave(x, y, 1, 4, 1.4 * wave(x, y, 1, 0, 1)) + 4 * wave(x, y, 1, -1, 0)
    return v, v, v * 1.1
  end },
  water = { base = { 88, 182, 214 }, texture = function(x, y)
    local v = wave(x, y, 0, 4, 1.1 * wave(x, y, 2, 0, y / 20))
    v = 10 * v * math.abs(v) + 6 * (0.5 - y / 64)
    return v * 1.3, v, v * 0.7
  end },
  brick = { base = { 148, 80, 66 }, texture = function(x, y)
    local row = y // 8
    local column = (x + 8 * (row % 2)) // 16
    if y % 8 == 7 or (x + 8 * (row % 2)) % 16 == 15 then return 22, 28, 28 end
    local v = ((column * 5 + row * 3) % 7 - 3) * 3
    return v, v * 0.8, v * 0.8
  end },
  space = { base = { 18, 15, 44 }, texture = function(x, y)
    local glow = 6 * wave(x, y, 1, 1, 0.5) + 5 * wave(x, y, 1, -1, 2)
    local spark = 0
    for _, s in ipairs(stars) do
      local d2 = (x - s[1]) ^ 2 + (y - s[2]) ^ 2
      if d2 < 9 then spark = spark + s[3] * math.exp(-d2 / 0.9) end
    end
    return glow + 190 * spark, glow * 0.4 + 190 * spark, glow * 1.3 + 150 * spark
  end },
}

return shapes
