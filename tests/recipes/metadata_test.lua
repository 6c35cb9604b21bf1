-- SPDX-License-Identifier: MIT
-- What a training says of itself follows from its recipe: changing one setting changes exactly the metadata fields that
-- it should. Plans only, computes nothing: burin run --trust tests/recipes/metadata_test.lua
local burin = require "burin"
local core = require "burin.core"
local loop = require "burin.train.loop"
local metadata = require "burin.train.metadata"
local plans = require "burin.train.plan"

local T = dofile "tests/check.lua"
local check = T.check

local usual = {
  name = "dog", base = burin.model "models/tiny-sd.safetensors", concepts = { { images = "examples/sks-cat" } },
  resolution = 64, batch = 2, steps = 120, seed = 7, output = T.folder(),
}

-- All that the result's metadata say, at the end of a training with these settings instead of the usual ones.
local function written(change)
  local given = { method = burin.lora { rank = 2 }, optimizer = burin.adamw { lr = 1e-3 } }
  for k, v in pairs(usual) do given[k] = v end
  for k, v in pairs(change) do given[k] = v end
  if change.epochs then given.steps = nil end
  local plan = plans.prepare(burin.train(given))
  local training = loop.new(plan)
  training.step = plan:steps()
  local all = plan.method:metadata(plan.model)
  for k, v in pairs(metadata.of(training)) do all[k] = v end
  return all
end

local function concept(fields)
  fields.images = fields.images or "examples/sks-cat"
  return { fields }
end
local prior = { prompt = "a photo of a cat", count = 4 }
local heavy = { prompt = "a photo of a cat", count = 4, weight = 0.5 }

-- { setting, its new value, the fields that follow (field = what it says, or true: anything else than before), before }
local cases = {
  { "name", { name = "cat" }, { ["modelspec.title"] = "cat" } },
  { "seed", { seed = 8 }, { ss_seed = "8" } },
  { "steps", { steps = 240 }, { ss_steps = "240", ss_max_train_steps = "240", ss_epoch = "8", ss_num_epochs = "8" } },
  { "epochs", { epochs = 1 }, { ss_steps = "30", ss_max_train_steps = "30", ss_epoch = "1", ss_num_epochs = "1" } },
  { "batch", { batch = 4 }, { ss_batch_size_per_device = "4", ss_total_batch_size = "4",
    ss_num_batches_per_epoch = "15", ss_epoch = "8", ss_num_epochs = "8" } },
  { "accumulate", { accumulate = 2 }, { ss_gradient_accumulation_steps = "2", ss_total_batch_size = "4", ss_epoch = "8",
    ss_num_epochs = "8" } },
  { "resolution", { resolution = 128 }, { ss_resolution = "(128, 128)", ["modelspec.resolution"] = "128x128",
    ss_bucket_info = true } },
  { "buckets", { buckets = false }, { ss_enable_bucket = "False" } },
  { "lr", { optimizer = burin.adamw { lr = 2e-3 } }, { ss_learning_rate = "0.002", ss_unet_lr = "0.002",
    ss_text_encoder_lr = "0.002" } },
  { "text_encoder_lr", { optimizer = burin.adamw { lr = 1e-3, text_encoder_lr = 5e-5 } },
    { ss_text_encoder_lr = "5e-05" } },
  { "weight_decay", { optimizer = burin.adamw { lr = 1e-3, weight_decay = 0.1 } },
    { ss_optimizer = "adamw(beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.1)" } },
  { "optimizer", { optimizer = burin.sgd { lr = 1e-3 } }, { ss_optimizer = "sgd(momentum=0, weight_decay=0)" } },
  { "text_encoder", { method = burin.lora { rank = 2, text_encoder = false } }, { ss_text_encoder_lr = "None" } },
  { "unet", { method = burin.lora { rank = 2, unet = false } }, { ss_unet_lr = "None" } },
  { "rank", { method = burin.lora { rank = 4 } }, { ss_network_dim = "4", ss_network_alpha = "4" } },
  { "alpha", { method = burin.lora { rank = 2, alpha = 1 } }, { ss_network_alpha = "1" } },
  { "conv_rank", { method = burin.lora { rank = 2, conv_rank = 3 } }, { ss_network_args = true } },
  { "schedule", { schedule = burin.linear {} }, { ss_lr_scheduler = "linear" } },
  { "warmup", { schedule = burin.constant { warmup = 10 } }, { ss_lr_warmup_steps = "10" } },
  { "loss", { loss = burin.min_snr { gamma = 5 } }, { ss_min_snr_gamma = "5" } },
  { "loss of one's own", { loss = burin.loss { name = "mine",
    per_sample = function(s) return burin.diffusion.mse(s.pred, s.target) end } }, { ss_loss_type = "mine" } },
  { "max_grad_norm", { max_grad_norm = 0.5 }, { ss_max_grad_norm = "0.5" } },
  { "precision", { precision = "f16" }, { ss_mixed_precision = "fp16" } },
  { "checkpoint", { checkpoint = true }, { ss_gradient_checkpointing = "True" } },
  { "clip_skip", { clip_skip = 2 }, { ss_clip_skip = "2", ["modelspec.encoder_layer"] = "2" } },
  { "max_tokens", { max_tokens = 225 }, { ss_max_token_length = "225" } },
  { "prediction", { prediction = "epsilon" }, { ["modelspec.prediction_type"] = "epsilon" } },
  { "prompt", { concepts = concept { prompt = "sks" } }, { ["modelspec.trigger_phrase"] = "sks" } },
  { "repeats", { concepts = concept { repeats = 20 } }, { ss_dataset_dirs = true, ss_num_train_images = "120",
    ss_bucket_info = true, ss_num_batches_per_epoch = "60", ss_epoch = "2", ss_num_epochs = "2" } },
  { "class images", { concepts = concept { prior = prior } }, { ss_reg_dataset_dirs = true, ss_num_reg_images = "60",
    ss_bucket_info = true, ss_num_batches_per_epoch = "60", ss_epoch = "2", ss_num_epochs = "2" } },
  { "prior weight", { concepts = concept { prior = heavy } }, { ss_prior_loss_weight = "0.5" },
    { concepts = concept { prior = prior } } },
}

