-- SPDX-License-Identifier: MIT
-- priors.lua - class images: which there are, which are missing, and drawing those.
local core = require "burin.core"
local errors = require "burin.base.errors"
local progress = require "burin.base.progress"
local recipes = require "burin.train.recipe"
local state = require "burin.base.state"
local priors = {}

-- Class images made for a run lie in its folder, under a name of what they depend on: another prompt makes others.
local function own_folder(recipe, settings, i)
  local prior = recipe.concepts[i].prior
  local key = core.json_encode { prior.prompt, prior.steps, prior.guidance, prior.sampler, recipe.seed,
    recipe.resolution, settings.precision, recipe.base.path }
  return ("%s/prior-%d-%s"):format(recipes.folder(recipe), i, core.hash(key):sub(1, 8))
end

-- Adds the class images of a folder to the data, as the scanner of pictures finds them. -> their names, how many of
-- them no run drew
local function add_folder(data, folder, prior, extra)
  local first, names, own = #data.items + 1, {}, 0
  local ok, e = pcall(data.add, data, folder, { prompt = prior.prompt, lines = "first", repeats = 1 }, extra)
  if not ok and folder == prior.images then  -- that there are none is no error: they are drawn
    table.insert(data.remarks, { text = "class images are drawn: " .. errors.message(e), concept = extra.concept,
      prior = true })
  end
  for i = first, #data.items do
    local name = data.items[i].path:match "[^/]*$"
    names[name] = true
    if not name:match "^class%-%d+%.png$" then own = own + 1 end
  end
  return names, own
end

-- What there is of a prior's class images: in the run's own folder, where missing ones are drawn, and in the user's,
-- which is only read.
local function add_found(data, recipe, settings, i)
  local prior = recipe.concepts[i].prior
  local p = { folder = own_folder(recipe, settings, i), prior = prior, concept = i, missing = {} }
  local extra, there, own = { weight = prior.weight, concept = i, prior = true }, {}, 0
  for _, folder in ipairs { p.folder, prior.images } do
    if core.exists(folder) or folder == prior.images then
      local names, n = add_folder(data, folder, prior, extra)
      for name in pairs(names) do there[name] = true end
      own = own + n
    end
  end
  for k = 1, prior.count - own do
    local name = ("class-%05d.png"):format(k)
    if not there[name] then p.missing[#p.missing + 1] = { index = k, path = p.folder .. "/" .. name } end
  end
  return p
end

-- Adds the class images that exist to the data, and stand-ins for those to be made, so that the plan knows the number
-- of steps. Returns what has to be drawn: { { folder =, prior =, concept =, missing = { { index =, path = } } } ... }.
function priors.add(data, recipe, settings)
  local square = data:bucket_of(recipe.resolution, recipe.resolution)
  local incomplete = {}
  for i, c in ipairs(recipe.concepts) do
    if c.prior then
      local p = add_found(data, recipe, settings, i)
      for _ = 1, #p.missing do
        table.insert(data.items, { concept = i, prior = true, repeats = 1, bucket = square, weight = c.prior.weight })
      end
      if #p.missing > 0 then table.insert(incomplete, p) end
    end
  end
  data:balance_priors()
  return incomplete
end

-- A folder of drawn class images says which base drew them: those of another would teach what this one never was.
local function check_base(plan, base_key)
  local drawn = {}
  for _, p in ipairs(plan.missing) do drawn[p.concept] = true end
  for i, c in ipairs(plan.recipe.concepts) do
    local folder = c.prior and own_folder(plan.recipe, plan.settings, i)
    if folder and (drawn[i] or core.exists(folder)) then
      local mark = folder .. "/base"
      if not core.exists(mark) then
        core.make_dirs(folder)
        errors.guard("output", core.write_file, mark, base_key)
      elseif core.read_file(mark, 64) ~= base_key then
        errors.file(folder, "these class images are of another base than %s is now; remove the folder, and "
          .. "they are drawn anew",
          plan.recipe.base.path)
      end
    end
  end
end

-- The images to draw so that those that are missing come out as in a run that was never killed: a picture depends on
-- its place in a round of `batch`, so whole rounds are drawn again. -> { { index =, path = nil: is there } ... }
local function whole_rounds(missing, batch)
  local rounds, last, list = {}, 0, {}
  for _, one in ipairs(missing) do
    local round = (one.index - 1) // batch
    rounds[round], last = rounds[round] or {}, round
    rounds[round][one.index] = one.path
  end
  for round = 0, last do
    for index = round * batch + 1, rounds[round] and (round + 1) * batch or 0 do
      list[#list + 1] = { index = index, path = rounds[round][index] }
    end
  end
  return list
end

-- Draws what is missing. Each class image depends on its number alone, so a killed run makes what it still lacks.
-- base_key: of the base that draws them.
function priors.make(plan, base_key)
  check_base(plan, base_key)
  if #plan.missing == 0 then return end
  for _, m in ipairs(plan.missing) do
    core.make_dirs(m.folder)
    state.sweep(m.folder)
    local jobs, list = {}, whole_rounds(m.missing, plan.prior_sampler.batch)
    for i, one in ipairs(list) do jobs[i] = { prompt = m.prior.prompt,
      seed = plan.recipe.seed * 100003 + one.index } end
    local bar = progress.new("class images", #jobs)
    local how = { steps = m.prior.steps, guidance = m.prior.guidance, sampler = m.prior.sampler }
    plan.prior_sampler:run(jobs, how, function(i, image)
      if list[i].path then errors.guard("output", core.image_save, list[i].path, image) end
      bar:update(i)
    end)
  end
  plan.data:drop_priors()
  priors.add(plan.data, plan.recipe, plan.settings)
  plan.data:report()
end

return priors
