-- SPDX-License-Identifier: MIT
local options = require "burin.base.options"
local adapters = require "burin.adapters.file"
local arguments = require "burin.cli.arguments"
local core = require "burin.core"
local embeddings = require "burin.text.embeddings"
local errors = require "burin.base.errors"
local infotext = require "burin.sample.infotext"
local lengths = require "burin.text.lengths"
local progress = require "burin.base.progress"
local reports = require "burin.models.io.report"
local sample = require "burin.sample.sampler"
local samplers = require "burin.sample.samplers"

local function wrong(text, ...) errors.raise("usage", text:format(...)) end

local function read_loras(list)
  local loras = {}
  for i, text in ipairs(list) do
    loras[i] = arguments.lora(text)
    if not core.exists(loras[i].path) then errors.raise("input", loras[i].path .. ": there is no such LoRA file") end
  end
  return loras
end

local whole_numbers = { steps = 1, seed = math.mininteger, count = 1, width = 8, height = 8, batch = 1, clip_skip = 1,
  tokens = 75, vae_tile = 0 }

-- Whole numbers become integers; what is out of range is an error.
local function check(args)
  for name, least in pairs(whole_numbers) do
    local value = args[name]
    args[name] = value and math.tointeger(value)
    if value and not (args[name] and args[name] >= least) then
      wrong("--%s is a whole number from %d on, not %s", name:gsub("_", "-"), least, value)
    end
  end
  options.one_of("--sampler", args.sampler, samplers.names)
  options.one_of("--sigmas", args.sigmas, samplers.sigmas)
  options.one_of("--precision", args.precision, { "f32", "f16", "bf16" })
  if args.prediction then options.one_of("--prediction", args.prediction, { "epsilon", "v" }) end
  if args.spacing then options.one_of("--spacing", args.spacing, samplers.spacings) end
  if args.tokens and (args.tokens % 75 ~= 0 or args.tokens > 225) then
    wrong("--tokens is 75, 150 or 225, not %d", args.tokens)
  end
  if args.steps > 1000 then wrong("--steps is at most 1000, not %d", args.steps) end
  for _, name in ipairs { "strength", "rescale" } do
    if args[name] and not (args[name] >= 0 and args[name] <= 1) then wrong("--%s is between 0 and 1, not %g", name,
      args[name]) end
  end
  if args.strength and not args.init then wrong("--strength needs --init: a picture to begin with") end
end

-- The prompts of a file, without what marks it as UTF-8: { { text =, from = "file:3: " } ... } is added to list.
local function read_prompts(path, list)
  local text, number = errors.guard("input", core.read_file, path, nil, true):gsub("^\xef\xbb\xbf", ""), 0
  for line in (text .. "\n"):gsub("\r\n?", "\n"):gmatch "([^\n]*)\n" do
    number = number + 1
    if not line:match "^%s*#" and line:match "%S" then list[#list + 1] = { text = line,
      from = ("%s:%d: "):format(path, number) } end
  end
end

-- A prompt's flags; what is wrong with them is said of the prompt, and of its line in a file.
local function parse(line)
  local ok, parsed = pcall(sample.parse_prompt, line.text)
  if ok then return parsed end
  if not errors.is(parsed) then error(parsed, 0) end
  wrong("%s%s", line.from, errors.message(parsed))
end

-- Every picture to draw: prompts times --count.
local function read_jobs(args)
  local lines, jobs = {}, {}
  for i, text in ipairs(args.prompt or {}) do lines[i] = { text = text, from = "" } end
  if args.prompts then read_prompts(args.prompts, lines) end
  if #lines == 0 then wrong "what should be drawn? give --prompt or --prompts" end
  for _, line in ipairs(lines) do
    local parsed = parse(line)
    if parsed.embedded then core.log("warn",
      ("prompt '%s': --g has no effect on Stable Diffusion"):format(line.text)) end
    for k = 1, args.count do
      jobs[#jobs + 1] = setmetatable({ seed = (parsed.seed or args.seed) + k - 1,
        negative = parsed.negative or args.negative }, { __index = parsed })
    end
  end
  return jobs
end

