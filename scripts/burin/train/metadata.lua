-- SPDX-License-Identifier: MIT
-- metadata.lua - what a training says of itself in the files that it writes, in kohya-ss/sd-scripts' words
-- (train_network.py). Every value is derived from the recipe, the plan and the steps done; none is kept beside them.
-- What programs need to load the file is adapters/metadata.lua's.
local core = require "burin.core"
local datasets = require "burin.train.data"
local files = require "burin.adapters.metadata"
local metadata = {}

local function python(b) return b and "True" or "False" end

-- "adamw(beta1=0.9, eps=1e-08)"; learning rates have keys of their own.
local function optimizer_text(optimizer)
  local list = {}
  for name, value in pairs(optimizer.options) do
    if not name:match "lr$" then list[#list + 1] = ("%s=%s"):format(name, value) end
  end
  table.sort(list)
  return ("%s(%s)"):format(optimizer.name, table.concat(list, ", "))
end

-- The loss weight of class images; the weights of all concepts that have some, when they differ.
local function prior_weight(concepts)
  local list, seen = {}, {}
  for _, c in ipairs(concepts) do
    local weight = c.prior and tostring(c.prior.weight + 0.0)
    if weight and not seen[weight] then list[#list + 1], seen[weight] = weight, true end
  end
  return #list > 0 and table.concat(list, ", ") or "1.0"
end

local function folder_of(path) return path and path:match "([^/]*)/[^/]*$" or "." end

-- How often each tag occurs in captions, by folder.
local function count_tags(items)
  local tags = {}
  for _, item in ipairs(items) do
    if item.caption and not item.prior then
      local of = tags[folder_of(item.path)] or {}
      tags[folder_of(item.path)] = of
      for tag in table.concat(datasets.captions(item), ","):gmatch "[^,]+" do
        tag = tag:match "^%s*(.-)%s*$"
        if tag ~= "" then of[tag] = (of[tag] or 0) + 1 end
      end
    end
  end
  return tags
end

-- { [folder] = { n_repeats, img_count } } of pictures or of class images, and how many pictures an epoch shows of them.
local function count_folders(items, prior)
  local dirs, shown = {}, 0
  for _, item in ipairs(items) do
    if (item.prior or false) == prior then
      local name = folder_of(item.path)
      dirs[name] = dirs[name] or { n_repeats = item.repeats, img_count = 0 }
      dirs[name].img_count = dirs[name].img_count + 1
      shown = shown + item.repeats
    end
  end
  return dirs, shown
end

-- Buckets in use, and how far the pictures' aspect ratios are from theirs on average, as sd-scripts has it.
local function bucket_info(data)
  local buckets, total, n = {}, 0, 0
  for i, b in ipairs(data:buckets()) do buckets[tostring(i - 1)] = { resolution = { b.w, b.h }, count = b.count } end
  for _, item in ipairs(data.items) do
    if item.width then
      total, n = total + math.abs(item.bucket.w / item.bucket.h - item.width / item.height), n + 1
    end
  end
  return { buckets = buckets, mean_img_ar_error = n > 0 and total / n or 0 }
end

local function of_data(data)
  local dirs, images = count_folders(data.items, false)
  local regs, priors = count_folders(data.items, true)
  return { ss_dataset_dirs = core.json_encode(dirs), ss_reg_dataset_dirs = core.json_encode(regs),
    ss_tag_frequency = core.json_encode(count_tags(data.items)), ss_bucket_info = core.json_encode(bucket_info(data)),
    ss_num_train_images = images, ss_num_reg_images = priors }
end

local function of_base(training)
  local base, all = training.plan.recipe.base, {}
  local path, vae = base.path, base.parts.vae
  if core.exists(path) == "file" then
    training.base_hash = training.base_hash or core.sha256_file(path)
    all.ss_new_sd_model_hash, all.ss_sd_model_hash = training.base_hash, files.legacy_hash(path)
  end
  if vae then all.ss_vae_name = vae:match "([^/]*)/*$" end
  if vae and core.exists(vae) == "file" then
    all.ss_new_vae_hash, all.ss_vae_hash = core.sha256_file(vae), files.legacy_hash(vae)
  end
  for _, name in ipairs { "text_encoder", "text_encoder_2" } do  -- nobody else has words for these
    local from = base.parts[name]
    if from then all["burin." .. name] = from:match "([^/]*)/*$" end
  end
  return all
end

-- Nobody else has words for the file that a training begins from.
local function of_start(from)
  return from and { ["burin.from"] = from.path:match "([^/]*)/*$", ["burin.from_sha256"] = from.hash } or {}
end

local function of_settings(plan)
  local recipe, settings, method = plan.recipe, plan.settings, plan.method
  local optimizer, none = recipe.optimizer, "None"
  local warmup = recipe.schedule.options and recipe.schedule.options.warmup
  return {
    ss_sd_model_name = recipe.base.path:match "[^/]*$", ss_seed = recipe.seed,
    ss_learning_rate = optimizer.lr, ss_unet_lr = method.options.unet ~= false and optimizer.lr or none,
    ss_text_encoder_lr = method.options.text_encoder and optimizer.text_encoder_lr or none,
    ss_optimizer = optimizer_text(optimizer), ss_lr_scheduler = recipe.schedule.name,
      ss_lr_warmup_steps = warmup or none,
    ss_max_grad_norm = recipe.max_grad_norm, ss_loss_type = recipe.loss.per_sample and recipe.loss.name or "l2",
    ss_min_snr_gamma = recipe.loss.gamma or none, ss_prior_loss_weight = prior_weight(recipe.concepts),
    ss_mixed_precision = ({ f32 = "no", f16 = "fp16", bf16 = "bf16" })[settings.precision],
    ss_gradient_checkpointing = python(settings.checkpoint), ss_gradient_accumulation_steps = recipe.accumulate,
    ss_batch_size_per_device = recipe.batch, ss_total_batch_size = recipe.batch * recipe.accumulate,
    ss_clip_skip = recipe.clip_skip or none, ss_resolution = ("(%d, %d)"):format(recipe.resolution, recipe.resolution),
    ss_enable_bucket = python(recipe.buckets), ss_max_token_length = plan.text.tokens, ss_cache_latents = "True",
    ss_training_comment = "trained with Burin " .. core.version,
  }
end

local function of_steps(training)
  local plan = training.plan
  local per_epoch, steps = plan:steps_per_epoch(), plan:steps()
  return { ss_steps = training.step, ss_max_train_steps = steps, ss_epoch = math.ceil(training.step / per_epoch),
    ss_num_epochs = math.ceil(steps / per_epoch), ss_num_batches_per_epoch = plan.data:steps_per_epoch() }
end

-- Complete but for what loaders need, ss_output_name and hashes of the file. The clock stays out of it unless the
-- recipe asks for dates: the same recipe gives the same file.
function metadata.of(training)
  local plan, recipe, model = training.plan, training.plan.recipe, training.plan.model
  local all, trigger, date = {}, nil, nil
  local function add(t) for k, v in pairs(t) do all[k] = tostring(v) end end
  for _, c in ipairs(recipe.concepts) do trigger = trigger or c.prompt end
  if recipe.save.date then
    local text, now = core.date()
    date = text
    add { ss_training_started_at = training.began_at or now, ss_training_finished_at = now }
  end
  for _, part in ipairs { of_data(plan.data), of_base(training), of_start(training.from), of_settings(plan),
    of_steps(training), files.modelspec(model, { title = recipe.name, resolution = recipe.resolution,
      clip_skip = recipe.clip_skip, trigger = trigger, date = date }) } do add(part) end
  return all
end

return metadata
