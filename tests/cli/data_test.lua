-- SPDX-License-Identifier: MIT
-- Pictures and captions as people have them: nothing is left out, repeated or cut without a word.
--   lua5.4 tests/cli/data_test.lua BURIN SCRATCH-FOLDER
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()

local cat = "examples/sks-cat/10_sks cat/"
local png, jpeg = T.read(cat .. "1-grass.png"), T.read(cat .. "5-brick.jpg")
local webp = "RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f" .. ("\0"):rep(12)

-- A folder of these files: { name = bytes }
local function folder(name, files)
  local path = T.folder(name)
  for file, bytes in pairs(files) do
    T.shell("mkdir -p " .. T.quote((path .. "/" .. file):match "^(.*)/"))
    T.write(path .. "/" .. file, bytes)
  end
  return path
end

-- What `plan` says of a recipe with one concept; fields: of the concept, beside its images.
local function plan(images, fields, more)
  local o = { concepts = ("{ { images = %q, %s } }"):format(images, fields or 'prompt = "a cat"'), steps = "",
    epochs = "1", batch = "1" }
  for k, v in pairs(more or {}) do o[k] = v end
  return T.run("plan --device null " .. T.quote(T.recipe("data", o)))
end

local function says(text, ...)
  for _, part in ipairs { ... } do T.check(text:find(part, 1, true), "'%s' is not said: %s", part, text) end
end

local function silent(text, ...)
  for _, part in ipairs { ... } do T.check(not text:find(part, 1, true), "'%s' is said: %s", part, text) end
end

-- ---- which files are pictures ---------------------------------------------------------------------------------------

local code, text = plan(folder("kinds", { ["a.png"] = png, ["photo.jfif"] = jpeg, ["b.jpe"] = jpeg, ["C.PNG"] = png,
  ["no extension"] = jpeg, ["really.webp"] = png, ["._a.png"] = "\0\5\22\7", [".hidden.png"] = png,
    ["list.md"] = "text" }))
T.check(code == 0, "exit code %d: %s", code, text)
says(text, "(6 per epoch")
silent(text, "left out")

code, text = plan(folder("strangers", { ["a.png"] = png, ["b.webp"] = webp, ["c.png"] = webp, ["d.txt"] = "a dog",
  ["page.jpg"] = "<html>" }))
T.check(code == 0, "exit code %d: %s", code, text)
says(text, "(1 per epoch", "b.webp left out: it is a WebP image", "c.png left out: it is a WebP image",
  "d.txt left out: it is a caption without a picture", "page.jpg left out: its content is an HTML")
code, text = plan(folder("webp", { ["b.webp"] = webp }))
T.check(code == 66, "only WebP: exit code %d: %s", code, text)
says(text, "b.webp: it is a WebP image")

