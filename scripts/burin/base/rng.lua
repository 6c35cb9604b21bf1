-- SPDX-License-Identifier: MIT
-- rng.lua - whole random numbers for data order: SplitMix64 (Steele et al. 2014). Pure functions of the seed.
local rng = {}

-- next() -> a uniform integer in [1, n]
function rng.new(seed, stream)
  local state = seed * 0x9E3779B97F4A7C15 + (stream or 0) * 0xD1B54A32D192ED03
  return function(n)
    state = state + 0x9E3779B97F4A7C15
    local z = state
    z = (z ~ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ~ (z >> 27)) * 0x94D049BB133111EB
    z = z ~ (z >> 31)
    return (z >> 1) % n + 1
  end
end

-- Shuffles a list in place (Fisher-Yates) and returns it.
function rng.shuffle(list, next)
  for i = #list, 2, -1 do
    local j = next(i)
    list[i], list[j] = list[j], list[i]
  end
  return list
end

return rng
