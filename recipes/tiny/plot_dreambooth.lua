-- SPDX-License-Identifier: MIT
-- Draws docs/dreambooth.png from the measurements of dreambooth.lua: for LoRA and full fine-tune, the share of
-- "sks cat" pictures that show the subject and of "a cat" pictures that stay ordinary cats, over training steps,
-- with prior preservation (dark) and without (light). Lines are means over seeds, bars their range.
--   burin run --trust recipes/tiny/plot_dreambooth.lua
local core = require "burin.core"
local grid = require "burin.sample.grid"

local rows = {}
for line in core.read_file "docs/data/dreambooth.jsonl":gmatch "[^\n]+" do rows[#rows + 1] = core.json_decode(line) end

local W, H, pad = 360, 220, 40
local width, height = 2 * (W + pad) + pad, 2 * (H + pad) + pad
local out = core.tensor({ height, width, 3 }, "u8", 250)

local function dot(x, y, colour)
  if x < 0 or y < 0 or x >= width or y >= height then return end
  local at = (math.floor(y) * width + math.floor(x)) * 3
  for k = 1, 3 do out:set(at + k, colour[k]) end
end

local function line(x0, y0, x1, y1, colour, thick)
  local n = math.max(1, math.ceil(math.max(math.abs(x1 - x0), math.abs(y1 - y0))))
  for i = 0, n do
    local x, y = x0 + (x1 - x0) * i / n, y0 + (y1 - y0) * i / n
    for d = 0, (thick or 1) - 1 do
      dot(x, y + d, colour)
      dot(x + d, y, colour)
    end
  end
end

-- step -> { mean, low, high } over seeds, as a sorted list of { step, ... }
local function series(method, prior, key)
  local by, list = {}, {}
  for _, r in ipairs(rows) do
    if r.method == method and r.prior == prior then
      by[r.step] = by[r.step] or {}
      table.insert(by[r.step], r[key])
    end
  end
  for step, values in pairs(by) do
    local sum = 0
    for _, v in ipairs(values) do sum = sum + v end
    list[#list + 1] = { step = step, mean = sum / #values, low = math.min(table.unpack(values)),
      high = math.max(table.unpack(values)) }
  end
  table.sort(list, function(a, b) return a.step < b.step end)
  return list
end

local function panel(column, row, title, method, key)
  local x0, y0 = pad + column * (W + pad), pad + row * (H + pad)
  local grey, last = { 200, 200, 200 }, 1
  for _, r in ipairs(rows) do last = math.max(last, r.step) end
  for i = 0, 4 do
    local y = y0 + H - H * i / 4
    line(x0, y, x0 + W, y, grey)
    grid.put_text(out, width, x0 - 26, math.floor(y) - 3, ("%d%%"):format(25 * i), 5)
  end
  grid.put_text(out, width, x0, y0 - 14, title, 60)
  grid.put_text(out, width, x0, y0 + H + 6, "0", 4)
  grid.put_text(out, width, x0 + W - 70, y0 + H + 6, ("%d STEPS"):format(last), 12)
  for _, one in ipairs { { prior = false, colour = { 225, 140, 60 } }, { prior = true, colour = { 40, 90, 170 } } } do
    local before
    for _, p in ipairs(series(method, one.prior, key)) do
      local x, y = x0 + W * p.step / last, y0 + H * (1 - p.mean)
      line(x, y0 + H * (1 - p.low), x, y0 + H * (1 - p.high), one.colour)
      if before then line(before[1], before[2], x, y, one.colour, 2) end
      before = { x, y }
    end
  end
end

panel(0, 0, "LORA: 'SKS CAT' SHOWS THE SUBJECT", "lora", "subject")
panel(1, 0, "LORA: 'A CAT' STAYS AN ORDINARY CAT", "lora", "plain")
panel(0, 1, "FULL: 'SKS CAT' SHOWS THE SUBJECT", "full", "subject")
panel(1, 1, "FULL: 'A CAT' STAYS AN ORDINARY CAT", "full", "plain")
grid.put_text(out, width, pad, height - 12, "BLUE: WITH PRIOR PRESERVATION   ORANGE: WITHOUT   BARS: RANGE OVER SEEDS",
  90)
core.image_save("docs/dreambooth.png", out)
