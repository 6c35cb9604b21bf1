-- SPDX-License-Identifier: MIT
-- Checkpoints of full size, by names and shapes: files with exactly the published tensors (sparse: they take no disk)
-- are recognised, every variable of the networks has its tensor, and every tensor is a network's or known to be none's.
-- Runs as `burin run --trust tests/golden/full_size_test.lua` from the repository root; nothing is loaded.
local core = require "burin.core"
local models = require "burin.models.model"

local T = dofile "tests/check.lua"
local check = T.check

local scratch = T.folder()
local write = assert(loadfile "scripts/dev/random_checkpoint.lua")

-- What files hold beside the networks: schedules, EMA's scalars, position ids, OpenCLIP's parts that SD 2.x leaves
-- unused, its temperature.
local unused = { "^[%w_]+$", "^model_ema%.%a+_?%a*$", "position_ids$", "%.logit_scale$",
  "^cond_stage_model%.model%.transformer%.resblocks%.23%.", "^cond_stage_model%.model%.text_projection$" }
local function is_unused(name)
  for _, pattern in ipairs(unused) do
    if name:find(pattern) then return true end
  end
end

local function count(shape)
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return n
end

-- A tensor in diffusers' layout is the variable's: a 1x1 convolution and a matrix are one.
local function fits(e, have)
  local s = e.shape
  if e.kind == "linear" or e.kind == "conv1" then return count(have) == s[1] * s[2] and have[1] == s[2]
    and have[2] == s[1] end
  local want = e.kind == "conv" and { s[4], s[3], s[1], s[2] } or s
  return table.concat(have, ",") == table.concat(want, ",")
end

local function check_files(label, model, single)
  local wanted, missing, unknown, tensors = {}, 0, 0, 0
  for _, component in ipairs(model:components()) do
    local read = model:reader(component.name)
    for _, e in ipairs(component.order) do
      local t = read(e.name)
      if not (t and fits(e, t.shape) and t.dtype == "f16") then
        missing = missing + 1
        check(missing > 3, label, component.name, e.name, t and table.concat(t.shape, ",") or "missing")
      end
      wanted[component.name .. "/" .. e.name] = true
    end
  end
  for component, file in pairs(single and { [""] = model.files.single } or model.files) do
    for _, name in ipairs(file:names()) do
      tensors = tensors + 1
      local of, list = component, { name }
      if single then of, list = model.map:to_canonical(name) end
      for _, canonical in ipairs(list or {}) do
        if wanted[of .. "/" .. canonical] then wanted[of .. "/" .. canonical] = false
        elseif not is_unused(name) then unknown = unknown + 1 check(unknown > 3, label, "unknown tensor", name) end
      end
      if not list and not is_unused(name) then unknown = unknown + 1 check(unknown > 3, label, "unknown tensor",
        name) end
    end
  end
  local left = 0
  for _, still in pairs(wanted) do left = left + (still and 1 or 0) end
  check(missing == 0 and unknown == 0 and left == 0, label, missing .. " missing", unknown .. " unknown",
    left .. " unread")
  return tensors
end

local families = { sd15 = "sd1", sd21 = "sd2", sdxl_base = "sdxl" }
local cases = {
  { "sd15", 1145 }, { "sd15", 1131, "--tensors", "1131" }, { "sd15", 1130, "--tensors", "1130" }, { "sd21", 1242 },
  { "sdxl_base", 2515 }, { "sd15", 1130, "--layout", "diffusers" }, { "sd21", 1306, "--layout", "diffusers" },
  { "sdxl_base", 2641, "--layout", "diffusers" },
}
for _, case in ipairs(cases) do
  local name, tensors = case[1], case[2]
  local label = table.concat({ name, table.unpack(case, 3) }, " ")
  local single = case[3] ~= "--layout"
  local path = scratch .. (single and ".safetensors" or "")
  write(name, path, "--sparse", table.unpack(case, 3))
  local model = models.open(path, { dtype = "f16", prediction = name == "sd21" and "v" or nil })
  check(model.family.name == families[name], label, "is taken for", model.family.name)
  check(model.noise.prediction == (name == "sd21" and "v" or "epsilon"), label, "predicts", model.noise.prediction)
  model:declare()
  local found = check_files(label, model, single)
  check(found == tensors, label, found .. " tensors, not " .. tensors)
  for _, file in pairs(model.files) do file:close() end
  os.execute(("rm -r '%s'"):format(path))
  model = nil
  collectgarbage()
  collectgarbage()
end

T.finish()
