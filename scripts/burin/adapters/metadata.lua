-- SPDX-License-Identifier: MIT
-- metadata.lua - what LoRA files say about themselves. Every value is a text. The keys are those of kohya-ss/sd-scripts
-- (train_network.py, sai_model_spec.py), which A1111, Forge and others read.
local core = require "burin.core"
local metadata = {}

local versions = { sd1 = "sd_v1", sd2 = "sd_v2", sdxl = "sdxl_base_v1-0" }
local architectures = { sd1 = "stable-diffusion-v1", sd2 = "stable-diffusion-v2-512", sdxl = "stable-diffusion-xl-v1-base" }

local function is_v2_768(family, prediction) return family == "sd2" and prediction == "v" end

-- The keys that tell what a file is for. o: family, prediction, module, rank, alpha, args (texts by name)
function metadata.network(o)
  return {
    ss_v2 = o.family == "sd2" and "True" or "False",
    ss_base_model_version = is_v2_768(o.family, o.prediction) and "sd_v2_v" or versions[o.family],
    ss_network_module = o.module, ss_network_dim = tostring(o.rank or "Dynamic"), ss_network_alpha = tostring(o.alpha or "Dynamic"),
    ss_network_args = o.args and next(o.args) and core.json_encode(o.args) or "{}",
    ["modelspec.architecture"] = (is_v2_768(o.family, o.prediction) and "stable-diffusion-v2-768-v"
      or architectures[o.family]) .. "/lora",
  }
end

