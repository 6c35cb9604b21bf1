-- SPDX-License-Identifier: MIT
-- What a recipe gets wrong: values of the wrong kind, functions that fail or give the wrong thing, whenever they run,
-- and words of other programs. Each mistake ends with exit code 78, names its line of the recipe, and says what to
-- write.
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()

-- A file of these lines, after `local burin = require "burin"`, which is line 1.
local function file(text) return T.write(T.scratch .. "/wrong.lua", 'local burin = require "burin"\n' .. text) end

-- Line 5 of an otherwise good recipe is this text, instead of the field that it sets where that has a value elsewhere.
local function recipe(text)
  local others, first = { name = "'x'", base = "burin.model 'models/tiny-sd.safetensors'", resolution = "64",
    seed = "7",
    concepts = "{ { images = 'examples/sks-cat' } }", method = "burin.lora { rank = 2, text_encoder = false }",
      steps = "2" },
    text:match "^[%w_]+"
  local rest = ""
  for name, value in pairs(others) do
    local other = name ~= first and not (name == "steps" and first == "epochs")
    rest = rest .. (other and ("  %s = %s,\n"):format(name, value) or "")
  end
  return file(("\nreturn burin.train {\n\n  %s,\n%s}\n"):format(text, rest))
end

-- burin COMMAND FILE fails: exit code 78, "wrong.lua:LINE: ", all of these texts, and no line of the library.
local function fails(command, path, line, ...)
  local code, out = T.run(("%s %s --quiet"):format(command, T.quote(path)))
  T.check(code == 78, "%s: exit code %d, not 78: %s", T.read(path), code, out)
  T.check(out:find(("wrong.lua:%d: "):format(line), 1, true), "line %d is not named: %s", line, out)
  for _, says in ipairs { ... } do
    T.check(out:find(says, 1, true), "'%s' is not in: %s", says, out)
  end
  T.check(not out:find "%f[%w/]burin/[%w_/]+%.lua:", "a line of the library: %s", out)
end
local PLAN, TRAIN = "plan --device null", ("train --force --output %s"):format(T.quote(T.folder "runs"))
local function plan(text, ...) return fails(PLAN, recipe(text), 5, ...) end

-- ---- a value of another kind ----------------------------------------------------------------------------------------

