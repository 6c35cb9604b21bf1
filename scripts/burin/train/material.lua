-- SPDX-License-Identifier: MIT
-- material.lua - what a run learns from: the pictures of its concepts, class images (made here when they are missing),
-- and the latents and texts of both, computed once and cached.
local cache = require "burin.base.cache"
local core = require "burin.core"
local data = require "burin.train.data"
local errors = require "burin.base.errors"
local progress = require "burin.base.progress"
local state = require "burin.base.state"
local material = {}

-- Class images made for a run lie in its folder, under a name of what they depend on: another prompt makes others.
local function prior_folder(run, i, prior)
  local o = run.o
  local key = core.json_encode { prior.prompt, prior.steps, prior.guidance, prior.sampler, o.seed, o.resolution,
    run.settings.precision, o.base.path }
  return ("%s/prior-%d-%s"):format(run.folder, i, core.hash(key):sub(1, 8))
end

local function is_image(name)
  name = name:lower()
  return name:match "%.png$" or name:match "%.jpe?g$" or name:match "%.bmp$"
end

-- What a prior's folder holds and lacks: { folder =, prior =, concept =, have = count, missing = { { index =, path = } } }.
-- The user's own pictures count, and none of them is ever written over.
local function look_at_prior(run, i, prior)
  local p = { folder = prior.images or prior_folder(run, i, prior), prior = prior, concept = i, have = 0, missing = {} }
  local there, own = {}, 0
  for _, name in ipairs(core.exists(p.folder) and core.list(p.folder) or {}) do
    there[name] = true
    if is_image(name) then
      p.have = p.have + 1
      if not name:match "^class%-%d+%.png$" then own = own + 1 end
    end
  end
  for k = 1, prior.count - own do
    local name = ("class-%05d.png"):format(k)
    if not there[name] then p.missing[#p.missing + 1] = { index = k, path = p.folder .. "/" .. name } end
  end
  return p
end

-- Adds the class images that exist, and stand-ins for those to be made, so that the plan knows the number of steps.
local function add_priors(run)
  local square = run.data:bucket_of(run.o.resolution, run.o.resolution)
  run.missing_prior = {}
  for i, c in ipairs(run.o.concepts) do
    local p = c.prior and look_at_prior(run, i, c.prior)
    if p then
      local extra = { weight = c.prior.weight, concept = i, prior = true }
      if p.have > 0 then run.data:add(p.folder, { prompt = c.prior.prompt, repeats = 1 }, extra) end
      for _ = 1, #p.missing do
        table.insert(run.data.items, { concept = i, prior = true, repeats = 1, bucket = square, weight = c.prior.weight })
      end
      if #p.missing > 0 then table.insert(run.missing_prior, p) end
    end
  end
  run.data:balance_priors()
end

local function report_skipped(run)
  for i = (run.reported or 0) + 1, #run.data.skipped do
    local s = run.data.skipped[i]
    core.log("warn", ("%s left out: %s"):format(s.path, s.reason))
  end
  run.reported = #run.data.skipped
end

-- Lists the pictures of a prepared run: run.data, run.missing_prior.
function material.open(run)
  local o = run.o
  run.data = data.new { batch = o.batch, seed = o.seed, resolution = o.resolution, buckets = o.buckets,
    granularity = run.model:downsample() * 2 }
  for i, c in ipairs(o.concepts) do
    if errors.guard("input", run.data.add, run.data, c.images, { prompt = c.prompt, repeats = c.repeats }, { weight = c.weight, concept = i }) == 0 then
      local first = run.data.skipped[1]
      errors.raise("data", ("concept %d: no usable image in '%s'%s"):format(i, c.images,
        first and (" (" .. first.path .. ": " .. first.reason .. ")") or ""))
    end
  end
  add_priors(run)
  report_skipped(run)
end

function material.count_steps(run)
  local o = run.o
  run.per_epoch = (run.data:steps_per_epoch() + o.accumulate - 1) // o.accumulate
  run.steps = o.steps or math.max(1, math.floor(o.epochs * run.per_epoch + 0.5))
end

-- A folder of class images says which base drew them: those of another would teach what this one never was.
local function check_base(run)
  for i, c in ipairs(run.o.concepts) do
    if c.prior and not c.prior.images then
      local folder = prior_folder(run, i, c.prior)
      local mark = folder .. "/base"
      if not core.exists(mark) then
        core.make_dirs(folder)
        errors.guard("output", core.write_file, mark, run.base_key)
      elseif core.read_file(mark, 64) ~= run.base_key then
        errors.raise("data", ("%s: these class images are of another base than %s is now; remove the folder, and "
          .. "they are drawn anew"):format(folder, run.o.base.path))
      end
    end
  end
end

-- Each class image depends on its number alone, so a killed run makes just those that it still lacks.
function material.make_priors(run)
  check_base(run)
  if #run.missing_prior == 0 then return end
  for _, m in ipairs(run.missing_prior) do
    core.make_dirs(m.folder)
    state.sweep(m.folder)
    local jobs = {}
    for i, one in ipairs(m.missing) do jobs[i] = { prompt = m.prior.prompt, seed = run.o.seed * 100003 + one.index } end
    local bar = progress.new("class images", #jobs)
    local how = { steps = m.prior.steps, guidance = m.prior.guidance, sampler = m.prior.sampler }
    run.prior_sampler:run(jobs, how, function(i, image)
      errors.guard("output", core.image_save, m.missing[i].path, image)
      bar:update(i)
    end)
  end
  local items = {}
  for _, item in ipairs(run.data.items) do if not item.prior then items[#items + 1] = item end end
  run.data.items = items
  add_priors(run)
  report_skipped(run)
end

-- The distribution of a picture's latents; nil and the reason when the picture cannot be decoded.
local function latents_of(run, item, key)
  local why
  local moments = cache.get("latents", key, function()
    local ok, image = pcall(core.image_load, item.path)
    if not ok then
      why = tostring(image)
      return nil
    end
    local b, e = item.bucket, run.encode[item.bucket]
    e.pixels:write(core.image_cover(image, b.w, b.h):affine(1 / 127.5, -1, "f32"))
    e.session:run()
    return e.moments:read()
  end)
  return moments, why
end

-- Goes on without pictures whose damage only decoding shows. A resumed run leaves out the same ones.
local function leave_out(run, kept)
  local left = {}
  for _, item in ipairs(kept) do if not item.prior then left[item.concept] = true end end
  report_skipped(run)
  for i, c in ipairs(run.o.concepts) do
    if not left[i] then
      errors.raise("data", ("concept %d: no usable image in '%s'"):format(i, c.images))
    end
  end
  run.data.items = kept
  run.data:balance_priors()
  material.count_steps(run)
end

-- Gives every item its latents and its text; run.data_key becomes a hash of all that the items are.
function material.fill_caches(run)
  local model, o, device = run.model, run.o, core.device()
  -- Other devices and types compute other bits: a cache that mixed them would make a run depend on earlier ones.
  local how = table.concat({ run.settings.precision, device.name, device.driver, device.tier }, "|")
  local vae_key = model:content_hash "vae" .. how
  local text_key = not run.text.live and model:content_hash "text" .. (o.clip_skip or 0) .. how
  local bar, kept, facts = progress.new("caching latents", #run.data.items), {}, {}
  for i, item in ipairs(run.data.items) do
    local b = item.bucket
    local read, content = pcall(core.hash_file, item.path)
    local why = not read and content
    if read then item.moments, why = latents_of(run, item, core.hash(content .. vae_key .. b.w .. "x" .. b.h)) end
    if item.moments then
      kept[#kept + 1] = item
      facts[#facts + 1] = ("%s|%s|%dx%d|%s"):format(content, item.caption, b.w, b.h, item.prior or false)
      run.text:fill(item, text_key)
    else
      table.insert(run.data.skipped, { path = item.path, reason = why })
    end
    bar:update(i)
  end
  run.data_key = core.hash(table.concat(facts, "\n"))
  if #kept < #run.data.items then leave_out(run, kept) end
end

return material
