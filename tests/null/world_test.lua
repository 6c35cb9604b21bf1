-- SPDX-License-Identifier: MIT
-- The world draws what its labels say, and its recogniser still sees that after the damage that a
-- small model does. Run from the repository root: lua5.4 tests/null/world_test.lua [clean images]

package.path = "recipes/tiny/?.lua;" .. package.path
local world = require "world"

local COUNT = tonumber((...)) or 120 -- clean images; each kind of damage gets a half
local SIZE = world.size
local passed, failed = 0, 0

local function check(ok, what, ...)
  if ok then
    passed = passed + 1
  else
    failed = failed + 1
    print("FAILED: " .. what:format(...))
  end
end

-- ---- damage: each takes and returns a flat array of 64*64*3 numbers ----

local damage = {}

local function index(x, y)
  return (math.max(0, math.min(SIZE - 1, y)) * SIZE + math.max(0, math.min(SIZE - 1, x))) * 3
end

local function blur_along(image, weights, dx, dy)
  local out, reach = {}, #weights // 2
  for y = 0, SIZE - 1 do
    for x = 0, SIZE - 1 do
      local r, g, b = 0, 0, 0
      for i = -reach, reach do
        local k, w = index(x + i * dx, y + i * dy), weights[i + reach + 1]
        r, g, b = r + w * image[k + 1], g + w * image[k + 2], b + w * image[k + 3]
      end
      local k = index(x, y)
      out[k + 1], out[k + 2], out[k + 3] = r, g, b
    end
  end
  return out
end