for text, says in pairs {
  ["loss = burin.adamw {}"] = "burin.train: 'loss' must be a loss such as burin.mse {}, not an optimizer (made at ",
  ["schedule = burin.mse()"] = "'schedule' must be a schedule such as burin.cosine {}, not a loss (made at ",
  ["method = { rank = 8 }"] = "'method' must be a method such as burin.lora {}, not a table",
  ["optimizer = burin.lora {}"] = "'optimizer' must be an optimizer such as burin.adamw {}, not a method (made at ",
  ["base = burin.mse {}"] = "'base' must be a model such as burin.model \"file.safetensors\", not a loss (made at ",
  ["base = 'some/file.safetensors'"] = 'not a string: write burin.model "some/file.safetensors"',
  ["concepts = 'folder'"] = "'concepts' must be a list such as { { images = \"folder\" } }, not a string",
  ["concepts = { images = 'folder' }"] = "'concepts' must be a list such as { { images = \"folder\" } }, not a table",
  ["concepts = { { images = 'x' }, prompt = 'y' }"] =
    "'concepts' must be a list such as { { images = \"folder\" } }, not a table",
  ["concepts = { 'folder' }"] = "'concepts[1]' must be a table, not a string",
  ["concepts = {}"] = "concepts: at least one",
  ["sample = { 'a prompt' }"] = "sample takes named fields",
  ["sample = { prompts = 'a prompt' }"] = "'prompts' must be a list such as { \"a photo of sks dog\" }, not a string",
  ["sample = { prompts = { 7 } }"] = "'prompts[1]' must be a string, not an integer",
  ["sample = burin.mse {}"] = "'sample' must be a table such as { prompts = { \"a photo of sks dog\" } }, not a loss",
  ["save = '1 epoch'"] = "'save' must be a table such as { every = '1 epoch' }, not a string",
  ["optimizer = burin.adamw"] = "not a function that makes an optimizer: write burin.adamw {}",
  ["method = burin.lora"] = "not a function that makes a method: write burin.lora {}",
  ["loss = burin.cosine"] = "'loss' must be a loss such as burin.mse {}, not a function that makes a schedule",
  ["schedule = 'cosine'"] = "not a string: write burin.cosine {}",
  ["schedule = 'cosine_with_restarts'"] = "write burin.cosine { cycles = ... }",
  ["optimizer = 'AdamW8bit'"] = "write burin.adamw {}; Burin has no 8-bit optimizer yet",
  ["optimizer = 'prodigy'"] = "Burin has no other optimizer yet",
  ["loss = 'huber'"] = "write burin.loss { name = ..., per_sample",
  ["method = 'networks.lora'"] = "write burin.lora {}", ["method = 'LoRA'"] = "write burin.lora {}",
  ["method = 'full'"] = "write burin.full {}", ["method = 'dora'"] = "Burin has no other method yet",
  ["batch = function() return 2 end"] = "'batch' must be an integer, not a function",
  ["batch = '2'"] = "'batch' must be an integer, not a string: without quotes, 2",
  ["epochs = 0/0"] = "'epochs' must be a finite number, not NaN",
  ["max_grad_norm = math.huge"] = "'max_grad_norm' must be a finite number, not inf",
  ["buckets = 'yes'"] = "'buckets' must be a boolean, not a string",
  ["optimizer = burin.adamw { lr = '1e-4' }"] = "'lr' must be a number, not a string: without quotes, 1e-4",
  ["optimizer = burin.adamw(burin.mse {})"] = "adamw takes a table { ... }, not a loss (made at ",
  ["optimizer = burin.adamw(1e-4)"] = "adamw takes a table { ... }, not a number",
  ["method = burin.lora { rank = burin.cosine {} }"] = "'rank' must be an integer, not a schedule",
  ["method = burin.lora { 8 }"] = "lora takes named fields",
  ["loss = burin.mse { gamma = 5 }"] = "mse has no option 'gamma'",
  ["loss = burin.loss {}"] = "loss needs 'name'",
  ["loss = burin.loss { name = 'x', per_sample = 'l1' }"] = "'per_sample' must be a function, not a string",
  ["schedule = burin.schedule('x')"] = "burin.schedule takes a name and a function",
  ["schedule = burin.schedule(function() return 1 end)"] = "burin.schedule takes a name and a function",
  ["method = burin.method { name = 'x' } {}"] = "burin.method needs 'forward'",
  ["method = burin.method { name = 'x', params = print, forward = print }"] = "write burin.method { ... } {}",
  ["base = burin.model(5)"] = "burin.model takes the path of a checkpoint, not an integer",
  ["base = burin.model { 5 }"] = "burin.model: 'file' must be a string, not an integer",
  ["save = { format = 'safetensors', every = 'often' }"] = "did you mean 'kohya'",
  ["state = { every = 'often' }"] = "'often' is not a time", ["save = { every = 0 }"] = "'0' is not a time",
  ["save = { every = '0 epochs' }"] = "'0 epochs' is not a time", ["state = { every = -3 }"] = "'-3' is not a time",
  ["budget = 'much'"] = "'much' is not an amount of memory",
  ["sample = { prompts = { 'a cat --q 3' } }"] = "unknown option --q",
  ["optimizer = burin.adamw8bit {}"] = "burin has no 'adamw8bit': write burin.adamw {}",
} do plan(text, says) end

-- The line of the field, however the recipe is laid out.
fails(PLAN, file [==[
local text = "steps = 1, } -- not this" --[=[ nor
  steps = 3 }]=]
return burin.train { name = "x", base = burin.model "models/tiny-sd.safetensors",
  method = burin.lora {},
  loss = burin.loss { name = "l1", weight = function(snr) local steps, n = 3, snr; return n end },
  sample = { steps = 4, prompts = { "a, \"b", [[c
d }]] .. ']]}', "e" .. text } },
  -- steps = 5,
  concepts = { { images = "x", prior = { prompt = "a" } }, { images = "y",
    prior = {
      prompt = "b", ["steps"] = 1 } } },
  steps = "four",
}]==], 13, "'steps' must be an integer, not a string")

-- ---- what a recipe's functions give, and how they fail --------------------------------------------------------------

-- body: of a function that begins in line 5, so its first line is line 6.
local function fn(head, arguments, body, tail)
  return ("%sfunction(%s)\n    %s\n  end%s"):format(head, arguments, body, tail)
