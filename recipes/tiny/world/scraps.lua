-- SPDX-License-Identifier: MIT
-- scraps.lua - pieces of one picture on another, their colours changed at random: dimmed, inverted or flat. What learns
-- from such pictures can carry more than the world has.

local SMALLEST, LARGEST = 6, 40

-- onto, from: size*size*3 bytes, RGB; next(n): a random integer of [1, n]. Returns the bytes of the new picture.
return function(onto, from, size, next)
  local range = LARGEST - SMALLEST + 1
  local w, h = SMALLEST - 1 + next(range), SMALLEST - 1 + next(range)
  local x, y, u, v = next(size - w) - 1, next(size - h) - 1, next(size - w) - 1, next(size - h) - 1
  local tint = {}
  for channel = 1, 3 do
    local gain, base, map = (next(5) - 3) / 2, next(256) - 1, {}
    for value = 0, 255 do
      map[string.char(value)] = string.char(math.max(0, math.min(255, math.floor(base + gain * (value - 128)))))
    end
    tint[channel] = map
  end
  local function recolour(r, g, b) return tint[1][r] .. tint[2][g] .. tint[3][b] end
  for row = 0, h - 1 do
    local at, first = ((y + row) * size + x) * 3, ((v + row) * size + u) * 3
    onto = onto:sub(1, at) .. from:sub(first + 1, first + 3 * w):gsub("(.)(.)(.)", recolour) .. onto:sub(at + 3 * w + 1)
  end
  return onto
end
