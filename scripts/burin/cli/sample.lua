-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local progress = require "burin.progress"
local sample = require "burin.sample"

-- "dog.safetensors:0.8" -> { path =, scale = }
local function parse_loras(list)
  local out = {}
  for i, text in ipairs(list) do
    local path, scale = text:match "^(.*):(%-?[%d.]+)$"
    out[i] = { path = path or text, scale = tonumber(scale or 1) }
    if not core.exists(out[i].path) then
      error({ exit = 66, message = out[i].path .. ": there is no such LoRA file" }, 0)
    end
  end
  return out
end

return {
  computes = true,
  summary = "pictures from a checkpoint, with LoRAs at any scale",
  usage = "MODEL --prompt TEXT [options]",
  needs = 1,
  options = {
    { "--prompt", "text", "what to draw; several make several pictures", many = true },
    { "--prompts", "file", "one prompt a line, with kohya's --n --s --l --d --w --h" },
    { "--negative", "text", "what to avoid", "" },
    { "--lora", "file:scale", "a LoRA file, as in dog.safetensors:0.8; several are added up", many = true },
    { "--steps", "number", "denoising steps", 20 },
    { "--guidance", "number", "classifier-free guidance scale", 7.5 },
    { "--sampler", "name", "ddim or euler", "ddim" },
    { "--seed", "number", "of the first picture; the next ones count up", 0 },
    { "--count", "number", "pictures of each prompt", 1 },
    { "--width", "number", "pixels (default: the model's own size)" },
    { "--height", "number", "pixels" },
    { "--batch", "number", "pictures at a time", 1 },
    { "--clip-skip", "number", "use the text encoder's n-th last layer" },
    { "--out", "folder", "where the PNG files go", "samples" },
  },
  run = function(args)
    local jobs = {}
    local lines = args.prompt or {}
    if args.prompts then
      for line in core.read_file(args.prompts):gmatch "[^\r\n]+" do
        if not line:match "^%s*#" and line:match "%S" then lines[#lines + 1] = line end
      end
    end
    if #lines == 0 then error({ exit = 2, message = "what should be drawn? give --prompt or --prompts" }, 0) end
    for _, line in ipairs(lines) do
      local parsed = sample.parse_prompt(line)
      for k = 1, args.count do
        jobs[#jobs + 1] = { prompt = parsed.prompt, negative = parsed.negative or args.negative, steps = parsed.steps, guidance = parsed.guidance,
          seed = (parsed.seed or math.tointeger(args.seed)) + k - 1 }
      end
    end
    args.open_device()
    local model = require("burin.models.sd").open(args[1], { loras = parse_loras(args.lora or {}) })
    local size = model.config.sample_size or 512
    local sampler = sample.new(model, { width = math.tointeger(args.width or size), height = math.tointeger(args.height or size),
      batch = math.tointeger(args.batch), clip_skip = args.clip_skip and math.tointeger(args.clip_skip) })
    core.commit(true)
    model:load()
    core.make_dirs(args.out)
    local bar, images = nil, {}
    sampler:run(jobs, { steps = math.tointeger(args.steps), guidance = args.guidance, sampler = args.sampler },
      function(i, image)
        local path = ("%s/%05d.png"):format(args.out, i)
        core.image_save(path, image, { "parameters", ("%s\nSteps: %d, Sampler: %s, CFG scale: %g, Seed: %d"):format(
          jobs[i].prompt, args.steps, args.sampler, args.guidance, jobs[i].seed) })
        images[i] = image
        core.write_stdout(args.json and core.json_encode { path = path, prompt = jobs[i].prompt, seed = jobs[i].seed } .. "\n"
          or path .. "\n")
      end,
      function(step, steps)
        bar = bar or progress.new("sampling", steps)
        bar:update(step)
      end)
    if #images > 1 then
      local grid = require "burin.grid"
      core.image_save(args.out .. "/grid.png", grid.labelled(images, jobs, math.min(#images, args.count > 1 and args.count or 4)))
    end
  end,
}
