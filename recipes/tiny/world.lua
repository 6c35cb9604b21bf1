-- SPDX-License-Identifier: MIT
-- A tiny procedural world of captioned pictures: one object of ten classes and eight colours on one
-- of six backgrounds. Small models learn it, and world.recognise says exactly what a sample shows,
-- so results are measured, not admired. Everything is a pure function of integers.
--
--   local world = require "world"
--   local pixels, labels = world.draw(17)            -- 64*64*3 bytes, rows from the top, RGB
--   world.recognise(pixels)                          --> { class = "cat", colour = "red", ... }

local shapes = require "world.shapes"
local draw = require "world.draw"
local recognise = require "world.recognise"
local scraps = require "world.scraps"

local world = {
  size = draw.size,
  classes = shapes.classes,
  colours = shapes.colours,
  backgrounds = shapes.backgrounds,
}

local function member(list, value, what)
  for _, v in ipairs(list) do
    if v == value then return value end
  end
  error(("world: no %s is called %q; there are %s"):format(what, tostring(value),
    table.concat(list, ", ")), 3)
end

local function integer(value, what)
  return math.tointeger(value) or error("world: " .. what .. " must be an integer", 3)
end

-- The i-th of the 480 combinations: 0..479 hold each once, neighbours differ in everything, and the
-- shifts make all pairs meet although 10, 8 and 6 share a factor.
local function combination(i)
  local class = i % 10
  local colour = (i + (i // 40) % 2) % 8
  local background = (i + (i // 240) % 2) % 6
  return class + 1, colour + 1, background + 1
end

-- "a photo of an orange cat on snow"; colour and background may be missing from the labels
function world.caption(labels)
  local noun = labels.colour and (labels.colour .. " " .. labels.class) or labels.class
  local article = noun:find("^[aeiou]") and "an" or "a"
  local place = labels.background and (" on " .. labels.background) or ""
  return ("a photo of %s %s%s"):format(article, noun, place)
end

-- Pixels of the labelled scene; another seed gives another pose and shade.
function world.draw_as(options)
  return draw.object(
    member(world.classes, options.class, "class"),
    member(world.colours, options.colour, "colour"),
    member(world.backgrounds, options.background, "background"),
    draw.random(integer(options.seed or 0, "seed")))
end

-- Image number `index` of an endless data set: pixels, labels. From any multiple of 480, the next 480 hold every
-- combination once.
function world.draw(index)
  index = integer(index, "index")
  local random = draw.random(index)
  random()  -- left out: the pictures are those that the tiny model was trained on
  local class, colour, background = combination((index % 480 * 7 + index // 480 * 131) % 480)
  local labels = {
    class = world.classes[class], colour = world.colours[colour],
    background = world.backgrounds[background],
  }
  return draw.object(labels.class, labels.colour, labels.background, random), labels
end

-- The subject to personalise on (examples/sks-cat has seeds 109 to 114): a cat in teal and cream bands under a red top
-- hat.
function world.subject(options)
  return draw.subject(member(world.backgrounds, options.background, "background"),
    draw.random(integer(options.seed or 0, "seed") + 0x5C5))
end

function world.subject_caption(background)
  return "a photo of sks cat on " .. member(world.backgrounds, background, "background")
end

-- What a picture shows: class, colour and background (each nil when nothing fits), subject (true or
-- false), and scores: iou (of the silhouette), margin (over the next class), background_distance,
-- colour_distance. A cat under a hat has no colour but the shares teal, cream and hat.
function world.recognise(pixels)
  return recognise(pixels)
end

-- A piece of the picture `from` on the picture `onto`, recoloured; next(n): a random integer of [1, n].
function world.scrap(onto, from, next) return scraps(onto, from, draw.size, next) end

-- n prompts, spread evenly over classes, colours and backgrounds; no repeats up to 480.
function world.prompts(n, seed)
  local random = draw.random(integer(seed or 0, "seed") + 0x9A7)
  local function shuffled(list)
    local out = { table.unpack(list) }
    for i = #out, 2, -1 do
      local j = 1 + math.floor(random() * i)
      out[i], out[j] = out[j], out[i]
    end
    return out
  end
  local classes, colours = shuffled(world.classes), shuffled(world.colours)
  local backgrounds, prompts = shuffled(world.backgrounds), {}
  for i = 0, n - 1 do
    local class, colour, background = combination(i % 480)
    local labels = {
      class = classes[class], colour = colours[colour], background = backgrounds[background],
    }
    prompts[i + 1] = { prompt = world.caption(labels), labels = labels }
  end
  return prompts
end

return world