-- The picture to begin with, and the size that it suggests: its own, rounded down to what the model can draw.
local function read_init(args, model)
  if not args.init then return nil end
  local image, f = errors.guard("input", core.image_load, args.init), model:downsample()
  return image, math.max(f, image.shape[2] // f * f), math.max(f, image.shape[1] // f * f)
end

-- Gives every job the length of its texts. Each has its own, so that no picture depends on those beside it.
local function settle_lengths(model, args, jobs)
  local how = { what = "prompts", tokens = args.tokens, weighted = true }
  local all = lengths.survey(model, sample.texts(jobs, "picture"), how)
  local _, warnings = lengths.report(all)
  for _, text in ipairs(warnings) do core.log("warn", text) end
  for _, job in ipairs(jobs) do
    local longer = math.max(lengths.of(model, job.prompt, true), lengths.of(model, job.negative, true))
    job.tokens = args.tokens or lengths.holding(longer)
  end
end

-- One sampler per picture size and length of texts, and the numbers of the jobs that it draws.
local function by_size(model, args, jobs, width, height)
  local list, by = {}, {}
  for i, job in ipairs(jobs) do
    local w, h = job.width or args.width or width, job.height or args.height or height
    local key = ("%dx%d, %d"):format(w, h, job.tokens)
    if not by[key] then
      local sampler = sample.new(model, { width = w, height = h, batch = args.batch, clip_skip = args.clip_skip,
        tokens = job.tokens, rescale = args.rescale, zero_snr = args.zero_snr, vae_tile = args.vae_tile,
        image = args.init ~= nil })
      by[key] = { sampler = sampler, width = w, height = h, jobs = {}, at = {} }
      list[#list + 1] = by[key]
    end
    table.insert(by[key].jobs, job)
    table.insert(by[key].at, i)
  end
  return list
end

-- The numbers of pictures go on after those that a folder has.
local function last_number(folder)
  local last = 0
  for _, name in ipairs(core.list(folder)) do
    local number = name:match "^(%d+)%.png$"
    last = math.max(last, number and math.tointeger(tonumber(number)) or 0)
  end
  return last
end

-- Whether the pictures can lie in one grid.
local function one_size(list)
  for _, one in ipairs(list) do
    if one.width ~= list[1].width or one.height ~= list[1].height then return false end
  end
  return true
end

return {
  computes = true,
  summary = "pictures from a checkpoint, with LoRAs at any scale",
  usage = "MODEL --prompt TEXT [options]",
  needs = 1,
  options = {
    { "--prompt", "text", "what to draw; several make several pictures", many = true },
    { "--prompts", "file", "one prompt a line, with kohya's --n --s --l --d --w --h --ss" },
    { "--negative", "text", "what to avoid", "" },
    { "--lora", "file:scale", "a LoRA file, as in dog.safetensors:0.8; several are added up", many = true },
    { "--embedding", "file", "textual inversion: its name without the ending is a word of prompts (several can be)",
      many = true },
    { "--steps", "number", "denoising steps", 20 },
    { "--guidance", "number", "classifier-free guidance scale", 7.5 },
    { "--rescale", "number", "0 to 1: guidance rescale, for models with zero terminal SNR" },
    { "--sampler", "name", table.concat(samplers.names, ", "), "ddim" },
    { "--sigmas", "name", table.concat(samplers.sigmas, " or "), "normal" },
    { "--spacing", "name", "of timesteps: " .. table.concat(samplers.spacings,
      ", ") .. " (default: the sampler's own)" },
    { "--zero-snr", "flag", "the schedule ends without any signal (v-prediction only)" },
    { "--seed", "number", "of a prompt's first picture; --count counts up from it", 0 },
    { "--count", "number", "pictures of each prompt", 1 },
    { "--width", "number", "pixels (default: the model's own size)" },
    { "--height", "number", "pixels" },
    { "--init", "image", "a picture to begin with" },
    { "--strength", "number", "0 to 1: how much of it may change (default 0.75)" },
    { "--batch", "number", "pictures at a time", 1 },
    { "--tokens", "number", "75, 150 or 225: what prompts are padded or cut to (default: what holds the prompt)" },
    { "--clip-skip", "number", "use the text encoder's n-th last layer" },
    { "--prediction", "name", "epsilon or v, what the model predicts, where its file does not say" },
    { "--vae", "file", "take the VAE from this file or folder: instead of MODEL's, or because it has none" },
    { "--text-encoder", "file", "the same for the text encoder" },
    { "--text-encoder-2", "file", "the same for SDXL's second text encoder" },
    { "--precision", "name", "f32, f16 or bf16: weights and activations", "f32" },
    { "--vae-tile", "number", "pixels: the autoencoder works in tiles of this side; 0 = at once (default: "
      .. "what fits 1 GiB)" },
    { "--out", "folder", "where the PNG files go", "samples" },
  },
  more = "docs/sampling.md has examples.",
  run = function(args)
    check(args)
    local jobs, loras = read_jobs(args), read_loras(args.lora or {})
    args.open_device()
    local model = require("burin.models.model").open(args[1], { patch = adapters.patch(loras), dtype = args.precision,
      compute = args.precision, prediction = args.prediction, whole = true,
      parts = { vae = args.vae, text_encoder = args.text_encoder, text_encoder_2 = args.text_encoder_2 } })
    core.log("info", "base: " .. reports.line(model:look()))
    if args.zero_snr and model.noise.prediction ~= "v" then
      errors.raise("recipe", "--zero-snr needs a model that predicts v; this one predicts epsilon")
    end
    embeddings.add(model, args.embedding)
    settle_lengths(model, args, jobs)
    local size = model.config.sample_size
    local init, width, height = read_init(args, model)
    local list = by_size(model, args, jobs, width or size, height or size)
    core.commit(true)
    errors.guard("data", model.load, model)
    core.make_dirs(args.out)
    local before = last_number(args.out)
    local sources, bar, images = infotext.sources(args[1], loras, args.vae, args.embedding), nil, {}
    for _, one in ipairs(list) do
      local o = { steps = args.steps, guidance = args.guidance, sampler = args.sampler, sigmas = args.sigmas,
        spacing = args.spacing,
        strength = args.strength, sources = sources, image = init and core.image_cover(init, one.width, one.height) }
      one.sampler:run(one.jobs, o, function(k, image, text)
        local i = one.at[k]
        if core.exists(("%s/%05d.png"):format(args.out, before + i)) then  -- another program's, meanwhile
          before = math.max(before, last_number(args.out))
        end
        local path = ("%s/%05d.png"):format(args.out, before + i)
        errors.guard("output", core.image_save, path, image, { "parameters", text })
        images[i] = image
        local line = args.json and core.json_encode { path = path, prompt = jobs[i].prompt, seed = jobs[i].seed }
          or core.shown(path)
        core.write_stdout(line .. "\n")
      end, function(step, steps)
        bar = bar or progress.new("sampling", steps)
        bar:update(step)
      end)
      bar = nil
    end
    if #images > 1 and one_size(list) then
      local grid = require "burin.sample.grid"
      local name = core.exists(args.out .. "/grid.png") and ("grid-%05d.png"):format(before + #images) or "grid.png"
      core.image_save(args.out .. "/" .. name, grid.labelled(images, jobs,
        math.min(#images, args.count > 1 and args.count or 4)))
    end
  end,
}