for _, case in ipairs(cases) do
  local name, change, wanted = case[1], case[2], case[3]
  local before, after = written(case[4] or {}), written(change)
  local keys = {}
  for key in pairs(before) do keys[key] = true end
  for key in pairs(after) do keys[key] = true end
  for key in pairs(keys) do
    local changed, want = before[key] ~= after[key], wanted[key]
    check(changed == (want ~= nil), name, "changes", key, before[key], after[key])
    check(want == nil or want == true or after[key] == want, name, key, after[key])
  end
  for key in pairs(wanted) do check(keys[key], name, "there is no", key) end
  collectgarbage()
end

-- How far the pictures are from their buckets: two of 64 x 64 in the bucket of 64 x 64, one of 96 x 64 in that of 80 x
-- 48.
local info = core.json_decode(written {}.ss_bucket_info, "ss_bucket_info")
check(info.mean_img_ar_error == 0, "square pictures in square buckets", info.mean_img_ar_error)
local wide = T.folder()
core.image_save(wide .. "/a.png", core.tensor({ 64, 64, 3 }, "u8", 100))
core.image_save(wide .. "/b.png", core.tensor({ 64, 100, 3 }, "u8", 100))
info = core.json_decode(written { concepts = concept { images = wide } }.ss_bucket_info, "ss_bucket_info")
local expected
for _, b in pairs(info.buckets) do
  local w, h = b.resolution[1], b.resolution[2]
  if w ~= h then expected = math.abs(w / h - 100 / 64) / 2 end
end
check(expected and math.abs(info.mean_img_ar_error - expected) < 1e-9, "the bucket error", info.mean_img_ar_error,
  expected)
os.execute(("rm -r '%s' '%s'"):format(wide, usual.output))
T.finish()
