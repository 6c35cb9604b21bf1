-- SPDX-License-Identifier: MIT
-- What ./quickstart runs: the recipe, then scores from the world's exact recogniser and a before-after picture.
local core = require "burin.core"
local grid = require "burin.sample.grid"
local loop = require "burin.train.loop"
local progress = require "burin.base.progress"
local recipe = require "burin.train.recipe"
local plans = require "burin.train.plan"
local world = require "world"

local r = recipe.load "recipes/quickstart.lua"
local run = loop.new(plans.prepare(r))
local result = run:execute {}

-- What a prompt asks for: the subject or a plain cat, on which background.
local function wanted(prompt)
  return { subject = prompt:find "sks cat" ~= nil, background = prompt:match " on (%a+)$" }
end

local function score(images)
  local s = { subject = 0, background = 0, subjects = 0, plain = 0, plains = 0, backgrounds = 0 }
  for i, image in ipairs(images) do
    local want, seen = wanted(r.sample.prompts[i]), world.recognise(image:bytes())
    if want.subject then
      s.subjects = s.subjects + 1
      if seen.subject then s.subject = s.subject + 1 end
    else
      s.plains = s.plains + 1
      if seen.class == "cat" and not seen.subject then s.plain = s.plain + 1 end
    end
    if want.background then
      s.backgrounds = s.backgrounds + 1
      if seen.background == want.background then s.background = s.background + 1 end
    end
  end
  return s
end

local before, after = score(run.before), score(run.after)
local function line(what, key, of)
  return ("  %-44s %2d of %-2d  ->  %2d of %-2d\n"):format(what, before[key], before[of], after[key], after[of])
end

local images, labels = {}, {}
for i, prompt in ipairs(r.sample.prompts) do
  local label = prompt:gsub("a photo of ", "")
  for _, image in ipairs { run.before[i], run.after[i] } do
    images[#images + 1], labels[#labels + 1] = image, label
  end
end
core.image_save(run:path "before-after.png", grid.labelled(images, labels, 4, { "before", "after", "before", "after" }))

core.write_stdout(table.concat {
  "\nburin taught the tiny model a new cat in ", progress.duration(result.seconds), " (", tostring(result.steps),
    " steps)\n\n",
  "                                                 before  ->  after\n",
  line("'sks cat' shows the subject", "subject", "subjects"),
  line("the prompted background is there", "background", "backgrounds"),
  line("'a cat' is still an ordinary cat", "plain", "plains"),
  "\nlook at  ", run:path "before-after.png", "\n",
  "the LoRA ", result.path, "\n",
  "next     build/release/burin sample models/tiny-sd.safetensors --lora ", result.path,
    ":0.8 --prompt 'a photo of sks cat on sand'\n",
  "then     write your own recipe: see README.md and docs/recipes.md\n",
})
