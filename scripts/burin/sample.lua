-- SPDX-License-Identifier: MIT
-- sample.lua - from prompts to pictures. Three small sessions share the model's weights: text encoding, one
-- guided denoising step (replayed for each step of the sampler), VAE decoding.
local core = require "burin.core"
local options = require "burin.options"
local diffusion = require "burin.diffusion"
local samplers = require "burin.samplers"
local sample = {}

local Sampler = {}
Sampler.__index = Sampler

-- model: an opened model whose variables are declared. o: width, height (pixels), batch, schedule.
-- Nothing is computed or allocated yet.
function sample.new(model, o)
  local f = model:downsample()
  if o.width % f ~= 0 or o.height % f ~= 0 then
    error({ exit = 78, message = ("the image size %dx%d is not a multiple of %d"):format(o.width, o.height, f) }, 0)
  end
  local self = setmetatable({ model = model, o = o, batch = o.batch or 1, schedule = diffusion.schedule {} }, Sampler)
  local b, h, w, z = self.batch, o.height // f, o.width // f, model:latent_channels()
  local context = model:context_shape(2 * b)
  self.ids = core.var("sample.ids", { 2 * b, 77 }, "i32", "input")
  self.context = core.var("sample.context", context, "f32", "input")
  self.x = core.var("sample.x", { b, h, w, z }, "f32", "input")
  self.step = core.var("sample.step", { 8 }, "f32", "input")
  self.latent = core.var("sample.latent", { 1, h, w, z }, "f32", "input")
  self.image = core.var("sample.image", { 1, o.height, o.width, 3 }, "f32", "input")

  local g = core.graph()
  local states = model:encode_text(g, g:leaf(self.ids), { clip_skip = o.clip_skip })
  g:assign(self.context, states:cast "f32")
  self.text_session = core.session(g, "sample.text")

  g = core.graph()
  local x, step = g:leaf(self.x), g:leaf(self.step)
  local function k(i) return step:slice { axis = 0, begin = i, stop = i + 1 } end
  local x_in = x * k(0)
  local e = model:predict(g, x_in:concat(x_in, { axis = 0 }), k(1):broadcast { 2 * b }, g:leaf(self.context)):cast "f32"
  local uncond, cond = e:slice { axis = 0, begin = 0, stop = b }, e:slice { axis = 0, begin = b, stop = 2 * b }
  g:assign(self.x, x * k(3) + (uncond + (cond - uncond) * k(2)) * k(4))
  self.step_session = core.session(g, "sample.step")

  g = core.graph()
  g:assign(self.image, model:decode_latents(g, g:leaf(self.latent)):cast "f32")
  self.decode_session = core.session(g, "sample.decode")
  return self
end

-- Jobs that are drawn together must share the number of steps and the guidance: lists of indices, in order.
local function groups(jobs, o)
  local list, by = {}, {}
  for i, job in ipairs(jobs) do
    local steps, guidance = job.steps or o.steps or 20, job.guidance or o.guidance or 7.5
    local key = steps .. "/" .. guidance
    if not by[key] then
      by[key] = { steps = math.tointeger(steps), guidance = guidance }
      list[#list + 1] = by[key]
    end
    table.insert(by[key], i)
  end
  return list
end

local function start_round(self, jobs, init)
  local b, shape = self.batch, self.latent.shape
  local ids = core.tensor({ 2 * b, 77 }, "i32")
  local x = core.tensor(self.x.shape, "f32")
  local each = shape[2] * shape[3] * shape[4]
  for i = 1, b do
    local job = jobs[math.min(i, #jobs)]  -- a short last round repeats its last job
    ids:copy_into((i - 1) * 77 + 1, self.model:tokenize(job.negative or ""))
    ids:copy_into((b + i - 1) * 77 + 1, self.model:tokenize(job.prompt))
    x:copy_into((i - 1) * each + 1, core.tensor(shape, "f32"):fill_normal(job.seed or 0, 0x5eed, init))
  end
  self.ids:write(ids)
  self.text_session:run()
  self.x:write(x)
end

-- jobs: { { prompt =, negative =, seed =, steps =, guidance = }, ... }; o: sampler, and steps and guidance of jobs that
-- name none. Calls done(i, image) as each is ready (image: u8 tensor); progress(step, steps), optional, after each
-- denoising step. A picture depends on its own job alone, not on what it is drawn together with.
function Sampler:run(jobs, o, done, progress)
  local b, finished, total = self.batch, 0, 0
  local list = groups(jobs, o)
  for _, group in ipairs(list) do total = total + (#group + b - 1) // b * group.steps end
  for _, group in ipairs(list) do
    local plan = samplers[o.sampler or "ddim"](self.schedule, group.steps, self.model.prediction)
    for first = 1, #group, b do
      local round = {}
      for i = first, math.min(first + b - 1, #group) do round[#round + 1] = jobs[group[i]] end
      start_round(self, round, plan.init)
      for _, s in ipairs(plan) do
        self.step:write(core.tensor({ 8 }, "f32", { s.c_in, s.t, group.guidance, s.a, s.b, 0, 0, 0 }))
        self.step_session:run()
        finished = finished + 1
        if progress then progress(finished, total) end
      end
      local latents = self.x:read()
      for i = 1, #round do
        self.latent:write(latents:rows(i, i))
        self.decode_session:run()
        local image = self.image:read():affine(127.5, 127.5, "u8")
        done(group[first + i - 1], image:reshape { self.o.height, self.o.width, 3 })
      end
    end
  end
end

-- "a photo of sks dog --n blurry --s 20 --l 7 --d 1 --w 512 --h 512": kohya's prompt line.
-- Returns { prompt =, negative =, steps =, guidance =, seed =, width =, height = }.
function sample.parse_prompt(line)
  local job = { prompt = line:match "^(.-)%s+%-%-%a" or line:match "^(.-)%s*$" }
  local names = { n = "negative", s = "steps", l = "guidance", d = "seed", w = "width", h = "height" }
  for key, value in line:gmatch "%-%-(%a+)%s+(.-)%f[%-\0]" do
    local name = names[key]
    if not name then options.fail("prompt '%s': unknown option --%s", line, key) end
    value = value:match "^(.-)%s*$"
    job[name] = name == "negative" and value or tonumber(value)
    if job[name] == nil then options.fail("prompt '%s': --%s needs a number", line, key) end
  end
  return job
end

return sample
