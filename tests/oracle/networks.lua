-- SPDX-License-Identifier: MIT
-- What Burin's networks compute for given inputs: dofile gives compute(model, loras, inputs, dtype). With the path of a
-- JSON job in the environment, { model =, loras = { { path =, scale = } ... }, inputs =, output =, dtype = }, it is run
-- once, for compare.py:
-- BURIN_ORACLE_JOB=job.json burin run --trust tests/oracle/networks.lua
local clip = require "burin.models.clip"
local core = require "burin.core"
local models = require "burin.models.model"

-- inputs:read(name) -> tensor or nil: ids (and ids_2) (N, 77), x (N, 4, H, W), t (N), context, and of SDXL pooled and
-- time_ids; latents to decode, optional. -> { context, pooled (of ids), noise (of x), image (of latents) }, images as
-- (N, C, H, W)
local function compute(path, loras, inputs, dtype)
  local model, list, results, sessions = models.open(path, { patch = require("burin.adapters.file").patch(loras),
    dtype = dtype }), {}, {}, {}
  local function input(name, tensor)
    local one = { var = core.var(name, tensor.shape, tensor.dtype, "input"), tensor = tensor }
    list[#list + 1] = one
    return one
  end
  local function result(name, g, node)
    local var = core.var(name, node.shape, "f32", "input")
    g:assign(var, node:cast "f32")
    results[name] = var
  end
  local function channels_last(name) return inputs:read(name):permute { 1, 3, 4, 2 } end

  local g, nodes, eos, extra = core.graph(), {}, nil, nil
  for i = 1, #model.text do
    nodes[i] = g:leaf(input("ids" .. i, inputs:read(i == 1 and "ids" or "ids_2"):cast "i32").var)
  end
  if model.family.name == "sdxl" then
    eos = g:leaf(input("eos", clip.eos_rows(list[2].tensor, 1)).var)
  end
  local states, pooled = model:encode_text(g, nodes, { eos = eos })
  result("context", g, states)
  if pooled then result("pooled", g, pooled) end
  sessions[1] = core.session(g, "text")

  g = core.graph()
  if model.family.name == "sdxl" then
    extra = { pooled = g:leaf(input("pooled", inputs:read "pooled").var),
      time_ids = g:leaf(input("time_ids", inputs:read "time_ids").var) }
  end
  result("noise", g, model:predict(g, g:leaf(input("x", channels_last "x").var),
    g:leaf(input("t", inputs:read "t":cast "f32").var), g:leaf(input("context", inputs:read "context").var), extra))
  sessions[2] = core.session(g, "unet")
  if inputs:read "latents" then
    g = core.graph()
    result("image", g, model:decode_latents(g, g:leaf(input("latents", channels_last "latents").var)))
    sessions[3] = core.session(g, "vae")
  end

  core.commit()
  model:load()
  for _, one in ipairs(list) do one.var:write(one.tensor) end
  for _, session in ipairs(sessions) do session:run() end
  local out = {}
  for name, var in pairs(results) do
    local value = var:read()
    out[name] = #value.shape == 4 and value:permute { 1, 4, 2, 3 } or value
  end
  return out
end

local path = os.getenv "BURIN_ORACLE_JOB"
if path then
  local job, list = core.json_decode(core.read_file(path)), {}
  for name, value in pairs(compute(job.model, job.loras, core.load(job.inputs), job.dtype)) do list[#list + 1] = { name,
    value } end
  core.export(job.output, "safetensors", list, {})
end
return compute
