-- SPDX-License-Identifier: MIT
-- verify.lua - what `burin verify DIR...` runs: reference models, everything compared with the recorded numbers.
--
-- A directory holds model_ldm.safetensors, config.json, io.safetensors (inputs and outputs of every
-- part) and, as far as present: grads_full, {lora,locon}_{init,grads_step0,after_step1,after_step3}
-- and a folder diffusers/.
--
-- Errors are |ours - reference| / |reference|, Euclidean norms; of an update, relative to how far
-- the reference moved. Two things are noise in float32 and not compared by ratio:
--   a gradient that is zero in exact arithmetic (the bias of CLIP's keys): an error below 1e-7 of
--     the largest gradient of its network counts as zero;
--   Adam's step of an element whose gradient is below 1e-5 of its tensor's norm: Adam divides it by
--     its own size, so its first step may be anything; it must not be longer than Adam's longest.
local clip = require "burin.models.clip"
local core = require "burin.core"
local errors = require "burin.base.errors"
local components = require "burin.graph.component"
local models = require "burin.models.model"
local unet = require "burin.models.unet"
local lora = require "burin.adapters.lora"
local compile = require "burin.graph.compile"
local optim = require "burin.graph.optimizers"
local losses = require "burin.train.losses"

local FORWARD, GRADIENT, UPDATE, VANISHING, NOISE = 1e-5, 1e-4, 1e-3, 1e-7, 1e-5
local LEARNING_RATE = 1e-3

-- ---- reporting ----------------------------------------------------------------------------------

local Report = {}
Report.__index = Report

function Report:add(name, err, tolerance, note)
  local ok = err <= tolerance  -- false for NaN
  if not ok then self.failed = self.failed + 1 end
  self.count = self.count + 1
  if self.json then
    self.json[#self.json + 1] = { name = name, error = err, tolerance = tolerance, ok = ok,
      note = note }
  else
    core.write_stdout(("%-52s %9.2e  %7.0e  %s%s\n"):format(name, err, tolerance,
      ok and "ok" or "FAIL", note and "  " .. note or ""))
  end
end

local function relative(ours, reference)
  local d, r = ours:distance(reference)
  return r > 0 and d / r or d
end

function Report:tensor(name, ours, reference, tolerance)
  self:add(name, relative(ours, reference), tolerance or FORWARD)
end

-- One line for a set of tensors, of the worst; each failing one has its own, and with --all every
-- one. list: { { name, distance, norm of the reference, floor } ... }
function Report:set(name, list, tolerance, note)
  local worst, worst_name = 0, nil
  for _, item in ipairs(list) do
    local d, r, floor = item[2], item[3], item[4] or 0
    local err = d <= floor and 0 or r > 0 and d / r or d
    if self.all or not (err <= tolerance) then self:add(name .. " " .. item[1], err, tolerance) end
    if not (err <= worst) then worst, worst_name = err, item[1] end
  end
  self:add(("%s, %d tensors"):format(name, #list), worst, tolerance,
    (note or "") .. (worst_name and "worst " .. worst_name or ""))
end

-- ---- running graphs -----------------------------------------------------------------------------

-- A graph with inputs and outputs. All variables must be declared before run(), which may be called
-- once.
local Program = {}
Program.__index = Program

local function program(model)
  return setmetatable({ model = model, graph = core.graph(), writes = {}, reads = {} }, Program)
end

function Program:input(tensor, dtype)
  local var = core.var("verify.in", tensor.shape, dtype or "f32", "input")
  self.writes[#self.writes + 1] = { var, tensor }
  return self.graph:leaf(var)
end

function Program:image(tensor) return self:input(tensor:cast "f32":permute { 1, 3, 4, 2 }) end

-- Calls f(tensor) with the value after the run.
function Program:output(node, f)
  local var = core.var("verify.out", node.shape, "f32", "input")
  self.graph:assign(var, node)
  self.reads[#self.reads + 1] = { var, f }
end

-- The same for (N, H, W, C), which files hold as (N, C, H, W).
function Program:output_image(node, f)
  self:output(node, function(t) f(t:permute { 1, 4, 2, 3 }) end)
end

function Program:run(name)
  local session = core.session(self.graph, "verify." .. name)
  core.commit()
  for _, w in ipairs(self.writes) do w[1]:write(w[2]) end
  session:run()
  for _, r in ipairs(self.reads) do r[2](r[1]:read()) end
end

-- ---- the parts ----------------------------------------------------------------------------------

local Check = {}
Check.__index = Check

-- Compares a node with io[name], when that exists.
function Check:expect(p, node, name, label)
  local reference = self.io:read(name)
  if not reference then return end
  local report = self.report
  local function compare(t) report:tensor(label or name, t, reference) end
  if #reference.shape == 4 then p:output_image(node, compare) else p:output(node, compare) end
end

local function ids_of(self, p)
  local list, last = {}, nil
  for i, name in ipairs(#self.model.text > 1 and { "te1", "te2" } or { "te" }) do
    last = self.io:read(name .. ".input_ids")
    list[i] = p:input(last:cast "i32", "i32")
  end
  return list, p:input(clip.eos_rows(last), "i32")
end

local function check_text(self)
  local p, model = program(self.model), self.model
  local ids, eos = ids_of(self, p)
  local context, pooled, outputs = model:encode_text(p.graph, ids, { eos = eos })
  for i, out in ipairs(outputs) do
    local name = #outputs > 1 and "te" .. i or "te"
    for k = 0, model.config.text[i].layers do
      self:expect(p, out.hidden[k], ("%s.hidden_states.%d"):format(name, k))
    end
    self:expect(p, out.last, name .. ".last_hidden_state")
    self:expect(p, out.last, name .. ".last_hidden_state_after_ln")
    for skip = 1, 2 do
      local states = out.normed(out.hidden[model.config.text[i].layers + 1 - skip])
      self:expect(p, states, ("%s.clip_skip%d"):format(name, skip))
    end
  end
  if pooled then
    self:expect(p, pooled, "te2.pooled")
    local added = unet.added_vector(model.config.unet, model.unet:trace(p.graph), pooled,
      p:input(self.io:read "cond.time_ids"))
    self:expect(p, added, "cond.y")
  end
  local name = self.io:info "cond.context" and "cond.context" or "unet.context"
  self:expect(p, context, name, "context")
  p:run "text"
end

local function check_vae(self)
  local io, model = self.io, self.model
  if not (model.vae and io:info "vae.image") then return end
  local p = program(model)
  local moments, mean, logvar = model:encode_image(p.graph, p:image(io:read "vae.image"))
  self:expect(p, moments, "vae.encoder_out_moments")
  self:expect(p, mean, "vae.mean")
  self:expect(p, logvar, "vae.logvar")
  if io:info "vae.posterior_noise" then
    local sample = mean + (logvar * 0.5):exp() * p:image(io:read "vae.posterior_noise")
    self:expect(p, sample, "vae.sample")
    self:expect(p, sample * model.scaling_factor, "vae.latents_scaled")
  end
  p:run "encode"
  if io:info "vae.decode_in_scaled_latents" then
    p = program(model)
    local latents = p:image(io:read "vae.decode_in_scaled_latents")
    self:expect(p, model:decode_latents(p.graph, latents), "vae.decode_out")
    p:run "decode"
  end
end

-- The recorded conditioning for a batch of `rows`.
local function conditioning(self, p, rows)
  local context = self.io:read "unet.context" or self.io:read "cond.context"
  local added = self.io:read "cond.y"
  return p:input(context:rows(1, rows)), added and { added = p:input(added:rows(1, rows)) }
end

local function times(p, n, t) return p:input(core.tensor({ n }, "f32", t)) end

local function check_unet(self)
  local io, model = self.io, self.model
  for _, name in ipairs(io:names()) do
    local case, t = name:match "^(unet[%w_]*)%.out_t(%d+)$"
    if case then
      local p = program(model)
      local x = p:image(io:read(case .. ".x"))
      local rows = x.shape[1]
      local context, added = conditioning(self, p, rows)
      if case == "unet" and t == "500" then model.unet.marks = {} end
      self:expect(p, model:predict(p.graph, x, times(p, rows, tonumber(t)), context, added), name)
      for path, node in pairs(model.unet.marks or {}) do
        self:expect(p, node, "probe_t500." .. path)
      end
      model.unet.marks = nil
      p:run(name)
    end
  end
end

-- ---- training -----------------------------------------------------------------------------------

-- The recorded batch. live: the text encoders are part of the graph, else the recorded context is.
-- -> loss, { name = node } of what is on the way
local function objective(self, p, live)
  local io, model = self.io, self.model
  local latents, noise = p:image(io:read "train.latents"), p:image(io:read "train.noise")
  local steps = io:read "train.timesteps"
  local n = steps.count
  local function per_sample(f)
    local values = {}
    for i = 1, n do values[i] = f(model.noise.alpha_bar[math.tointeger(steps:get(i))]) end
    return p:input(core.tensor({ n, 1, 1, 1 }, "f32", values))
  end
  local signal = per_sample(math.sqrt)
  local sigma = per_sample(function(a) return math.sqrt(1 - a) end)
  local noisy = latents * signal + noise * sigma
  local target = model.noise.prediction == "v" and noise * signal - latents * sigma or noise
  local context, extra
  if live then
    local ids, eos = ids_of(self, p)
    local pooled
    context, pooled = model:encode_text(p.graph, ids, { eos = eos })
    extra = pooled and { pooled = pooled, time_ids = p:input(io:read "cond.time_ids") }
    if pooled then
      extra.added = unet.added_vector(model.config.unet, model.unet:trace(p.graph), pooled,
        extra.time_ids)
    end
  else
    context, extra = conditioning(self, p, n)
  end
  local pred = model:predict(p.graph, noisy, p:input(steps:cast "f32"), context, extra)
  local per = losses.squared_error(pred, target)
  return (per:sum_to { 1 } * (1 / n)):reshape {}, { noisy = noisy, target = target, pred = pred,
    per_sample = per, context = context, added = extra and extra.added }
end

local function check_objective(self)
  local p = program(self.model)
  local loss, s = objective(self, p, false)
  self:expect(p, s.noisy, "train.noisy_latents")
  self:expect(p, s.target, "train.target")
  self:expect(p, s.pred, "train.pred")
  self:expect(p, s.per_sample, "train.loss_per_sample")
  self:expect(p, loss, "train.loss")
  p:run "loss"
end

-- Gradients of every tensor, in file layout, against grads_full.
local function check_gradients(self)
  local grads, model, io = self:open "grads_full", self.model, self.io
  if not grads then return end
  local p = program(model)
  local loss, s = objective(self, p, true)
  local wrt, targets = { s.context }, { {} }
  if s.added then wrt[2], targets[2] = s.added, {} end
  for _, component in ipairs(model:components()) do
    for i, leaf in ipairs(component ~= model.vae and component:leaves(p.graph) or {}) do
      local e = component.order[i]
      local key = component == model.unet and model.map:to_file("unet", e.name)
        or ("HF_%s.%s"):format(component.name, e.name)
      if grads:info(key) then
        wrt[#wrt + 1] = leaf
        targets[#targets + 1] = { key = key, entry = e, component = component.name }
      end
    end
  end
  local sets = { unet = { max = 0 }, text_encoder = { max = 0 }, text_encoder_2 = { max = 0 } }
  local total, report = 0, self.report
  for i, d in ipairs(p.graph:backward(loss, wrt)) do
    local target = targets[i]
    if not target.key then
      self:expect(p, d, i == 1 and "train.grad_context" or "train.grad_y")
    else
      local reference = grads:read(target.key)
      local function compare(ours)
        local set = sets[target.component]
        local distance, norm = components.to_file(target.entry, ours):distance(reference)
        set[#set + 1] = { target.key, distance, norm }
        set.max = math.max(set.max, norm)
        if target.component == "unet" then total = total + ours:stats().norm ^ 2 end
      end
      if d then p:output(d, compare) else compare(core.tensor(target.entry.shape, "f32")) end
    end
  end
  p:run "gradients"
  for _, component in ipairs { "unet", "text_encoder", "text_encoder_2" } do
    local set = sets[component]
    for _, item in ipairs(set) do item[4] = VANISHING * set.max end
    if #set > 0 then report:set("gradients of " .. component, set, GRADIENT) end
  end
  local norm = io:read "train.grad_norm_unet"
  if norm then
    report:add("train.grad_norm_unet", math.abs(math.sqrt(total) / norm:get(1) - 1), GRADIENT)
  end
end

-- ---- adapters -----------------------------------------------------------------------------------

-- The method that makes the layers of a recorded file, from its shapes and alphas.
local function method_of(file)
  local o = { text_encoder = false, unet = false }
  for _, key in ipairs(file:names()) do
    local layer = key:match "^(.*)%.lora_down%.weight$"
    if layer then
      local shape, alpha = file:info(key).shape, file:read(layer .. ".alpha")
      alpha = alpha and alpha:get(1) or shape[1]
      if #shape == 4 and shape[3] > 1 then
        o.conv_rank, o.conv_alpha = shape[1], alpha
      else
        o.rank, o.alpha = shape[1], alpha
      end
      if layer:match "^lora_te" then o.text_encoder = true else o.unet = true end
    end
  end
  return lora(o)
end

-- Same keys, same alphas.
local function compare_keys(self, kind, file, exported)
  local wrong, seen = 0, 0
  for _, item in ipairs(exported) do
    local info = file:info(item[1])
    seen = seen + 1
    if not info or table.concat(info.shape, ",") ~= table.concat(item[2].shape, ",") then
      wrong = wrong + 1
    elseif item[1]:match "%.alpha$" and file:read(item[1]):get(1) ~= item[2]:get(1) then
      wrong = wrong + 1
    end
  end
  wrong = wrong + math.abs(#file:names() - seen)
  self.report:add(kind .. ".keys and shapes", wrong, 0, ("%d tensors"):format(seen))
end

-- Ours against the file, per tensor.
local function compare_gradients(self, label, exported, file)
  local list, max = {}, 0
  for _, item in ipairs(exported) do
    local reference = file:read(item[1])
    if reference and not item[1]:match "%.alpha$" then
      local distance, norm = item[2]:distance(reference)
      max = math.max(max, norm)
      list[#list + 1] = { item[1], distance, norm }
    end
  end
  for _, item in ipairs(list) do item[4] = VANISHING * max end
  self.report:set(label, list, GRADIENT)
end

-- The distance without elements of noise, as long as those moved no further than Adam can, and how
-- many they are.
local function resolved_distance(ours, reference, grad, reach)
  local sum, left_out, noise = 0, 0, NOISE * grad:stats().norm
  for i = 1, ours.count do
    local d = math.abs(ours:get(i) - reference:get(i))
    if math.abs(grad:get(i)) < noise and d <= 2 * reach then
      left_out = left_out + 1
    else
      sum = sum + d * d
    end
  end
  return math.sqrt(sum), left_out
end

-- Values after `steps` updates, relative to how far they moved from `base`.
local function compare_updates(self, label, exported, file, base, grads, steps)
  local list, left_out, n = {}, 0, 0
  for _, item in ipairs(exported) do
    local key, ours = item[1], item[2]
    local reference = file:read(key)
    if reference and not key:match "%.alpha$" then
      local distance, moved = ours:distance(reference), reference:distance(base:read(key))
      if distance > UPDATE * moved and grads and grads:info(key) then
        distance, n = resolved_distance(ours, reference, grads:read(key), steps * LEARNING_RATE)
        left_out = left_out + n
      end
      list[#list + 1] = { key, distance, moved }
    end
  end
  local note = left_out > 0 and ("%d elements of noise left out; "):format(left_out)
  self.report:set(label, list, UPDATE, note)
end

local function check_adapter(self, kind)
  local init, model, report = self:open(kind .. "_init"), self.model, self.report
  if not init then return end
  local method = model:adapt(method_of(init))
  local optimizer = optim.adamw { lr = LEARNING_RATE, weight_decay = 0.01 }
  local trainer = compile.trainer { optimizer = optimizer }
  local p, pred = nil, nil
  local session = trainer:session("verify." .. kind, function(graph)
    p = program(model)
    p.graph = graph
    local loss, s = objective(self, p, true)
    p:output_image(s.pred, function(t) pred = t end)
    return loss, method:params()
  end)
  core.commit()
  model:load()
  method:load(init, model.map)
  trainer:reset()
  for _, w in ipairs(p.writes) do w[1]:write(w[2]) end
  compare_keys(self, kind, init, method:export(model.map, "f32"))

  local losses, recorded = self.io:read(kind .. ".losses"), self:open(kind .. "_grads_step0")
  for step = 0, 3 do
    trainer:run(session, step, { [0] = LEARNING_RATE, LEARNING_RATE })
    local loss = trainer:read()
    if losses then
      report:add(("%s.loss %d"):format(kind, step), math.abs(loss / losses:get(step + 1) - 1),
        step == 0 and FORWARD or GRADIENT)
    end
    if step == 0 then
      p.reads[1][2](p.reads[1][1]:read())
      local reference = self.io:read(kind .. ".pred_step0")
      if reference then report:tensor(kind .. ".pred_step0", pred, reference) end
      local grads = method:export(model.map, "f32", function(var)
        local view = trainer.view[var]
        return view and view:read() or core.tensor(var.shape, "f32")
      end)
      if recorded then compare_gradients(self, kind .. ".gradients", grads, recorded) end
    end
    local after = self:open(("%s_after_step%d"):format(kind, step + 1))
    if after then
      local values = method:export(model.map, "f32")
      compare_updates(self, ("%s.update %d"):format(kind, step + 1), values, after, init, recorded,
        step + 1)
    end
  end
  model:release(method)
end

-- Every tensor of the folder is the same as in the single file.
local function check_folder(self)
  local path = self.path .. "/diffusers"
  if core.exists(path) ~= "folder" then return end
  local folder, wrong, n = models.open(path), {}, 0
  for _, component in ipairs(self.model:components()) do
    if folder.files[component.name] then
      local ours, theirs = self.model:reader(component.name), folder:reader(component.name)
      for _, e in ipairs(component.order) do
        local a, b = ours(e.name), theirs(e.name)
        n = n + 1
        local distance = a and b and components.to_device(e, a):distance(components.to_device(e, b)) or math.huge
        if distance > 0 then
          wrong[#wrong + 1] = { component.name .. "." .. e.name, distance, 1 }
        end
      end
    end
  end
  self.report:set(("diffusers folder: differing of %d"):format(n), wrong, 0)
  local a, b = self.model.config.unet, folder.config.unet
  local same = 0
  for _, field in ipairs { "channels", "depth", "heads" } do
    if table.concat(a[field], ",") ~= table.concat(b[field], ",") then same = same + 1 end
  end
  for _, field in ipairs { "layers", "mid_depth", "context", "linear_projection", "groups",
    "added" } do
    if a[field] ~= b[field] then same = same + 1 end
  end
  self.report:add("diffusers folder: differences of config", same, 0)
end

function Check:open(name)
  local path = ("%s/%s.safetensors"):format(self.path, name)
  return core.exists(path) and core.load(path) or nil
end

local function verify(path, report, o)
  path = path:gsub("/+$", "")
  local self = setmetatable({ path = path, report = report }, Check)
  self.io = self:open "io"
  if not self.io then
    errors.raise("input", path .. ": there is no io.safetensors in it")
  end
  self.model = models.open(path .. "/model_ldm.safetensors", o)
  self.model:declare()
  core.commit()
  self.model:load()
  check_folder(self)
  check_text(self)
  check_vae(self)
  check_unet(self)
  check_objective(self)
  check_gradients(self)
  for _, kind in ipairs { "lora", "locon" } do check_adapter(self, kind) end
end

-- args: folders; all (a line for every tensor of a set), checkpoint (recompute blocks in the backward pass), json
return function(args)
  local report = setmetatable({ count = 0, failed = 0, all = args.all, json = args.json and {} }, Report)
  for _, path in ipairs(args) do
    if not args.json and #args > 1 then core.write_stdout(path .. "\n") end
    verify(path, report, { checkpoint = args.checkpoint })
    collectgarbage()
  end
  if args.json then
    core.write_stdout(core.json_encode({ failed = report.failed, results = report.json }, 1) .. "\n")
  else
    core.write_stdout(("%d checks, %d failed\n"):format(report.count, report.failed))
  end
  return report.failed > 0 and 1 or 0
end
