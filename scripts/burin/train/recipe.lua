-- SPDX-License-Identifier: MIT
-- recipe.lua - what burin.train{ ... } describes, checked; and from a file's name to it.
local budget = require "burin.train.budget"
local core = require "burin.core"
local data = require "burin.train.data"
local errors = require "burin.base.errors"
local handles = require "burin.models.handle"
local kinds = require "burin.base.kinds"
local lengths = require "burin.text.lengths"
local losses = require "burin.train.losses"
local optimizers = require "burin.graph.optimizers"
local options = require "burin.base.options"
local paths = require "burin.base.paths"
local place = require "burin.base.place"
local sampler = require "burin.sample.sampler"
local samplers = require "burin.sample.samplers"
local schedules = require "burin.graph.schedules"
local recipe = {}

local schema = {
  name = { "string", required = true, help = "name of the run and of its files" },
  base = { "model", required = true, help = "burin.model 'file.safetensors'" },
  vae = { "string", help = "file or folder of a VAE to use instead of the base's, or because it has none" },
  concepts = { "list", required = true, of = "table", example = '{ { images = "folder" } }',
    help = "what to learn: { { images = 'folder', prompt = '...' } }" },
  method = { "method", required = true, help = "burin.lora{...} or burin.full{...}" },
  from = { "string", help = "file that the training begins from: a LoRA, or with burin.full a checkpoint" },
  resolution = { "integer", default = 512, min = 8, max = 4096, help = "pixels; the area of a picture is its square" },
  buckets = { "boolean", default = true, help = "group images by aspect ratio instead of cropping to squares" },
  batch = { "integer", default = 1, min = 1, max = 1024, help = "pictures per batch" },
  accumulate = { "integer", default = 1, min = 1, help = "batches per update" },
  epochs = { "number", min = 0, help = "times every image is seen (times its repeats)" },
  steps = { "integer", min = 1, help = "optimizer steps; instead of epochs" },
  seed = { "integer", default = 0, help = "of every random number: order, noise, first values" },
  optimizer = { "optimizer", help = "burin.adamw{...} or burin.sgd{...}; default burin.adamw{}" },
  schedule = { "schedule", help = "burin.constant{...}, linear, cosine ...; default burin.constant{}" },
  loss = { "loss", help = "burin.mse(), burin.min_snr{...} or burin.loss{...}; default burin.mse()" },
  max_grad_norm = { "number", default = 1, min = 0, help = "0 = no clipping" },
  on_nonfinite = { "string", default = "stop", one_of = { "stop", "back" },
    help = "after max_nonfinite updates in a row with a NaN or an infinity: stop, or go back to the newest state with "
      .. "half the learning rate" },
  max_nonfinite = { "integer", default = 3, min = 1, help = "such updates in a row, each skipped, that are too many" },
  precision = { "string", one_of = { "f32", "f16", "bf16" },
    help = "storage of activations and frozen weights; f32, or what the budget asks for" },
  base_precision = { "string", one_of = { "f32", "f16", "bf16", "int8" },
    help = "storage of frozen weights, where it is to differ; int8: the U-Net's, with a scale per output" },
  clip_skip = { "integer", min = 1, max = 12, help = "use the text encoder's n-th last layer (SD 1.x, 2.x)" },
  max_tokens = { "integer", one_of = lengths.limits,
    help = "tokens that captions are padded or cut to; default: the smallest that holds them all" },
  weighted_captions = { "boolean", default = false,
    help = "read (word:1.2), (word) and [word] in captions as weights" },
  checkpoint = { "boolean",
    help = "recompute blocks in the backward pass to save memory; false, or what the budget asks for" },
  budget = { "string",
    help = "device memory to stay within, as '8 GiB': chooses precision, checkpoint and base_precision "
      .. "where they are not set" },
  prediction = { "string", one_of = { "epsilon", "v" }, help = "what the model predicts, where its files do not say" },
  sample = { "table", example = '{ prompts = { "a photo of sks dog" } }',
    help = "{ every =, prompts = { ... }, steps =, guidance =, sampler = }" },
  save = { "table", example = "{ every = '1 epoch' }",
    help = "{ every =, format =, dtype = 'f32', metadata =, sidecar = }" },
  state = { "table", example = "{ every = '250 steps' }",
    help = "{ every =, keep = }: training state for resume" },
  output = { "string", default = "runs", help = "folder of runs" },
}
local sample_schema = {
  every = { "string|integer", help = "'1 epoch', '100 steps' or a number of steps; absent: before and after training" },
  prompts = { "list", required = true, of = "string", example = '{ "a photo of sks dog" }',
    help = "a list; (word:1.2) weights and kohya's --n --s --l --d --ss are understood" },
  steps = { "integer", default = 20, min = 1, help = "denoising steps" },
  guidance = { "number", default = 7.5, help = "classifier-free guidance scale" },
  seed = { "integer", default = 0, help = "of the first picture; the next ones count up" },
  batch = { "integer", default = 1, min = 1, help = "pictures at a time" },
  sampler = { "string", default = "ddim", one_of = samplers.names, help = "how noise becomes a picture" },
  width = { "integer", help = "pixels; default resolution" },
  height = { "integer", help = "pixels; default resolution" },
}
local save_schema = {
  every = { "string|integer", help = "as in sample; the result is saved at the end in any case" },
  format = { "string", one_of = { "kohya", "peft", "checkpoint", "diffusers" },
    help = "adapters: kohya (default), diffusers, peft; full training: checkpoint (default), diffusers" },
  dtype = { "string", default = "f32", one_of = { "f32", "f16", "bf16" }, help = "element type in the file" },
  metadata = { "string", default = "full", one_of = { "full", "minimal", "none" },
    help = "what a LoRA file says: all, what programs need, nothing" },
  sidecar = { "boolean", default = false, help = "also write A1111's NAME.json beside a LoRA" },
  date = { "boolean", default = false, help = "put dates into the metadata; two runs then differ in them" },
}
local state_schema = {
  every = { "string|integer", default = "250 steps", help = "as in sample; also at the end and on Ctrl-C" },
  keep = { "integer", default = 2, min = 1, help = "newest states that stay on disk" },
}

