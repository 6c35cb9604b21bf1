-- SPDX-License-Identifier: MIT
-- Soft masks of 32x32 cells: the largest blob, its moments, and its comparison with another in a
-- canonical frame that is centred on the blob and measured in its own radius.

local mask = {
  cells = 32,
  frame = 22,   -- the canonical frame has frame x frame cells
  span = 2.2,   -- and reaches this many root mean square radii to each side
}

local N, C, SPAN = mask.cells, mask.frame, mask.span
local floor, max, sqrt = math.floor, math.max, math.sqrt

-- Marks what `start` reaches over cells where passes(value) holds; returns how many.
local function flood(values, marks, start, label, passes)
  local stack, top, count = { start }, 1, 0
  marks[start] = label
  while top > 0 do
    local k = stack[top]
    top, count = top - 1, count + 1
    local x = (k - 1) % N
    for side = 1, 4 do
      local to = side == 1 and x > 0 and k - 1 or side == 2 and x < N - 1 and k + 1
        or side == 3 and k > N and k - N or side == 4 and k <= N * (N - 1) and k + N
      if to and not marks[to] and passes(values[to]) then
        marks[to] = label
        top = top + 1
        stack[top] = to
      end
    end
  end
  return count
end

local function solid(value) return value >= 0.5 end
local function empty(value) return value < 0.5 end

-- The largest blob with its soft rim and its holes filled, and how many cells it had.
function mask.blob(values)
  local marks, best, best_count = {}, nil, 0
  for k = 1, N * N do
    if not marks[k] and values[k] >= 0.5 then
      local count = flood(values, marks, k, k, solid)
      if count > best_count then best, best_count = k, count end
    end
  end
  local own = {}
  for k = 1, N * N do
    local keep = marks[k] == best or marks[k - 1] == best or marks[k + 1] == best
      or marks[k - N] == best or marks[k + N] == best
    own[k] = best and keep and values[k] or 0
  end
  local outside = {}
  for k = 1, N * N do
    local x, y = (k - 1) % N, (k - 1) // N
    local at_edge = x == 0 or y == 0 or x == N - 1 or y == N - 1
    if at_edge and own[k] < 0.5 and not outside[k] then flood(own, outside, k, true, empty) end
  end
  for k = 1, N * N do
    if own[k] < 0.5 and not outside[k] then own[k] = 1 end
  end
  return own, best_count
end

-- centre and root mean square radius, in cells
function mask.moments(values)
  local s, sx, sy, sd = 0, 0, 0, 0
  for k = 1, N * N do
    local m = values[k]
    if m > 0 then
      local x, y = (k - 1) % N + 0.5, (k - 1) // N + 0.5
      s, sx, sy, sd = s + m, sx + m * x, sy + m * y, sd + m * (x * x + y * y)
    end
  end
  local x, y = sx / s, sy / s
  return { x = x, y = y, radius = sqrt(max(0.25, sd / s - x * x - y * y)) }
end

-- where the middle of canonical cell k lies
function mask.place(k, at)
  local x = (((k - 1) % C + 0.5) * 2 / C - 1) * SPAN
  local y = (((k - 1) // C + 0.5) * 2 / C - 1) * SPAN
  return at.x + x * at.radius, at.y + y * at.radius
end

-- the mask in the canonical frame at a place, and its sum
function mask.canonical(values, at)
  local out, sum, step = {}, 0, at.radius * 2 * SPAN / C
  local x0, y0 = mask.place(1, at)
  for j = 0, C - 1 do
    local y = y0 + j * step - 0.5
    local iy = floor(y)
    local fy = y - iy
    for i = 0, C - 1 do
      local x, m = x0 + i * step - 0.5, 0
      local ix = floor(x)
      if ix >= 0 and ix < N - 1 and iy >= 0 and iy < N - 1 then
        local k, fx = iy * N + ix + 1, x - ix
        local upper = values[k] + (values[k + 1] - values[k]) * fx
        local lower = values[k + N] + (values[k + N + 1] - values[k + N]) * fx
        m = upper + (lower - upper) * fy
      end
      out[j * C + i + 1] = m
      sum = sum + m
    end
  end
  return out, sum
end

-- the canonical cell that mirrors cell k left to right
function mask.mirror(k)
  return (k - 1) // C * C + C - (k - 1) % C
end

-- soft intersection over union of two canonical masks
function mask.overlap(a, a_sum, b, b_sum)
  local both = 0
  for k = 1, C * C do
    local p, q = a[k], b[k]
    both = both + (p < q and p or q)
  end
  return both / max(1, a_sum + b_sum - both)
end

return mask