-- A PNG of 64 x 32 that says that it lies on its side.
local function chunk(kind, bytes)
  local crc = 0xffffffff
  for i = 1, #kind + #bytes do
    crc = crc ~ (kind .. bytes):byte(i)
    for _ = 1, 8 do crc = crc & 1 == 1 and crc >> 1 ~ 0xedb88320 or crc >> 1 end
  end
  return (">I4"):pack(#bytes) .. kind .. bytes .. (">I4"):pack(crc ~ 0xffffffff)
end
local exif = chunk("eXIf", "II*\0\8\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0")
local wide = png:sub(1, 8) .. chunk("IHDR", (">I4I4"):pack(64, 32) .. "\8\2\0\0\0") .. exif
  .. chunk("IDAT", "\x78\1\1" .. ("<I2I2"):pack(193 * 32, 193 * 32 ~ 0xffff) .. ("\0"):rep(193 * 32)
    .. (">I4"):pack(193 * 32 % 65521 << 16 | 1)) .. chunk("IEND", "")
T.shell("mkdir -p " .. T.quote(T.scratch))
local show = T.write(T.scratch .. "/show.lua", 'print(require "burin.core".image_size(os.getenv "PICTURE"))')
local turned = folder("turned", { ["a.png"] = wide }) .. "/a.png"
code, text = T.run("run --trust " .. T.quote(show), "PICTURE=" .. T.quote(turned))
T.check(text == "32\t64\n", "a PNG with EXIF orientation 6: %s", text)

-- ---- folders --------------------------------------------------------------------------------------------------------

local portraits = folder("portraits", { ["2024_portraits/a.png"] = png })
for _, images in ipairs { portraits, portraits .. "/2024_portraits" } do
  code, text = plan(images)
  T.check(code == 0, "exit code %d: %s", code, text)
  says(text, "(1 per epoch", "2024_portraits: a number above 1000 is not taken for repeats")
  code, text = plan(images, 'prompt = "a cat", repeats = 2024')
  says(text, "(2024 per epoch")
  silent(text, "above 1000")
end
code, text = plan(folder("below", { ["nested/a.png"] = png }))
T.check(code == 66, "sub-folders: exit code %d: %s", code, text)
says(text, "below/nested: sub-folders are only taken when", ("images = \"%s/below/nested\""):format(T.scratch))
silent(text, "recursive")

-- ---- class images ---------------------------------------------------------------------------------------------------

local pictures = folder("pictures", { ["a.png"] = png })
local function prior(images, count)
  return ('prompt = "sks cat", prior = { prompt = "a cat", images = %q, count = %d }'):format(images, count)
end
local reg = folder("reg", { ["1_cat/a.png"] = png, ["1_cat/b.jfif"] = jpeg, ["1_cat/c.png"] = png,
  ["1_cat/d.webp"] = webp })
code, text = plan(pictures, prior(reg, 3))
T.check(code == 0, "class images in kohya's layout: exit code %d: %s", code, text)
says(text, "d.webp left out: it is a WebP image")
silent(text, "will be generated", "lies beside")
says(select(2, plan(pictures, prior(reg, 5))), "2 class images of 'a cat' will be generated")
says(select(2, plan(pictures, prior(T.folder "empty", 2))), "class images are drawn: ", "no images found",
  "2 class images of 'a cat' will be generated")

-- ---- captions -------------------------------------------------------------------------------------------------------

-- Trains for an epoch; the captions that it learnt, as its result's metadata have them: " tag tag "
local function learnt(images, fields)
  local place = T.folder "run"
  local recipe = T.recipe("learnt", { concepts = ("{ { images = %q, %s } }"):format(images, fields), steps = "1" })
  local c, out = T.run(("train --output %s %s"):format(T.quote(place), T.quote(recipe)))
  T.check(c == 0, "training: exit code %d: %s", c, out)
  local header = T.read(place .. "/tiny/tiny.safetensors"):match '"ss_tag_frequency":"{(.-)}}"'
  local tags = {}
  for tag in (header or ""):gmatch '\\"([^"\\]*)\\" ?: ?%d' do tags[#tags + 1] = tag end
  table.sort(tags)
  return table.concat(tags, "|"), out
end

local lined = folder("lined", { ["a.png"] = png, ["a.txt"] = "one,\r\ntwo\r\n", ["b.png"] = png,
  ["b.txt"] = "\n \nthree\n", ["c.png"] = png, ["c.TXT"] = " \n\n", ["d.png"] = png, ["d.png.txt"] = "four" })
for how, want in pairs { first = "x 1: one,\n", all = "x 1: one, two\n", any = "x 1: one, | two\n" } do
  plan(lined, ('prompt = "a cat", lines = %q'):format(how))
  code, text = T.run("plan --device null --images " .. T.quote(T.scratch .. "/data.lua"))
  says(text, "captions: 3 in files, 1 the recipe's prompt", want, "x 1: three\n", "x 1: a cat\n", "x 1: four\n")
  silent(text, "several lines,")
end
local all = learnt(lined, 'prompt = "a cat", lines = "any"')
T.check(all == "a cat|four|one|three|two", "lines = 'any': learnt %s", all)
local tags, out = learnt(lined, 'prompt = "a cat"')
T.check(tags == "a cat|four|one|three", "the first lines are not the default: %s", tags)
says(out, "concept 1: 1 of 4 captions have several lines")
code, text = plan(lined)
says(text, "concept 1: 1 of 4 captions have several lines")
code, text = plan(lined, "repeats = 1")
says(text, "concept 1: 1 of 4 pictures have no caption", "lined/c.png")
silent(select(2, plan(portraits)), "no caption")
code, text = plan(lined, 'lines = "some"')
T.check(code == 78, "lines = 'some': exit code %d: %s", code, text)

-- ---- what plan says of it -------------------------------------------------------------------------------------------

local mixed = folder("mixed", { ["2_a/a.png"] = png, ["2_a/a.txt"] = "a dog\na cat", ["3_b/b.png"] = wide,
  ["3_b/c.webp"] = webp, ["3_b/d.png"] = jpeg })
code, text = plan(mixed, 'lines = "all"', { buckets = "false", resolution = "64" })
T.check(code == 0, "exit code %d: %s", code, text)
says(text, "concept 1: 3 pictures, shown 8 times an epoch; captions: 1 in files, 2 the folder's name",
  "captions of several lines: 1", "64x64: 3 pictures, cut by at most 50 % (",
    "3_b/b.png), enlarged at most 2.00 times (",
  "left out: " .. mixed .. "/3_b/c.webp: it is a WebP image")
local recipe = T.scratch .. "/data.lua"
code, text = T.run("plan --device null --images " .. T.quote(recipe))
says(text, "3_b/b.png  32x64, resized to 64x128, cut to 64x64 from (0, 32), x 3: b", "2_a/a.png  64x64",
  "x 2: a dog, a cat")
code, text = T.run("plan --device null --json " .. T.quote(recipe))
says((text:gsub("%s", "")), '"images":[{', '"width":32', '"bucket":[64,64]', '"resized":[64,128]', '"crop":[0,32]',
  '"concept":1', '"left_out":[{', '"views":8')
code, text = plan(mixed, nil, { buckets = "false", resolution = "256" })
says(text, "less than a quarter of their bucket's pixels: ", "3_b/b.png (32 x 64)")

T.finish()
