-- SPDX-License-Identifier: MIT
-- How well the tiny model draws its world: 200 prompts over all classes, colours and backgrounds, each picture read
-- by the world's recogniser.   burin run --trust recipes/tiny/evaluate_base.lua   (MODEL, COUNT, GUIDANCE, STEPS)
local core = require "burin.core"
local grid = require "burin.sample.grid"
local progress = require "burin.base.progress"
local sample = require "burin.sample.sampler"
local world = require "world"

local path = core.env "MODEL" or "models/tiny-sd.safetensors"
local count = math.tointeger(core.env "COUNT" or 200)
local model = require("burin.models.model").open(path)
local sampler = sample.new(model, { width = world.size, height = world.size, batch = 8 })
core.commit(true)
model:load()

local prompts, jobs = world.prompts(count, 1), {}
for i, p in ipairs(prompts) do jobs[i] = { prompt = p.prompt, seed = 1000 + i } end
local bar = progress.new("sampling", #jobs)
local right, misses, images = { class = 0, colour = 0, background = 0, all = 0 }, {}, {}
sampler:run(jobs, { steps = math.tointeger(core.env "STEPS" or 20), guidance = tonumber(core.env "GUIDANCE" or 3) },
  function(i, image)
    local want, seen = prompts[i].labels, world.recognise(image:bytes())
    local all = true
    for _, key in ipairs { "class", "colour", "background" } do
      if seen[key] == want[key] then
        right[key] = right[key] + 1
      else
        all = false
        local miss = ("%s: %s seen as %s"):format(key, want[key], tostring(seen[key]))
        misses[miss] = (misses[miss] or 0) + 1
      end
    end
    right.all = right.all + (all and 1 or 0)
    if i <= 32 then images[i] = image end
    bar:update(i)
  end)
local list = {}
for miss, n in pairs(misses) do list[#list + 1] = ("%3d  %s"):format(n, miss) end
table.sort(list, function(a, b) return a > b end)
for i = 1, math.min(12, #list) do core.write_stdout(list[i] .. "\n") end
core.make_dirs "runs"
core.image_save("runs/base.png", grid.labelled(images, jobs, 8))
for _, key in ipairs { "class", "colour", "background", "all" } do
  core.write_stdout(("%-11s %5.1f %% of %d\n"):format(key, 100 * right[key] / #jobs, #jobs))
end