-- What lies in a run's folder beside its results, which have the run's name.
local own_names = { state = true, samples = true, recipe = true, metrics = true, run = true, events = true }
local own_patterns = { "^recipe%.", "^metrics%.", "^run%.", "^events%.", "^prior%-%d", "%.tmp%-%d" }

-- Calls fail(text, ...) unless a run may have this name.
function recipe.check_name(name, fail)
  if not name:match "^[%w._-]+$" then
    fail("name '%s': letters, digits, '.', '_' and '-' only", name)
  end
  if not name:match "^%w" then fail("name '%s': it begins with a letter or a digit", name) end
  local lower = name:lower()
  local own = own_names[lower]
  for _, pattern in ipairs(own_patterns) do own = own or lower:find(pattern) end
  if own then fail("name '%s': a run's folder holds something of this name already; choose another", name) end
end

-- Whether anything would change.
local function check_learns(o, here)
  local optimizer, m = o.optimizer, kinds.value(o.method).options
  if m.unet == false and not m.text_encoder then
    options.fail_at(here:at "method", "nothing is trained: %s has neither unet nor text_encoder", o.method.name)
  end
  local unet, text = m.unet ~= false and optimizer.lr > 0, m.text_encoder and optimizer.text_encoder_lr > 0
  if not unet and not text then
    options.fail_at(here:at "optimizer", "nothing is trained: the learning rate of all that is to learn is 0")
  end
end

-- Checks a recipe's table; returns a handle of it. Touches neither files nor the device.
function recipe.check(given)
  local here = place.here "train"
  local o = options.check("burin.train", given, schema, here)
  recipe.check_name(o.name, function(...) options.fail_at(here:at "name", ...) end)
  if o.epochs and o.steps then options.fail_at(here:at "steps", "give either epochs or steps, not both") end
  if o.epochs == 0 then options.fail_at(here:at "epochs", "epochs = 0 trains nothing") end
  if not o.epochs and not o.steps then o.epochs = 10 end
  if o.vae then o.base = handles.with_vae(o.base, o.vae) end
  if o.budget then options.at(here:at "budget", budget.parse, o.budget) end
  o.concepts = data.concepts(o.concepts, here:at "concepts")
  o.sample = o.sample and options.check("sample", o.sample, sample_schema, here:at "sample")
  o.save = options.check("save", o.save or {}, save_schema, here:at "save")
  o.state = options.check("state", o.state or {}, state_schema, here:at "state")
  for _, part in ipairs { "sample", "save", "state" } do
    options.at(here:at(part, "every"), options.every, o[part] and o[part].every, 1)
  end
  for i, line in ipairs(o.sample and o.sample.prompts or {}) do
    options.at(here:at("sample", "prompts", i), sampler.parse_prompt, line)
  end
  o.optimizer = o.optimizer or optimizers.adamw {}
  o.schedule = o.schedule or schedules.constant {}
  o.loss = o.loss or losses.mse {}
  check_learns(o, here)
  local formats = o.method.whole and "checkpoint or diffusers" or "kohya, diffusers or peft"
  if o.save.format and not formats:find(o.save.format, 1, true) then
    options.fail_at(here:at("save", "format"), "save: %s is written as %s, not as '%s'", o.method.name, formats,
      o.save.format)
  end
  return kinds.new("recipe", o, here)
end

-- Where a recipe's run lies: where it was found, when it goes on.
function recipe.folder(o) return o.folder or o.output .. "/" .. o.name end

-- Notes what a trusted recipe has required beside it; of others the sandbox does. before: what was loaded before it
-- ran.
local function note_required(before)
  local noted = core.required_files()
  for module in pairs(package.loaded) do
    local found = not before[module] and type(module) == "string" and package.searchpath(module, package.path)
    if found and module:match "^[%w_.-]+$" and not module:find("..", 1,
      true) then noted[module] = core.read_file(found) end
  end
end

local function run_trusted(path, modules)
  local before = {}
  for module in pairs(package.loaded) do before[module] = true end
  local result = core.run_recipe(path, true, modules)
  note_required(before)
  return result
end

-- Runs the file in the sandbox. modules: where the files are that it requires, if not beside it. Returns the recipe,
-- its text.
function recipe.load(path, trust, modules)
  if not core.exists(path) then
    errors.raise("input", path .. ": there is no such recipe")
  end
  local text = errors.guard("input", core.read_file, path)
  local run = trust and run_trusted or function() return core.run_recipe(path, false, modules) end
  local result = errors.guard("recipe", errors.located, nil, run, path, modules)
  if kinds.of(result) ~= "recipe" then
    errors.raise("recipe", "%s: a recipe ends with: return burin.train { ... }; this one returns %s", path,
      kinds.describe(result))
  end
  local o = kinds.value(result)
  if not trust then paths.check_output(o.output) end
  return o, text
end

return recipe