function damage.blur(image)
  local weights, sum = {}, 0
  for i = -4, 4 do
    weights[#weights + 1] = math.exp(-i * i / (2 * 1.5 ^ 2))
    sum = sum + weights[#weights]
  end
  for i = 1, #weights do weights[i] = weights[i] / sum end
  return blur_along(blur_along(image, weights, 1, 0), weights, 0, 1)
end

function damage.noise(image, random)
  local out = {}
  for k = 1, #image do
    local normal = math.sqrt(-2 * math.log(1 - random())) * math.cos(2 * math.pi * random())
    out[k] = image[k] + 12 * normal
  end
  return out
end

local function block_mean(image, block, write)
  for y = 0, SIZE - 1, block do
    for x = 0, SIZE - 1, block do
      local r, g, b, n = 0, 0, 0, block * block
      for i = 0, n - 1 do
        local k = index(x + i % block, y + i // block)
        r, g, b = r + image[k + 1], g + image[k + 2], b + image[k + 3]
      end
      for i = 0, n - 1 do write(index(x + i % block, y + i // block), r / n, g / n, b / n) end
    end
  end
end

function damage.halved(image)
  local out = {}
  block_mean(image, 2, function(k, r, g, b) out[k + 1], out[k + 2], out[k + 3] = r, g, b end)
  return out
end

-- keeps the lightness, and one colour difference per 8x8 block, as a harsh JPEG would
function damage.chroma(image)
  local out = {}
  block_mean(image, 8, function(k, r, g, b)
    local mean = 0.299 * r + 0.587 * g + 0.114 * b
    local light = 0.299 * image[k + 1] + 0.587 * image[k + 2] + 0.114 * image[k + 3] - mean
    out[k + 1], out[k + 2], out[k + 3] = r + light, g + light, b + light
  end)
  return out
end

function damage.tint(image) -- a steady colour error
  local out, add = {}, { 10, -10, 10 }
  for k = 1, #image do out[k] = image[k] + add[(k - 1) % 3 + 1] end
  return out
end

function damage.all(image, random)
  return damage.noise(damage.tint(damage.chroma(damage.halved(damage.blur(image)))), random)
end

local kinds = { "clean", "blur", "noise", "halved", "chroma", "tint", "all" }

-- a minimal standard generator: the tests' own, apart from the world's
local function random_stream(seed)
  local state = seed % 2147483646 + 1
  return function()
    state = state * 48271 % 2147483647
    return state / 2147483647
  end
end

local function damaged(pixels, kind, seed)
  if kind == "clean" then return pixels end
  local image = {}
  for k = 1, #pixels do image[k] = pixels:byte(k) end
  image = damage[kind](image, random_stream(seed))
  local rows, row = {}, SIZE * 3
  for k = 1, #image do image[k] = math.floor(math.max(0, math.min(255, image[k])) + 0.5) end
  for y = 0, SIZE - 1 do
    rows[y + 1] = string.char(table.unpack(image, y * row + 1, (y + 1) * row))
  end
  return table.concat(rows)
end

-- ---- the library's promises ----

local function test_captions()
  check(world.caption { class = "cat", colour = "orange", background = "snow" }
    == "a photo of an orange cat on snow", "caption with an article")
  check(world.caption { class = "cat" } == "a photo of a cat", "caption of the bare class")
  check(world.subject_caption "grass" == "a photo of sks cat on grass", "caption of the subject")
  check(not pcall(world.draw_as, { class = "horse", colour = "red", background = "snow" }),
    "an unknown class is an error")
end

local function test_determinism()
  for _, seed in ipairs { 0, 1, 479, 480, 123456789, -3 } do
    check(#world.draw(seed) == SIZE * SIZE * 3, "image %d is whole", seed)
    check(world.draw(seed) == world.draw(seed), "image %d is drawn alike twice", seed)
  end
  check(world.draw(7) ~= world.draw(487), "another round of the combinations looks different")
  local scene = { class = "cat", colour = "red", background = "snow", seed = 4 }
  check(world.draw_as(scene) == world.draw_as(scene), "a scene is drawn alike twice")
  local function subject(seed) return world.subject { background = "sand", seed = seed } end
  check(subject(1) == subject(1), "the subject is drawn alike twice")
  check(subject(1) ~= subject(2), "the subject varies")
end

local function test_even()
  local seen, count = {}, 0
  for i = 480, 959 do
    local _, labels = world.draw(i)
    local full = world.caption(labels)
    if not seen[full] then seen[full], count = true, count + 1 end
  end
  check(count == 480, "480 images hold every combination once, not %d", count)
  local tally = {}
  for _, p in ipairs(world.prompts(240, 3)) do
    check(p.prompt == world.caption(p.labels), "a prompt says its labels")
    check(not tally[p.prompt], "no prompt twice")
    tally[p.prompt] = true
    for _, label in pairs(p.labels) do tally[label] = (tally[label] or 0) + 1 end
  end
  for _, names in ipairs { world.classes, world.colours, world.backgrounds } do
    for _, name in ipairs(names) do
      check(tally[name] == 240 / #names, "prompts are even: %d of %s", tally[name], name)
    end
  end
end

-- ---- the recogniser ----

local function print_confusion(confusion)
  local lines = {}
  for pair, count in pairs(confusion) do lines[#lines + 1] = ("  %3d  %s"):format(count, pair) end
  table.sort(lines, function(a, b) return a > b end)
  for i = 1, math.min(#lines, 25) do print(lines[i]) end
end

local function test_world(kind, count, least)
  local right, confusion, false_subjects = 0, {}, 0
  local floor_iou, floor_margin = 1, 1
  for i = 1, count do
    local pixels, labels = world.draw(i * 7919)
    local seen = world.recognise(damaged(pixels, kind, i))
    local wrong = false
    for what, label in pairs(labels) do
      if seen[what] ~= label then
        local pair = ("%s of a %s %s on %s seen as %s"):format(what, labels.colour, labels.class,
          labels.background, tostring(seen[what]))
        confusion[pair], wrong = (confusion[pair] or 0) + 1, true
      end
    end
    if not wrong then right = right + 1 end
    if seen.subject then false_subjects = false_subjects + 1 end
    floor_iou = math.min(floor_iou, seen.scores.iou)
    floor_margin = math.min(floor_margin, seen.scores.margin)
  end
  print(("world    %-7s %6.2f %% right of %d, %d false subjects; least iou %.2f, margin %.2f")
    :format(kind, 100 * right / count, count, false_subjects, floor_iou, floor_margin))
  check(right >= least * count, "%s: %d of %d right", kind, right, count)
  check(false_subjects < math.max(1, 0.005 * count), "%s: %d false subjects", kind, false_subjects)
  if right < count then print_confusion(confusion) end
end

local function test_subject(kind, count, least)
  local right, places, lowest = 0, 0, 1
  for i = 1, count do
    local background = world.backgrounds[i % #world.backgrounds + 1]
    local pixels = world.subject { background = background, seed = i }
    local seen = world.recognise(damaged(pixels, kind, i))
    if seen.subject then right = right + 1 end
    if seen.background == background then places = places + 1 end
    local s = seen.scores
    lowest = math.min(lowest, s.teal or 0, s.cream or 0, s.hat or 0)
  end
  print(("subject  %-7s %6.2f %% right of %d, background %.2f %%; least part %.2f")
    :format(kind, 100 * right / count, count, 100 * places / count, lowest))
  check(right >= least * count, "subject %s: %d of %d right", kind, right, count)
  check(places >= 0.98 * count, "subject %s: background right in %d of %d", kind, places, count)
end

local function test_refusal()
  local random, bytes = random_stream(5), {}
  for k = 1, SIZE * SIZE * 3 do bytes[k] = string.char(math.floor(random() * 256)) end
  local seen = world.recognise(table.concat(bytes))
  check(not seen.class and not seen.subject, "noise has no class")
  seen = world.recognise(("\x80\x80\x80"):rep(SIZE * SIZE))
  check(not seen.class and not seen.background and not seen.subject, "grey shows nothing")
end

test_captions()
test_determinism()
test_even()
test_refusal()
for _, kind in ipairs(kinds) do
  local clean = kind == "clean"
  local count = clean and COUNT or COUNT // 2
  test_world(kind, count, clean and 1 or 0.98)
  test_subject(kind, math.max(24, count // 2), clean and 1 or 0.97)
end

print(("%d passed, %d failed"):format(passed, failed))
if failed > 0 then os.exit(1) end
