-- SPDX-License-Identifier: MIT
-- config.lua - one text as each JSON file that can come with a model. It is refused with a sentence, or what was taken
-- from it can be computed with; anything else is a finding.
local core = require "burin.core"
local errors = require "burin.base.errors"
local folder = require "burin.models.io.folder"
local lora = require "burin.adapters.file"
local settings = require "burin.models.io.settings"

-- No disk: every file has the text, every file of tensors the same two. The folder f has shards only.
local text
local tensors = { ["base_model.model.a.lora_A.weight"] = core.tensor({ 2, 4 }, "f32"),
  ["base_model.model.a.lora_B.weight"] = core.tensor({ 4, 2 }, "f32") }
local names = { "base_model.model.a.lora_A.weight", "base_model.model.a.lora_B.weight" }
function core.read_file() return text end
function core.exists(path) return not (path:find "^f/.*%.safetensors$" or path:find "%.bin$") and "file" or nil end
function core.real_path(path) return path end
function core.log() end
function core.load(path)
  if path:find "missing" then error(path .. ": there is no such file", 0) end
  return { names = function() return names end, info = function(_, name) return tensors[name] end,
    read = function(_, name) return tensors[name] end,
    meta = function() return { lora_adapter_metadata = path:find "embedded" and text or nil } end }
end
local layer = { component = "unet", module = "a", inputs = 4, outputs = 4 }
local index = setmetatable({}, { __index = function() return { { layer = layer, style = "peft" } } end })

local function config()
  return { family = "sdxl", prediction = "epsilon", prediction_known = true, scaling_factor = 0.13025, bos = 1, eos = 2,
    unet = { in_channels = 4, out_channels = 4, channels = { 8, 16 }, depth = { 0, 1 }, layers = 2, groups = 4,
      heads = { 2, 4 }, context = 8, time_ids_width = 256 },
    vae = { channels = { 8, 16 }, layers = 1, groups = 4, latent_channels = 4 },
    text = { { vocab = 64, width = 8, layers = 2, heads = 2, act = "gelu" },
      { vocab = 64, width = 8, layers = 2, heads = 2, act = "gelu" } } }
end

local function divides(d, n) return math.type(d) == "integer" and d >= 1 and n % d == 0 end

local function usable(c)
  local u, v = c.unet, c.vae
  for i, channels in ipairs(u.channels) do assert(divides(u.heads[i], channels) and divides(u.groups, channels)) end
  for _, channels in ipairs(v.channels) do assert(divides(v.groups, channels)) end
  for _, t in ipairs(c.text) do assert(divides(t.heads, t.width) and (t.act == "gelu" or t.act == "quick_gelu")) end
  assert(c.scaling_factor > 0 and c.scaling_factor < 1000 and (c.prediction == "epsilon" or c.prediction == "v"))
  assert(math.type(c.bos) == "integer" and math.type(c.eos) == "integer" and math.type(u.time_ids_width) == "integer")
  assert(c.sample_size == nil or math.type(c.sample_size) == "integer")
  for _, pad in pairs(c.pad or {}) do assert(math.type(pad) == "integer") end
end

local readers = {
  function(c) settings.own(c, core.json_decode(text, "f"), "f") end,
  function(c) settings.beside(c, folder.read_object "f", "f") end,
  function(c) settings.folder(c, function() return folder.read_object "f" end, "f") end,
  function() folder.check_index "f" end,
  function() folder.weights("f", "unet") end,
  function()
    local scale = lora.read("adapter_model.safetensors", index).adapters[1].scale
    assert(scale == scale)
  end,
  function() lora.read("embedded.safetensors", index) end,
}

return function(bytes)
  text = bytes
  local is_json, why = pcall(core.json_decode, text, "f")
  if not is_json then return assert(type(why) == "string") end
  for i, read in ipairs(readers) do
    local c = config()
    local ok, refused = pcall(read, c)
    if not ok and not (errors.code(refused) == 65) then
      error(("reader %d: %s"):format(i, type(refused) == "table" and refused.message or refused), 0)
    end
    if ok then usable(c) end
  end
end
