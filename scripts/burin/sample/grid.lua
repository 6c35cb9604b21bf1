-- SPDX-License-Identifier: MIT
-- grid.lua - contact sheets: pictures in rows and columns with captions in a 5x7 dot font.
local core = require "burin.core"
local grid = {}

-- Seven rows of five dots per glyph, as hex digits of one byte each; capital letters only.
local font = {}
for glyph, rows in ([[
A 0E11111F111111 B 1E11111E11111E C 0E11101010110E D 1E11111111111E E 1F10101E10101F F 1F10101E101010
G 0E11101711110F H 1111111F111111 I 0E04040404040E J 0702020202120C K 11121418141211 L 1010101010101F
M 111B1515111111 N 11191513111111 O 0E11111111110E P 1E11111E101010 Q 0E11111115120D R 1E11111E141211
S 0F10100E01011E T 1F040404040404 U 1111111111110E V 11111111110A04 W 11111115151B11 X 11110A040A1111
Y 11110A04040404 Z 1F01020408101F 0 0E11131519110E 1 040C040404040E 2 0E11010204081F 3 1F02040201110E
4 02060A121F0202 5 1F101E0101110E 6 0608101E11110E 7 1F010204080808 8 0E11110E11110E 9 0E11110F01020C
. 0000000000000C , 0000000000040C - 0000001F000000 : 000C0C000C0C00 % 18190204081303 + 0004041F040400
( 02040808080402 ) 08040202020408 / 00010204081000 = 00001F001F0000 ' 04040800000000 ! 04040404040004
]]):gmatch "(%S) (%x+)" do font[glyph] = rows end

-- Writes text into a picture (height, width, 3) whose width is given; (x, y) is its upper left corner, at most
-- `columns` letters of 6 x 7 dots.
local function put_text(pixels, width, x, y, text, columns)
  text = #text > columns and text:sub(1, columns - 2) .. ".." or text
  for i = 1, #text do
    local rows = font[text:sub(i, i):upper()]
    for r = 0, rows and 6 or -1 do
      local bits = tonumber(rows:sub(2 * r + 1, 2 * r + 2), 16)
      for c = 0, 4 do
        if bits >> (4 - c) & 1 == 1 then
          local at = ((y + r) * width + x + 6 * (i - 1) + c) * 3
          for k = 1, 3 do pixels:set(at + k, 40) end
        end
      end
    end
  end
end

-- Enlarges small pictures by whole pixels so that captions fit and people can see them.
local function enlarge(image, factor)
  if factor == 1 then return image end
  local h, w = image.shape[1], image.shape[2]
  local bytes, rows = image:bytes(), {}
  for y = 0, h - 1 do
    local line = {}
    for x = 0, w - 1 do
      local at = (y * w + x) * 3
      line[#line + 1] = bytes:sub(at + 1, at + 3):rep(factor)
    end
    rows[#rows + 1] = table.concat(line):rep(factor)
  end
  return core.tensor({ h * factor, w * factor, 3 }, "u8", table.concat(rows))
end

-- images: u8 tensors of one size; labels: texts (or jobs with .prompt), one per image; titles: optional heading per
-- column. Returns one image.
function grid.labelled(images, labels, columns, titles)
  local factor = math.max(1, 128 // images[1].shape[2])
  local h, w, gap, line = images[1].shape[1] * factor, images[1].shape[2] * factor, 6, 11
  local rows, top = (#images + columns - 1) // columns, titles and 14 or gap
  local width = gap + columns * (w + gap)
  local out = core.tensor({ top + rows * (h + line + gap), width, 3 }, "u8", 250)
  local letters = w // 6
  for c = 1, titles and columns or 0 do put_text(out, width, gap + (c - 1) * (w + gap), 4, titles[c] or "", letters) end
  for i, image in ipairs(images) do
    local x, y = gap + (i - 1) % columns * (w + gap), top + (i - 1) // columns * (h + line + gap)
    local big = enlarge(image, factor):reshape { h, w * 3 }
    for r = 0, h - 1 do out:copy_into(((y + r) * width + x) * 3 + 1, big:rows(r + 1)) end
    local label = labels[i]
    put_text(out, width, x, y + h + 2, type(label) == "table" and label.prompt or label or "", letters)
  end
  return out
end

grid.put_text = put_text

return grid
