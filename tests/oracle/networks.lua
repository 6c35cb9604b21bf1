-- SPDX-License-Identifier: MIT
-- What Burin computes, for compare.py: runs as `burin run --trust tests/oracle/networks.lua` with the path of a JSON job in
-- the environment: { model =, loras = { { path =, scale = } ... }, inputs =, output = }. inputs holds ids (and ids_2), x
-- (N, 4, H, W), t, context, latents and, of SDXL, pooled and time_ids; output gets context and pooled of ids, noise of x, image of latents.
local core = require "burin.core"
local sd = require "burin.models.sd"

local job = core.json_decode(core.read_file(os.getenv "BURIN_ORACLE_JOB"))
local inputs = core.load(job.inputs)
local model = sd.open(job.model, { loras = job.loras })

local function input(name, tensor)
  local var = core.var(name, tensor.shape, tensor.dtype, "input")
  return { var = var, tensor = tensor }
end
local ids, list = {}, {}
for i = 1, #model.text do
  local t = inputs:read(i == 1 and "ids" or "ids_2"):cast "i32"
  ids[i] = input("ids" .. i, t)
  list[#list + 1] = ids[i]
end
local x = input("x", inputs:read "x":permute { 1, 3, 4, 2 })
local t, context = input("t", inputs:read "t":cast "f32"), input("context", inputs:read "context")
local xl = model.family == "sdxl"
local pooled = xl and input("pooled", inputs:read "pooled")
local time_ids = xl and input("time_ids", inputs:read "time_ids")
local eos = xl and input("eos", core.tensor({ ids[1].tensor.shape[1] }, "i32", sd.eos_rows(ids[2].tensor, 1)))
for _, one in ipairs { x, t, context, pooled or nil, time_ids or nil, eos or nil } do list[#list + 1] = one end

local results = {}
local function result(name, g, node)
  local r = core.var(name, node.shape, "f32", "input")
  g:assign(r, node:cast "f32")
  results[name] = r
end

local g = core.graph()
local nodes = {}
for i, one in ipairs(ids) do nodes[i] = g:leaf(one.var) end
local states, pooled_out = model:encode_text(g, nodes, { eos = eos and g:leaf(eos.var) })
result("context", g, states)
if pooled_out then result("pooled", g, pooled_out) end
local text = core.session(g, "text")
g = core.graph()
local noise = model:predict(g, g:leaf(x.var), g:leaf(t.var), g:leaf(context.var),
  xl and { pooled = g:leaf(pooled.var), time_ids = g:leaf(time_ids.var) })
result("noise", g, noise)
local unet = core.session(g, "unet")
g = core.graph()
local latents = input("latents", inputs:read "latents":permute { 1, 3, 4, 2 })
list[#list + 1] = latents
result("image", g, model:decode_latents(g, g:leaf(latents.var)))
local vae = core.session(g, "vae")
core.commit()
model:load()
for _, one in ipairs(list) do one.var:write(one.tensor) end
text:run()
unet:run()
vae:run()
local out = {}
for name, var in pairs(results) do
  local value = var:read()
  out[#out + 1] = { name, (name == "noise" or name == "image") and value:permute { 1, 4, 2, 3 } or value }
end
core.export(job.output, "safetensors", out, {})
