-- SPDX-License-Identifier: MIT
-- synonyms.lua - what words of other programs are called here: kohya's scripts and their GUI, diffusers' examples,
-- OneTrainer, ai-toolkit, the Dreambooth extension. Somebody who brings a configuration of theirs is told what to
-- write.
local synonyms = {}

local NONE = "Burin has no counterpart yet"

-- { words, what to do, our field where it lies in a table within the recipe }: in that table, it alone is the answer.
local fields = {
  -- what is trained
  { "network_dim, lora_rank, network_rank, lora_dim, linear, rank, dim, lora_r",
    "write method = burin.lora { rank = ... }", "rank" },
  { "network_alpha, lora_alpha, linear_alpha, alpha", "write method = burin.lora { alpha = ... }", "alpha" },
  { "conv_dim, network_conv_dim, conv, conv_rank", "write method = burin.lora { conv_rank = ... }", "conv_rank" },
  { "conv_alpha, network_conv_alpha", "write method = burin.lora { conv_alpha = ... }", "conv_alpha" },
  { "network_module, network_type, lora_type, training_method, peft_type, network",
    "write method = burin.lora {}, burin.locon {} or burin.full {}" },
  { "network_args", "each becomes a field of the method, as in method = burin.lora { conv_rank = ... }" },
  { "network_train_unet_only, train_text_encoder, text_encoder",
    "write method = burin.lora { text_encoder = false }, or true",
    "text_encoder" },
  { "network_train_text_encoder_only, train_unet", "write method = burin.lora { unet = false }, or true", "unet" },
  { "network_weights, dim_from_weights, lora_model_name, pretrained_lora_path", "write from = 'lora.safetensors'" },
  { "base_weights", NONE .. " for LoRAs beside the one that is trained; burin merge puts one into the base" },
  { "network_dropout, rank_dropout, module_dropout, lora_dropout, dropout, scale_weight_norms, use_dora, "
    .. "lora_decompose, loraplus_lr_ratio, block_dims, block_alphas, down_lr_weight, mid_lr_weight, up_lr_weight, "
    .. "stop_text_encoder, stop_text_encoder_training, target_modules, layer_filter", NONE },
  -- the base
  { "pretrained_model_name_or_path, model_name_or_path, name_or_path, base_model_name, base_model, pretrained_model, "
    .. "model, model_name, ckpt, checkpoint_path", 'write base = burin.model "file.safetensors"' },
  { "vae_path, pretrained_vae_model_name_or_path, vae_model_name", "write vae = 'vae.safetensors'", "vae" },
  { "v2, sdxl, is_sdxl, is_v2, arch, model_type, fm_type", "not needed: the file itself says what it is" },
  { "v_parameterization, prediction_type, force_v_prediction, is_v_pred, v_pred",
    "write prediction = 'v' or 'epsilon'" },
  { "zero_terminal_snr, rescale_noise_scheduler_to_zero_terminal_snr", "not needed: the base says so itself" },
  { "no_half_vae, vae_dtype", "not needed: the VAE computes in f32 where f16 would not do" },
  { "text_encoder_layer_skip, clip_layer_skip, clipskip", "write clip_skip = ..." },
  { "max_token_length", NONE .. ": 75 tokens of a caption are used", "max_tokens" },
  -- pictures and captions
  { "train_data_dir, instance_data_dir, instance_data_root, image_dir, folder_path, data_dir, dataset_path",
    'write concepts = { { images = "folder" } }', "images" },
  { "datasets, dataset, dataset_config, subsets, concepts_list, concept_file_name, metadata_file, in_json",
    'write a list, concepts = { { images = "folder", prompt = "..." } }' },
  { "instance_prompt, class_tokens, instance_token, trigger_word, default_caption, caption",
    'write concepts = { { images = "folder", prompt = "a photo of sks dog" } }', "prompt" },
  { "with_prior_preservation, is_reg, prior_preservation, prior",
    'write concepts = { { images = "folder", prior = { prompt = "a photo of a dog" } } }', "prior" },
  { "reg_data_dir, class_data_dir", 'write concepts = { { ..., prior = { images = "folder" } } }' },
  { "class_prompt, class_token", 'write concepts = { { ..., prior = { prompt = "a photo of a dog" } } }' },
  { "num_class_images, num_class_images_per", "write concepts = { { ..., prior = { count = ... } } }", "count" },
  { "prior_loss_weight, prior_weight", "write concepts = { { ..., prior = { weight = ... } } }" },
  { "class_infer_steps", "write concepts = { { ..., prior = { steps = ... } } }" },
  { "class_guidance_scale", "write concepts = { { ..., prior = { guidance = ... } } }" },
  { "num_repeats, dataset_repeats, repeats, balancing", "write concepts = { { ..., repeats = ... } }", "repeats" },
  { "loss_multiplier, loss_weight, network_weight", "write concepts = { { ..., weight = ... } }", "weight" },
  { "caption_extension, caption_ext, caption_column",
    "not needed: the caption of a.png is a.txt or a.caption beside it" },
  { "shuffle_caption, shuffle_tokens, keep_tokens, keep_tokens_separator, caption_dropout_rate, "
    .. "caption_tag_dropout_rate, caption_dropout_every_n_epochs, caption_prefix, caption_suffix, caption_separator, "
    .. "enable_wildcard, weighted_captions, proportion_empty_prompts, class_negative_prompt", NONE },
  { "flip_aug, color_aug, random_crop, random_flip, face_crop_aug_range, flip_x, flip_y, crop_jitter", NONE },
  { "masked_loss, masked_training, alpha_mask, mask_path, validation_split, validation_seed", NONE },
  { "enable_bucket, aspect_ratio_bucketing, aspect_ratio_buckets", "write buckets = true, which is the default" },
  { "min_bucket_reso, max_bucket_reso, bucket_reso_steps, bucket_no_upscale, bucket_tolerance",
    "not settable: resolution decides which buckets there are" },
  { "max_resolution, train_resolution, image_size", "write resolution = ..." },
  -- steps
  { "train_batch_size, batch_size, per_device_train_batch_size", "write batch = ..." },
  { "gradient_accumulation_steps, gradient_accumulation, grad_accum", "write accumulate = ..." },
  { "max_train_epochs, num_train_epochs, num_epochs, max_epochs, epoch", "write epochs = ..." },
  { "max_train_steps, num_train_steps, train_steps, max_steps, num_steps, total_steps, iterations",
    "write steps = ..." },
  { "learning_rate, unet_lr, unet_learning_rate, lora_learning_rate, lr", "write optimizer = burin.adamw { lr = ... }",
    "lr" },
  { "text_encoder_lr, text_encoder_learning_rate, lora_txt_learning_rate, learning_rate_te, te_lr",
    "write optimizer = burin.adamw { text_encoder_lr = ... }", "text_encoder_lr" },
  { "optimizer_type, optim", "write optimizer = burin.adamw {} or burin.sgd {}" },
  { "use_8bit_adam, use_8bit_adamw", "write optimizer = burin.adamw {}; Burin has no 8-bit optimizer yet" },
  { "optimizer_args, optimizer_params",
    "each becomes a field of the optimizer, as in optimizer = burin.adamw { beta2 = ... }" },
  { "adam_beta1, beta1", "write optimizer = burin.adamw { beta1 = ... }", "beta1" },
  { "adam_beta2, beta2", "write optimizer = burin.adamw { beta2 = ... }", "beta2" },
  { "adam_epsilon, epsilon, eps", "write optimizer = burin.adamw { eps = ... }", "eps" },
  { "adam_weight_decay, weight_decay", "write optimizer = burin.adamw { weight_decay = ... }", "weight_decay" },
  { "lr_scheduler, learning_rate_scheduler, lr_scheduler_type, scheduler",
    "write schedule = burin.constant {}, burin.linear {} or burin.cosine {}" },
  { "lr_warmup_steps, lr_warmup_ratio, learning_rate_warmup_steps, warmup_steps, warmup",
    "write schedule = burin.constant { warmup = ... }, or of another schedule", "warmup" },
  { "lr_scheduler_num_cycles, learning_rate_cycles, lr_num_cycles, num_cycles",
    "write schedule = burin.cosine { cycles = ... }",
    "cycles" },
  { "lr_scheduler_min_lr_ratio, learning_rate_min_factor, min_lr", "write schedule = burin.cosine { floor = ... }",
    "floor" },
  { "lr_scheduler_power, lr_scheduler_args",
    'write schedule = burin.schedule("name", function(step, steps) return ... end)' },
  { "gradient_clipping, clip_grad_norm, max_gradient_norm", "write max_grad_norm = ..." },
  { "min_snr_gamma, snr_gamma", "write loss = burin.min_snr { gamma = ... }", "gamma" },
  { "loss_type, loss_fn, loss_function", "write loss = burin.mse {}, burin.min_snr {} or burin.loss { ... }" },
  { "huber_c, huber_schedule, huber_scale",
    "write loss = burin.loss { name = 'huber', per_sample = function(s) ... end }" },
  { "debiased_estimation_loss, debiased_estimation",
    "write loss = burin.loss { name = 'debiased', weight = function(snr) return 1 / math.sqrt(snr) end }" },
  { "noise_offset, offset_noise, adaptive_noise_scale, multires_noise_iterations, multires_noise_discount, "
    .. "ip_noise_gamma, perturbation_noise_weight, min_timestep, max_timestep, timestep_sampling, ema, use_ema, "
    .. "ema_decay, ema_config", NONE },
  -- precision and memory
  { "mixed_precision, train_dtype, weight_dtype, full_fp16, full_bf16, fp16, bf16, torch_dtype",
    "write precision = 'f32', 'f16' or 'bf16'" },
  { "fp8_base, fp8_base_unet, quantize, quantization", "write base_precision = 'int8'" },
  { "gradient_checkpointing", "write checkpoint = true" },
  { "xformers, sdpa, mem_eff_attn, attention, attention_mechanism, enable_xformers_memory_efficient_attention, "
    .. "use_flash_attention", "not needed: attention never keeps its scores in memory" },
  { "cache_latents, cache_latents_to_disk, latent_caching, vae_batch_size", "not needed: latents are always cached" },
  { "cache_text_encoder_outputs, cache_text_encoder_outputs_to_disk, cache_text_embeddings",
    "not needed: captions are cached where the method does not train the text encoder" },
  { "lowram, lowvram, low_vram, highvram, blocks_to_swap, layer_offload_fraction, cpu_offload_checkpointing",
    "write budget = '8 GiB', and what fits is chosen" },
  { "max_data_loader_n_workers, persistent_data_loader_workers, dataloader_num_workers, dataloader_threads, "
    .. "num_workers, num_cpu_threads_per_process, torch_compile, dynamo_backend", "not needed" },
  { "device, train_device, gpu_ids", "name it on the command line: burin train --device NAME" },
  { "multi_gpu, num_processes, deepspeed", NONE .. ": a run takes one device" },
  -- what comes out
  { "output_name, project_name, job_name, lora_name", "write name = ..." },
  { "output_dir, training_folder, workspace_dir, output_model_destination", 'write output = "folder"' },
  { "save_every_n_epochs, save_every_n_steps, save_every, save_epoch_frequency",
    "write save = { every = '1 epoch' }, or '100 steps'" },
  { "save_model_as, output_model_format, save_format", "write save = { format = ... }", "format" },
  { "save_precision, output_dtype, save_dtype", "write save = { dtype = ... }", "dtype" },
  { "save_last_n_epochs, save_last_n_steps, max_step_saves_to_keep", NONE .. ": results that were saved stay" },
  { "no_metadata", "write save = { metadata = 'none' }", "metadata" },
  { "training_comment, metadata_title, metadata_author, metadata_description, metadata_license, metadata_tags", NONE },
  { "save_state, save_state_on_train_end, checkpointing_steps, backup_after",
    "write state = { every = '250 steps' }, the default" },
  { "save_last_n_steps_state, save_last_n_epochs_state, checkpoints_total_limit, rolling_backup_count",
    "write state = { keep = ... }", "keep" },
  { "resume, resume_from_checkpoint, continue_last_backup, initial_step, initial_epoch",
    "run: burin resume OUTPUT/NAME" },
  { "sample_prompts, sample_prompt, validation_prompt, validation_prompts, save_sample_prompt, prompts",
    'write sample = { prompts = { "a photo of sks dog" } }', "prompts" },
  { "sample_every_n_epochs, sample_every_n_steps, sample_every, validation_epochs, validation_steps, sample_after",
    "write sample = { every = '1 epoch', prompts = { ... } }" },
  { "sample_at_first", "not needed: samples are drawn before and after training" },
  { "sample_sampler, noise_scheduler", "write sample = { sampler = ... }", "sampler" },
  { "num_inference_steps, sample_steps, save_infer_steps", "write sample = { steps = ... }" },
  { "guidance_scale, save_guidance_scale, cfg_scale, cfg", "write sample = { guidance = ... }", "guidance" },
  { "negative_prompt, save_sample_negative_prompt", 'write it into the prompt of a sample: "a dog --n blurry"' },
  { "logging_dir, log_with, report_to, log_tracker_name, tensorboard, wandb_run_name",
    "not needed: every step is a line of metrics.jsonl" },
  { "push_to_hub, huggingface_repo_id, hub_model_id", NONE },
}