end
local function per_sample(body) return recipe(fn("loss = burin.loss { name = 'own', per_sample = ", "s", body,
  " }")) end
local function weight(body) return recipe(fn("loss = burin.loss { name = 'own', weight = ", "snr, prediction", body,
  " }")) end
local function factor(body) return recipe(fn("schedule = burin.schedule('own', ", "step, steps", body, ")")) end
local function forward(body)
  return recipe("method = burin.method { name = 'own', options = { text_encoder = false },"
    .. "params = function(o, layer) return { s = layer:param('s', { layer.outputs }, 'zeros') } end, "
    .. fn("forward = ", "o, layer, p, x, y", body, " } {}"))
end

-- Wrong results name the line of the function.
fails(PLAN, per_sample "return s.pred", 5,
  "loss 'own': per_sample must give one value per sample, a node (1), not a node (1, 8, 8, 16)")
fails(PLAN, per_sample "local x = s.pred", 5, "per_sample must give one value per sample, a node (1), not nothing")
fails(PLAN, per_sample "return 0.5", 5, "per_sample must give one value per sample, a node (1), not a number")
fails(PLAN, weight "return 0 / 0", 5, "loss 'own': weight must give a finite number from 0 on, not ")
fails(PLAN, weight "return -1", 5, "weight must give a finite number from 0 on, not -1")
fails(PLAN, weight "return snr > 1", 5, "weight must give a finite number from 0 on, not a boolean")
fails(TRAIN, factor "return step / 0", 5, "schedule 'own': its function must give a finite number, not NaN (step 0)")
fails(PLAN, forward "return x", 5, "method 'own': forward must give a node of y's shape")
fails(PLAN, forward "return p.s", 5, "method 'own': forward must give a node of y's shape")
fails(PLAN, forward "local z = y * p.s", 5, "forward must give a node of y's shape", "not nothing")

-- A node of the trace before, when a budget asks for a second one.
fails(PLAN, file [[
local first
return burin.train { name = "x", base = burin.model "models/tiny-sd.safetensors", budget = "10 MiB",
  concepts = { { images = "examples/sks-cat" } }, method = burin.lora {}, resolution = 64,
  loss = burin.loss { name = "own", per_sample = function(s)
    first = first or s.pred:sum_to { 1, 1, 1, 1 }:reshape { 1 }
    return first
  end } }]], 5, "not a node of an earlier trace")

-- Failures name the line that failed, be it of Lua, of an operation or by hand, while it is planned or trained.
fails(PLAN, per_sample "return s.predicted - s.target", 6, "bad argument #1 to 'sub'")
fails(PLAN, per_sample "return s.pred:reshape { 3 }", 6, "reshape")
fails(PLAN, per_sample "local e = s.pred - s.target\n    return e:sum_to { 5 }", 7, "sum_to")
fails(PLAN, per_sample "return s.pred:frobnicate()", 6, "frobnicate")
fails(PLAN, weight "return math.sqrt('x')", 6, "bad argument #1 to 'sqrt'")
fails(PLAN, weight "return snr .. {}", 6, "attempt to concatenate a table value")
fails(PLAN, weight "error('by hand', 0)", 6, "wrong.lua:6: by hand")
fails(PLAN, weight "error { exit = 0 }", 6, "an error that is a table, not a text")
fails(PLAN, weight "local function deep() return 1 + deep() end\n    return deep()", 6, "stack overflow")
fails(PLAN, weight "return burin.adamw { learning_rate = 1 }", 6, "adamw has no option 'learning_rate'")
fails(TRAIN, factor "return step.x", 6, "attempt to index a number value (local 'step')")
fails(TRAIN, factor "if step == 1 then error('enough') end\n    return 1", 6, "wrong.lua:6: enough")
fails(PLAN, forward "return y + p.scale * x", 6, "bad argument #1 to 'mul'")
fails(PLAN, forward "return y + layer:apply(x, x)", 6, "layer:apply takes what layer:param returned")
fails(PLAN, forward "return y + x", 6, "add")

-- Late errors about a field name its line, long after the recipe has run.
fails(PLAN, recipe "sample = {\n    prompts = { 'a cat',\n      'a dog --w 128 --h 64' } }", 7,
  "all samples of a run have one size")