-- The rest of modelspec 1.0.1 (https://github.com/Stability-AI/ModelSpec). o: title, family, prediction, and optional
-- resolution, clip_skip, author, description, trigger, tags, date
function metadata.modelspec(o)
  local v = is_v2_768(o.family, o.prediction)
  local size = o.resolution or (o.family == "sdxl" and 1024 or v and 768 or 512)
  return {
    ["modelspec.sai_model_spec"] = "1.0.1", ["modelspec.title"] = o.title,
    ["modelspec.implementation"] = o.family == "sdxl" and "https://github.com/Stability-AI/generative-models" or "diffusers",
    ["modelspec.resolution"] = ("%dx%d"):format(size, size), ["modelspec.prediction_type"] = o.prediction or "epsilon",
    ["modelspec.encoder_layer"] = tostring(o.clip_skip or 1), ["modelspec.author"] = o.author,
    ["modelspec.description"] = o.description, ["modelspec.trigger_phrase"] = o.trigger, ["modelspec.tags"] = o.tags,
    ["modelspec.date"] = o.date,
  }
end

local minimal = { "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha",
  "ss_network_args", "modelspec.architecture" }

metadata.profiles = { "full", "minimal", "none" }

-- What a profile leaves of metadata: all of it, what tells programs how to load the file, or nothing.
function metadata.profile(all, profile)
  if profile == "none" then return {} end
  if profile ~= "minimal" then return all end
  local few = {}
  for _, key in ipairs(minimal) do few[key] = all[key] end
  return few
end

-- SHA-256 of a safetensors file's bytes after its header.
function metadata.data_hash(path) return core.sha256_file(path, 8 + ("<I8"):unpack(core.read_part(path, 0, 8))) end

-- A1111's short hash of before 2023: 64 KiB at 1 MiB.
function metadata.legacy_hash(path) return core.sha256_file(path, 0x100000, 0x10000):sub(1, 8) end

-- Adds the hashes of a file with these tensors, as sd-scripts computes them (train_util.py,
-- precalculate_safetensors_hashes): of a file whose metadata are the ss_ keys alone. write(path, metadata) writes it.
function metadata.add_hashes(path, all, write)
  local few, temporary = {}, path .. ".hash.tmp-0-0"
  for k, v in pairs(all) do if k:match "^ss_" then few[k] = v end end
  write(temporary, few)
  all.sshs_model_hash, all.sshs_legacy_hash = metadata.data_hash(temporary), metadata.legacy_hash(temporary)
  core.remove_file(temporary)
  if all["modelspec.sai_model_spec"] then all["modelspec.hash_sha256"] = "0x" .. all.sshs_model_hash end
end

-- ---- of a training run --------------------------------------------------------------------------------

-- What a run learnt from: folders, tags, buckets, in the form of A1111's metadata card.
local function dataset(run)
  local dirs, regs, tags, buckets, images, priors = {}, {}, {}, {}, 0, 0
  local function folder_of(path) return path:match "([^/]*)/[^/]*$" or "." end
  for _, item in ipairs(run.data.items) do
    local name, into = folder_of(item.path or "."), item.prior and regs or dirs
    into[name] = into[name] or { n_repeats = item.repeats, img_count = 0 }
    into[name].img_count = into[name].img_count + 1
    if item.prior then priors = priors + item.repeats else images = images + item.repeats end
    if item.caption and not item.prior then
      tags[name] = tags[name] or {}
      for tag in item.caption:gmatch "[^,]+" do
        tag = tag:match "^%s*(.-)%s*$"
        if tag ~= "" then tags[name][tag] = (tags[name][tag] or 0) + 1 end
      end
    end
  end
  for i, b in ipairs(run.data:buckets()) do
    buckets[tostring(i - 1)] = { resolution = { b.w, b.h }, count = b.count }
  end
  return { ss_dataset_dirs = core.json_encode(dirs), ss_reg_dataset_dirs = core.json_encode(regs),
    ss_tag_frequency = core.json_encode(tags), ss_bucket_info = core.json_encode { buckets = buckets, mean_img_ar_error = 0 },
    ss_num_train_images = tostring(images), ss_num_reg_images = tostring(priors) }
end

local function python(b) return b and "True" or "False" end

-- A run's metadata, complete but for ss_output_name and hashes. The clock stays out of it unless the recipe asks for dates:
-- the same recipe gives the same file.
function metadata.of_run(run)
  local o, model = run.o, run.model
  local trigger
  for _, c in ipairs(o.concepts) do trigger = trigger or c.prompt end
  local all = dataset(run)
  local function add(t) for k, v in pairs(t) do all[k] = tostring(v) end end
  if core.exists(o.base.path) == "file" then
    run.base_sha = run.base_sha or core.sha256_file(o.base.path)
    add { ss_new_sd_model_hash = run.base_sha, ss_sd_model_hash = metadata.legacy_hash(o.base.path) }
  end
  add {
    ss_sd_model_name = o.base.path:match "[^/]*$", ss_seed = o.seed, ss_steps = run.step, ss_max_train_steps = run.steps,
    ss_epoch = math.ceil(run.step / run.per_epoch), ss_num_epochs = math.ceil(run.steps / run.per_epoch),
    ss_num_batches_per_epoch = run.data:steps_per_epoch(), ss_gradient_accumulation_steps = o.accumulate,
    ss_gradient_checkpointing = python(run.settings.checkpoint), ss_learning_rate = o.optimizer.lr, ss_unet_lr = o.optimizer.lr,
    ss_text_encoder_lr = run.trains_text and o.optimizer.text_encoder_lr or "None", ss_optimizer = o.optimizer.name,
    ss_lr_scheduler = o.schedule.name, ss_max_grad_norm = o.max_grad_norm, ss_loss_type = o.loss.name or "custom",
    ss_mixed_precision = ({ f32 = "no", f16 = "fp16", bf16 = "bf16" })[run.settings.precision], ss_clip_skip = o.clip_skip or "None",
    ss_resolution = ("(%d, %d)"):format(o.resolution, o.resolution), ss_enable_bucket = python(o.buckets),
    ss_batch_size_per_device = o.batch, ss_total_batch_size = o.batch * o.accumulate, ss_max_token_length = 75,
    ss_cache_latents = "True", ss_prior_loss_weight = 1.0, ss_training_comment = "trained with Burin " .. core.version,
  }
  local date, seconds
  if o.save.date then
    date, seconds = core.date()
    add { ss_training_started_at = run.began_at or seconds, ss_training_finished_at = seconds }
  end
  for k, v in pairs(metadata.modelspec { title = o.name, family = model.family, prediction = model.prediction,
    resolution = o.resolution, clip_skip = o.clip_skip, trigger = trigger, date = date }) do all[k] = v end
  return all
end

return metadata