-- { our value, theirs }
local values = {
  { "f16", "fp16, float16, half, 16" }, { "bf16", "bfloat16" }, { "f32", "fp32, float32, float, no, full" },
  { "int8", "fp8, 8bit, qint8, qfloat8, fp8_e4m3fn, q8_0" },
  { "v", "v_prediction, v-prediction, v_pred, vpred, velocity" },
  { "epsilon", "eps, epsilon_prediction, eps_prediction, noise" },
  { "euler_a", "euler a, k_euler_a, euler_ancestral, eulerancestraldiscretescheduler" },
  { "euler", "k_euler, eulerdiscretescheduler" }, { "lms", "k_lms, lmsdiscretescheduler" },
  { "heun", "k_heun, heundiscretescheduler" }, { "ddim", "ddimscheduler" }, { "ddpm", "ddpmscheduler" },
  { "dpmpp_2m", "dpmsolver++, dpm++ 2m, dpm++_2m, dpmsolvermultistepscheduler" },
  { "dpmpp_2m_sde", "dpm++ 2m sde, dpm++_2m_sde" }, { "unipc", "uni_pc, uni-pc, unipcmultistepscheduler" },
  { "kohya", "safetensors, kohya_lora, a1111, comfy" }, { "checkpoint", "safetensors, ckpt, original, single" },
  { "diffusers", "diffusers_safetensors, diffusers_lora" }, { "none", "no, off, false" },
}