fails(PLAN, recipe "budget = '1 MiB'", 5, "budget: ")
plan("method = burin.lora { unet = false, text_encoder = false }", "nothing is trained")
fails(PLAN, forward "return y", 5, "nothing is trained")

-- A program of one's own.
local function program(text) return file("local w = burin.nn.component { name = 'w', role = 'param' }\n" .. text) end
local RUN = "run"
local function compile(o, ...)
  local all = { loss = "function(x) return x.x end", inputs = "{ x = { { 2 } } }", params = "function() return {} end",
    optimizer = "burin.adamw {}" }
  for k, v in pairs(o) do all[k] = v end
  local text = "burin.compile {\n"
  for _, k in ipairs { "loss", "inputs", "params", "optimizer", "schedule" } do
    text = text .. (all[k] and ("  %s = %s,\n"):format(k, all[k]) or "\n")
  end
  fails(RUN, program(text .. "}\n"), ...)
end
compile({ optimizer = "burin.mse {}" }, 7,
  "burin.compile: 'optimizer' must be an optimizer such as burin.adamw {}, not a loss")
compile({ schedule = "burin.cosine {}" }, 3, "burin.compile needs 'steps' for its schedule")
compile({ loss = "3" }, 4, "'loss' must be a function, not an integer")
compile({}, 4, "burin.compile: loss must give a scalar, a node (), not a node (2)")
local scalar = "function(x) return x.x:sum_to { 1 }:reshape {} end"
compile({ loss = scalar }, 6, "params must give a list { { name =, var =, group = } ... }, not an empty one")
compile({ loss = scalar, params = "function() return { { name = 'w', var = 3, group = 0 } } end" }, 6,
  "entry 1 of params must be")
compile({ loss = "function(x) return x.y:sum_to { 1 } end" }, 4, "attempt to index a nil value (field 'y')")
fails(RUN, program "burin.session('s', { x = { { 2 } } }, function(x)\n  return x.x\nend)", 3,
  "must give { name = node ... }, not a node (2)")
fails(RUN, program "burin.dataset {\n  resolution = '64',\n  batch_size = 2 }", 5,
  "has no option 'batch_size': write batch = ...")
fails(RUN, program "local t = nil\nprint(t + 1)", 4, "attempt to perform arithmetic on a nil value (local 't')")

-- A bug of the library is none of the recipe.
local broken = file("require('burin.train.plan').prepare = nil\n"
  .. "return burin.train { name = 'x', base = burin.model 'x',\n"
  .. "  concepts = { { images = 'x' } }, method = burin.lora {} }\n")
local code, out = T.run("plan --device null --trust " .. T.quote(broken))
T.check(code == 1, "a library that is broken: exit code %d, not 1: %s", code, out)

-- A handle is what it was made as.
for text, says in pairs { ["o.lr = 1"] = "an optimizer cannot be changed",
  ["o.options.lr = 1"] = "this table cannot be changed",
  ["assert(not pcall(rawset, o, 'lr', 1))\nassert(getmetatable(o) == false)\nerror(burin.train { loss = o })"] = "" } do
  fails(PLAN, file("local o = burin.adamw { lr = 3 }\nassert(o.lr == 3 and o.name == 'adamw')\n" .. text),
    text:find "rawset" and 6 or 4, says)
end

-- ---- words of other programs ----------------------------------------------------------------------------------------

