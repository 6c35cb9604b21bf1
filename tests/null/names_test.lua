-- SPDX-License-Identifier: MIT
-- Names of every tensor and LoRA layer of SD 1.5, SD 2.1 and SDXL against the published key lists.
-- Runs in plain Lua 5.4 from the repository root: lua5.4 tests/null/names_test.lua
package.path = "scripts/?.lua;" .. package.path
package.preload["burin.core"] = function() return {} end  -- names need nothing of it
local families = require "burin.models.families"
local names = require "burin.models.io.names"

local passed, failed = 0, 0
local function check(ok, ...)
  if ok then passed = passed + 1 return end
  failed = failed + 1
  if failed <= 20 then print("FAIL", ...) end
end

local function rows(path)
  local list = {}
  for line in assert(io.open(path)):lines() do
    local row = {}
    for field in (line .. "\t"):gmatch "([^\t]*)\t" do row[#row + 1] = field end
    list[#list + 1] = row
  end
  return list
end

local four = { channels = { 320, 640, 1280, 1280 }, layers = 2, depth = { 1, 1, 1, 0 } }
local three = { channels = { 320, 640, 1280 }, layers = 2, depth = { 0, 2, 10 } }
local vae = { channels = { 128, 256, 512, 512 }, layers = 2 }
local models = {
  { file = "sd15", family = "sd1", unet = four, vae = vae,
    text = { { width = 768, layers = 12 } } },
  { file = "sd21", family = "sd2", unet = four, vae = vae,
    text = { { width = 1024, layers = 23 } } },
  { file = "sdxl_base", family = "sdxl", unet = three, vae = vae,
    text = { { width = 768, layers = 12 }, { width = 1280, layers = 32, projection = 1280 } } },
}

local function contains(list, value)
  for _, v in ipairs(list or {}) do if v == value then return true end end
  return false
end

for _, m in ipairs(models) do
  local map = names.map(families.get(m.family), m)
  for _, row in ipairs(rows("tests/data/keys_" .. m.file .. ".tsv")) do
    local file, component, canonical, op = row[1], row[2], row[3], row[4]
    local have, list, how = map:to_canonical(file)
    if component == "-" then
      check(have == nil, m.file, file, "has no counterpart, got", have, list and list[1])
    else
      local back, back_op, at = map:to_file(component, canonical)
      check(back == file, m.file, canonical, "to", file, "got", back)
      check(have == component and contains(list, canonical), m.file, file, "to", canonical,
        "got", list and list[1])
      check(op:sub(1, #back_op) == back_op and how == back_op, m.file, canonical, op, back_op, how)
      if back_op == "slice" then
        local width = m.text[component == "text_encoder" and 1 or 2].width
        local rows = ("slice_dim0[%d:%d]"):format(at * width, (at + 1) * width)
        check(op == rows, m.file, canonical, op, at)
      end
    end
  end
  for _, row in ipairs(rows("tests/data/lora_keys_" .. m.file .. ".tsv")) do
    check(map:kohya(row[4], row[5]) == row[1], m.file, row[5], row[1], map:kohya(row[4], row[5]))
  end
end

local map = names.map(families.get "sd1", models[1])
check(map:alternatives("cond_stage_model.transformer.text_model.final_layer_norm.bias")[1]
  == "cond_stage_model.transformer.final_layer_norm.bias", "old SD 1 merges")
check(map:in_folder("vae", "decoder.mid_block.attentions.0.to_out.0.bias")[2]
  == "decoder.mid_block.attentions.0.proj_attn.bias", "old VAE attention names")
check(map:in_folder("vae", "decoder.mid_block.attentions.0.group_norm.bias")[2] == nil,
  "group_norm kept its name")
check(map:to_canonical "model_ema.decay" == nil, "scalars are not weights")

print(("%d passed, %d failed"):format(passed, failed))
if failed > 0 then os.exit(1) end