-- Constructors by the names of other programs, for each kind.
local constructors = {
  optimizer = {
    { "adamw8bit, adam8bit, pagedadamw8bit, pagedadamw, 8bit adamw",
      "burin.adamw {}; Burin has no 8-bit optimizer yet" },
    { "adam", "burin.adamw { weight_decay = 0 }" }, { "sgdnesterov, sgd_momentum", "burin.sgd { momentum = 0.9 }" },
    { "lion, lion8bit, prodigy, adafactor, dadaptation, dadaptadam, came, automagic, adamwschedulefree, muon",
      "burin.adamw {} or burin.sgd {}; Burin has no other optimizer yet" },
  },
  schedule = {
    { "constant_with_warmup", "burin.constant { warmup = ... }" }, { "cosine_with_restarts",
      "burin.cosine { cycles = ... }" },
    { "cosine_with_min_lr, cosine_annealing", "burin.cosine { floor = ... }" },
    { "polynomial, inverse_sqrt, rex, piecewise_constant, warmup_stable_decay",
      'burin.schedule("name", function(step, steps) return ... end)' },
  },
  loss = {
    { "l2, mean_squared_error", "burin.mse {}" }, { "min-snr, min_snr_gamma", "burin.min_snr {}" },
    { "l1, mae, huber, smooth_l1", "burin.loss { name = ..., per_sample = function(s) ... end }" },
  },
  method = {
    { "lora, networks.lora, lierla", "burin.lora {}" }, { "locon, lycoris.kohya, c3lier", "burin.locon {}" },
    { "full, dreambooth, fine_tune, finetune, fine-tuning, full_finetune", "burin.full {}" },
    { "loha, lokr, dora, oft, ia3, dylora",
      "burin.lora {} or burin.method { ... } { ... }; Burin has no other method yet" },
  },
}

