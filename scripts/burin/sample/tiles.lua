-- SPDX-License-Identifier: MIT
-- tiles.lua - the autoencoder on a picture too large for it at once: in overlapping tiles, whose results are blended
-- linearly. Its group norms see one tile each, so that tiles differ a little in tone and contrast from the whole
-- picture, as with every program that works in tiles; the overlap hides the seams. Sizes are counted in latents.
local class = require "burin.base.class"
local core = require "burin.core"
local tiles = {}

local Tiles, new_tiles = class "tiles"

-- First latents of the fewest tiles that cover `size`, evenly spread.
local function positions(size, tile, overlap)
  local n = math.max(1, math.ceil((size - overlap) / (tile - overlap)))
  local list = { 0 }
  for i = 1, n - 1 do list[i + 1] = math.floor(i * (size - tile) / (n - 1) + 0.5) end
  return list
end

-- h, w: latents of the whole; tile: side of a tile. A quarter of it overlaps.
function tiles.new(h, w, tile)
  local self = { overlap = tile // 4, inputs = {} }
  for axis, size in pairs { y = h, x = w } do
    local side = math.min(tile, size)
    self[axis] = { size = size, side = side, at = positions(size, side, side < size and self.overlap or 0) }
  end
  return new_tiles(self)
end

-- The share of every tile (rows) in each of its pixels along one axis; over a pixel, shares add up to 1.
local function shares(axis, overlap, scale)
  local width, total, values = axis.side * scale, {}, {}
  local function weight(i, k)
    local left = axis.at[i] == 0 and math.huge or k + 0.5
    local right = axis.at[i] + axis.side == axis.size and math.huge or width - k - 0.5
    return math.min(1, left / (overlap * scale), right / (overlap * scale))
  end
  for i, at in ipairs(axis.at) do
    for k = 0, width - 1 do total[at * scale + k] = (total[at * scale + k] or 0) + weight(i, k) end
  end
  for i, at in ipairs(axis.at) do
    for k = 0, width - 1 do values[#values + 1] = weight(i, k) / total[at * scale + k] end
  end
  return core.tensor({ #axis.at, width }, "f32", values)
end

-- Applies f(piece) -> node to the tiles of x (1, h * from, w * from, C); a latent becomes `to` pixels of the result
-- (1, h * to, w * to, D) in f32.
function Tiles:map(graph, x, from, to, f)
  local share = {}
  for name, axis in pairs { y = self.y, x = self.x } do
    local values = shares(axis, self.overlap, to)
    local var = core.var("tiles." .. name, values.shape, "f32", "input")
    table.insert(self.inputs, { var, values })
    share[name] = function(i, shape) return graph:leaf(var):slice(0, i - 1, i):reshape(shape) end
  end
  local ty, tx, whole = self.y.side, self.x.side, nil
  for iy, y in ipairs(self.y.at) do
    local row
    for ix, left in ipairs(self.x.at) do
      local piece = f(x:slice(1, y * from, (y + ty) * from):slice(2, left * from, (left + tx) * from)):cast "f32"
      piece = piece * share.x(ix, { 1, 1, tx * to, 1 })
      piece = piece:pad { axis = 2, before = left * to, after = (self.x.size - left - tx) * to }
      row = row and row + piece or piece
    end
    row = (row * share.y(iy, { 1, ty * to, 1, 1 })):pad { axis = 1, before = y * to,
      after = (self.y.size - y - ty) * to }
    whole = whole and whole + row or row
  end
  return whole
end

-- Fills what map() declared; after core.commit.
function Tiles:upload()
  for _, input in ipairs(self.inputs) do input[1]:write(input[2]) end
end

return tiles