local none = "Burin has no counterpart yet"
for word, says in pairs {
  network_dim = "write method = burin.lora { rank = ... }", network_alpha = "write method = burin.lora { alpha = ... }",
  conv_dim = "write method = burin.lora { conv_rank = ... }", network_module = "write method = burin.lora {}",
  network_train_unet_only = "write method = burin.lora { text_encoder = false }", network_dropout = none,
  pretrained_model_name_or_path = 'write base = burin.model "file.safetensors"', vae_path = "write vae =",
  v2 = "not needed: the file itself says", v_parameterization = "write prediction = 'v'", no_half_vae = "not needed",
  train_data_dir = 'write concepts = { { images = "folder" } }',
    instance_data_dir = 'write concepts = { { images = "folder" } }',
  image_dir = 'write concepts = { { images = "folder" } }', instance_prompt = 'prompt = "a photo of sks dog"',
  class_tokens = 'prompt = "a photo of sks dog"', reg_data_dir = "prior = { images =",
    class_prompt = "prior = { prompt =",
  num_class_images = "prior = { count = ... }", prior_loss_weight = "prior = { weight = ... }",
  with_prior_preservation = "prior = { prompt =", num_repeats = "repeats = ...", caption_extension = "not needed",
  shuffle_caption = none, keep_tokens = none, flip_aug = none, masked_loss = none, noise_offset = none,
  enable_bucket = "write buckets = true", min_bucket_reso = "not settable", train_batch_size = "write batch = ...",
  gradient_accumulation_steps = "write accumulate = ...", max_train_epochs = "write epochs = ...",
  max_train_steps = "write steps = ...", learning_rate = "write optimizer = burin.adamw { lr = ... }",
  unet_lr = "write optimizer = burin.adamw { lr = ... }", text_encoder_lr = "burin.adamw { text_encoder_lr = ... }",
  optimizer_type = "write optimizer = burin.adamw {}", optimizer_args = "each becomes a field of the optimizer",
  use_8bit_adam = "Burin has no 8-bit optimizer yet", lr_scheduler = "write schedule = burin.constant {}",
  lr_warmup_steps = "write schedule = burin.constant { warmup = ... }",
    lr_scheduler_num_cycles = "burin.cosine { cycles = ... }",
  min_snr_gamma = "write loss = burin.min_snr { gamma = ... }", loss_type = "write loss = burin.mse {}",
    huber_c = "burin.loss {",
  mixed_precision = "write precision = 'f32', 'f16' or 'bf16'", fp8_base = "write base_precision = 'int8'",
  gradient_checkpointing = "write checkpoint = true", xformers = "not needed",
    cache_latents = "not needed: latents are always cached",
  lowram = "write budget = '8 GiB'", max_data_loader_n_workers = "not needed", output_name = "write name = ...",
  output_dir = 'write output = "folder"', save_every_n_epochs = "write save = { every = '1 epoch' }",
  save_model_as = "write save = { format = ... }", save_precision = "write save = { dtype = ... }",
  no_metadata = "write save = { metadata = 'none' }", resume_from_checkpoint = "run: burin resume",
  sample_prompts = "write sample = { prompts =", sample_every_n_steps = "write sample = { every =",
  negative_prompt = "--n", guidance_scale = "write sample = { guidance = ... }", log_with = "metrics.jsonl",
  concepts_list = "write a list, concepts =", ema_decay = none, validation_prompt = "write sample = { prompts =",
  ["['--network-dim']"] = "write method = burin.lora { rank = ... }", Train_Batch_Size = "write batch = ...",
} do plan(word .. " = 4", says, "burin.train has no option '" .. word:gsub("[%[%]']", "")) end

-- In its own table a word is answered with the field alone; values have words too.
for text, says in pairs {
  ["method = burin.lora { network_dim = 4 }"] = "lora has no option 'network_dim': write rank = ...",
  ["optimizer = burin.sgd { learning_rate = 1 }"] = "sgd has no option 'learning_rate': write lr = ...",
  ["concepts = { { image_dir = 'x' } }"] = "concept 1 has no option 'image_dir': write images = ...",
  ["concepts = { { images = 'x', prior = { num_class_images = 4 } } }"] =
    "prior of concept 1 has no option 'num_class_images': write count = ...",
  ["sample = { sample_prompts = {} }"] = "sample has no option 'sample_prompts': write prompts = ...",
  ["precision = 'fp16'"] = "did you mean 'f16'", ["precision = 'no'"] = "did you mean 'f32'",
  ["precision = 'bfloat16'"] = "did you mean 'bf16'", ["base_precision = 'fp8'"] = "did you mean 'int8'",
  ["prediction = 'v_prediction'"] = "did you mean 'v'", ["prediction = 'eps'"] = "did you mean 'epsilon'",
  ["sample = { prompts = {}, sampler = 'Euler a' }"] = "did you mean 'euler_a'",
  ["sample = { prompts = {}, sampler = 'dpmsolver++' }"] = "did you mean 'dpmpp_2m'",
  ["save = { format = 'ckpt' }"] = "did you mean 'checkpoint'", ["save = { dtype = 'float' }"] = "did you mean 'f32'",
} do plan(text, says) end
T.finish()