-- Rows { words, ... } -> word -> list of rows
local function index(rows, column)
  local by_word = {}
  for _, row in ipairs(rows) do
    for word in (row[column] .. ","):gmatch "%s*(.-)%s*," do
      by_word[word] = by_word[word] or {}
      table.insert(by_word[word], row)
    end
  end
  return by_word
end

local field_of, value_of = index(fields, 1), index(values, 2)
local constructor_of = {}
for kind, rows in pairs(constructors) do constructor_of[kind] = index(rows, 1) end

-- What to do about a field that a table does not have; nil when the word is unknown. schema: what the table has.
function synonyms.field(name, schema)
  local row = (field_of[name:lower():gsub("^%-+", ""):gsub("-", "_")] or {})[1]
  if not row then return nil end
  return row[3] and schema[row[3]] and row[3] ~= name and ("write %s = ..."):format(row[3]) or row[2]
end

-- Which of a list a value means.
function synonyms.value(value, list)
  for _, row in ipairs(value_of[value:lower()] or {}) do
    for _, one in ipairs(list) do
      if one == row[1] then return one end
    end
  end
end

-- What to write for a name where something of a kind is wanted; without a kind, for whatever has this name.
function synonyms.constructor(kind, name)
  for each, words in pairs(constructor_of) do
    local rows = (not kind or each == kind) and words[name:lower()]
    if rows then return rows[1][2] end
  end
end

return synonyms
