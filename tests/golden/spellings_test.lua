-- SPDX-License-Identifier: MIT
-- LoRA files as LyCORIS, PEFT, ComfyUI, OneTrainer and others write them: the merged weights against what those
-- programs make of them (tests/oracle/spellings.py), and which programs read which spelling.
-- Runs as `burin run --trust tests/golden/spellings_test.lua` from the repository root.
local consumers = require "burin.adapters.consumers"
local core = require "burin.core"
local device = require "burin.graph.device"
local errors = require "burin.base.errors"
local extract = require "burin.adapters.extract"
local families = require "burin.models.families"
local file = require "burin.adapters.file"
local keys = require "burin.adapters.keys"
local models = require "burin.models.model"
local resize = require "burin.adapters.resize"
local save = require "burin.adapters.save"
local adapters = require "burin.adapters.convert"

require("burin.base.progress").quiet = true
local T = dofile "tests/check.lua"
local check = T.check
device.null()

local FOLDER = "tests/golden/spellings"
local function tiny(family) return models.open("tests/golden/tiny_" .. family .. "/model_ldm.safetensors") end
local open = { sd1 = tiny "sd1", sdxl = tiny "sdxl" }
local scratch = T.folder()

-- ---- merged weights -----------------------------------------------------------------------------------------------

local expected, cases = core.load(FOLDER .. "/expected.safetensors"), {}
for _, name in ipairs(expected:names()) do
  local case, key = name:match "^([^|]+)|(.*)$"
  cases[case] = cases[case] or {}
  table.insert(cases[case], key)
end

local function path_of(case)
  local path = FOLDER .. "/" .. case
  return core.exists(path) == "folder" and path or path .. ".safetensors"
end

local worst, count = 0, 0
for case, names in pairs(cases) do
  local model = case == "omi" and open.sdxl or open.sd1
  local merged = file.merge({ { path = path_of(case), scale = 1 } }, model)
  local touched = 0
  for _, name in ipairs(names) do
    local component, canonical = model.map:to_canonical(name)
    local reader = model:reader(component)
    local want, base = expected:read(case .. "|" .. name), reader(canonical[1])
    local have = merged.reader(component, reader)(canonical[1])
    local distance, norm = have:distance(want)
    worst, count = math.max(worst, distance / norm), count + 1
    check(distance <= 1e-5 * norm, case, name, distance / norm)
    if base:distance(want) > 1e-3 * norm then touched = touched + 1 end
  end
  check(2 * touched >= #names, case, "the adapter changes its layers", touched, #names)  -- biases stay, mostly
  -- Half the strength adds half.
  local name = names[1]
  local component, canonical = model.map:to_canonical(name)
  local half = file.merge({ { path = path_of(case), scale = 0.5 } }, model).reader(component,
    model:reader(component))(canonical[1])
  local base, want = model:reader(component)(canonical[1]), expected:read(case .. "|" .. name)
  local middle = core.add(base:affine(0.5, 0, "f32"), want, 0.5)
  check(half:distance(middle) <= 1e-5 * select(2, half:distance(want)), case, "half the strength")
end
check(count == 58, "every expected tensor was compared", count)

-- Every adapter of a file is among what was expected: nothing of it was dropped or invented.
for case, names in pairs(cases) do
  local model, known = case == "omi" and open.sdxl or open.sd1, {}
  for _, name in ipairs(names) do
    local component, canonical = model.map:to_canonical(name)
    known[component .. "." .. canonical[1]] = true
  end
  for _, e in ipairs(file.read(path_of(case), keys.index(model)).adapters) do
    local name = ("%s.%s.%s"):format(e.layer.component, e.layer.module, e.param)
    check(known[name], case, name, "was not expected")
  end
end

-- ---- there and back: what can be written again says the same --------------------------------------------------------

local function same_merge(label, a, b, model)
  local index, differ, n = keys.index(model), 0, 0
  local x, y = file.merge({ { path = a, scale = 1 } }, model), file.merge({ { path = b, scale = 1 } }, model)
  for _, e in ipairs(file.read(a, index).adapters) do
    local name, read = e.layer.module .. "." .. e.param, model:reader(e.layer.component)
    local have, want = y.reader(e.layer.component, read)(name), x.reader(e.layer.component, read)(name)
    local distance, norm = have:distance(want)
    n, differ = n + 1, differ + (distance > 1e-6 * norm and 1 or 0)
  end
  check(n > 0 and differ == 0, label, differ .. " of " .. n .. " differ")
end
for _, case in ipairs { "lycoris_full", "peft_loha", "peft_lokr", "peft_lora_bias", "named", "comfy", "ldm",
  "magnitude", "fp8_e4m3" } do
  local out = scratch .. "/" .. case .. ".safetensors"
  adapters.convert(path_of(case), out, { base = "tests/golden/tiny_sd1/model_ldm.safetensors", dtype = "keep",
    to = "kohya" })
  same_merge(case .. " as kohya's", path_of(case), out, open.sd1)
end

-- Resizing leaves what has no rank.
local function vectors(path)
  local list = {}
  for _, e in ipairs(file.read(path, keys.index(open.sd1)).adapters) do
    if e.kind == "diff" then list[#list + 1] = e.layer.module .. e.param .. e.parts.diff:hash() end
  end
  table.sort(list)
  return table.concat(list, " "), #list
end
resize.run(path_of "comfy", scratch .. "/small.safetensors", { base = open.sd1.path, dtype = "keep", rank = 1 })
local before, n = vectors(path_of "comfy")
check(n == 4 and vectors(scratch .. "/small.safetensors") == before, "norms and biases stay", n)

-- ---- what cannot be applied, by name --------------------------------------------------------------------------------

local function t(...) return core.tensor({ ... }, "f32", 0.1) end
local layer = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
local bad = scratch .. "/bad.safetensors"
local index = keys.index(open.sd1)
for what, list in pairs {
  ["diag%-OFT"] = { { layer .. ".oft_blocks", t(2, 12, 12) }, { layer .. ".alpha", t() } },
  BOFT = { { layer .. ".oft_blocks", t(1, 2, 12, 12) } }, IA3 = { { layer .. ".weight", t(24) },
    { layer .. ".on_input", t(1) } },
  GLoRA = { { layer .. ".a1.weight", t(24, 2) }, { layer .. ".a2.weight", t(2, 24) }, { layer .. ".alpha", t() } },
  ["kind OFT"] = { { layer .. ".oft_R.weight", t(2, 66) } },
  AdaLoRA = { { "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_E", t(2, 1) } },
} do
  core.export(bad, "safetensors", list, {})
  local ok, why = pcall(file.read, bad, index)
  check(not ok and errors.code(why) == 65 and errors.message(why):find("cannot be applied")
    and errors.message(why):find(what), what, not ok and errors.message(why))
  check(adapters.is_lora(bad), what, "is a LoRA for inspect and merge")
end
local function refused(label, list, pattern)
  core.export(bad, "safetensors", list, {})
  local ok, why = pcall(file.read, bad, index)
  check(not ok and errors.is(why) and errors.message(why):find(pattern), label, not ok and errors.message(why))
end
local peft = "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
refused("two adapters", { { peft .. ".lora_A.cat.weight", t(2, 24) }, { peft .. ".lora_B.cat.weight", t(24, 2) },
  { peft .. ".lora_A.dog.weight", t(2, 24) } }, "several adapters, 'cat' and 'dog'")
refused("no bias", { { layer .. ".diff_b", t(24) } }, "to_q, which has none in this model")
refused("a norm's weight of another size", { { "lora_unet_conv_norm_out.w_norm", t(2, 2, 2, 2, 2) } }, "is no part")
check(not pcall(file.delta, file.read((function()
  core.export(bad, "safetensors", { { "lora_unet_conv_norm_out.w_norm", t(3) } }, {})
  return bad
end)(), index).adapters[1], t(8)), "a norm of another width")

-- ---- who reads what: the counts that the programs themselves gave for published models ---------------------------

local published = models.new(families.published(families.get "sd1"))
local all = keys.index(published)
-- A file with an adapter of rank 1 for the layers that kohya's LoRA has; conv: LoCon's too.
local function write(to, conv)
  local list = {}
  for _, l in ipairs(keys.layers(published)) do
    if extract.is_target(l, conv) then
      local k = l.kernel
      list[#list + 1] = { layer = l, kind = "lora", rank = 1, alpha = 1, scale = 1, keys = { "" },
        parts = { down = l.kind == "linear" and t(1, l.inputs) or t(1, l.inputs, k, k),
          up = l.kind == "linear" and t(l.outputs, 1) or t(l.outputs, 1, 1, 1) } }
    end
  end
  local path = scratch .. (to == "peft" and "/peft" or "/" .. to .. ".safetensors")
  core.remove_tree(path)
  save.write(path, list, { map = published.map, format = to, dtype = "keep", metadata = {} })
  local loads, of = {}, nil
  for _, row in ipairs(consumers.count(file.read(path, all).adapters)) do loads[row.program], of = row.loads, row.of end
  return loads, of
end
local loads, of = write("kohya", false)
for _, program in ipairs { "A1111", "Forge", "ComfyUI", "sd-scripts", "diffusers", "InvokeAI", "sd.cpp" } do
  check(of == 264 and loads[program] == 264, "kohya", program, loads[program], of)
end
check(loads.PEFT == 0, "kohya's names are nothing to PEFT", loads.PEFT)
loads, of = write("diffusers", false)
for program, n in pairs { A1111 = 0, Forge = 136, ComfyUI = 64 + 72, ["sd-scripts"] = 0, diffusers = 264, InvokeAI = 0,
  ["sd.cpp"] = 192 } do
  check(of == 264 and loads[program] == n, "diffusers", program, loads[program], n)
end
loads, of = write("diffusers", true)
check(of == 350 and loads.ComfyUI == 150 + 72 and loads.diffusers == 350, "diffusers, LoCon", of, loads.ComfyUI)
loads, of = write("peft", false)
for program, n in pairs { A1111 = 0, ComfyUI = 0, ["sd-scripts"] = 0, diffusers = 0, InvokeAI = 0, PEFT = 264 } do
  check(of == 264 and loads[program] == n, "peft", program, loads[program], n)
end
-- Small files: who reads which algorithm and which names.
local function count(case)
  local model, by = case == "omi" and open.sdxl or open.sd1, {}
  for _, row in ipairs(consumers.count(file.read(path_of(case), keys.index(model)).adapters)) do
    by[row.program] = row.loads or -1
  end
  return by
end
for case, want in pairs { lycoris_full = { A1111 = 5, ComfyUI = 5, ["sd-scripts"] = 0, diffusers = 0,
    ["sd.cpp"] = -1 },
  comfy = { ComfyUI = 6, A1111 = 0, diffusers = 0, InvokeAI = 0 }, ldm = { ComfyUI = 3, A1111 = 3, ["sd-scripts"] = 0,
    diffusers = 0 },
  omi = { InvokeAI = 5, ComfyUI = 0, A1111 = 0 }, magnitude = { ComfyUI = 0, A1111 = 0 },
  peft_lokr = { PEFT = 3, ComfyUI = 0 }, named = { PEFT = 2 } } do
  local by = count(case)
  for program, n in pairs(want) do check(by[program] == n, case, program, by[program], n) end
end

-- ---- a file's own identity, whatever it was made from -------------------------------------------------------------

local old = scratch .. "/old.safetensors"
core.export(old, "safetensors", { { layer .. ".lora_down.weight", t(3, 24) }, { layer .. ".lora_up.weight", t(24, 3) },
  { layer .. ".alpha", t() }, { "lora_unet_conv_in.lora_down.weight", t(2, 4, 3, 3) },
  { "lora_unet_conv_in.lora_up.weight", t(8, 2, 1, 1) } }, { ss_output_name = "somebody", sshs_model_hash = "0",
  sshs_legacy_hash = "0", ["modelspec.title"] = "somebody", ["modelspec.hash_sha256"] = "0x0", ss_network_dim = "99",
  ss_network_args = '{"conv_dim": "77", "algo": "lora"}', ss_training_comment = "kept" })
for to, path in pairs { kohya = "/mine.safetensors", diffusers = "/mine2.safetensors", peft = "/mine3" } do
  adapters.convert(old, scratch .. path, { base = "tests/golden/tiny_sd1/model_ldm.safetensors", dtype = "keep",
    to = to })
  local written = scratch .. path .. (to == "peft" and "/unet/adapter_model.safetensors" or "")
  local meta, name = core.load(written):meta(), path:match "mine%d?"
  local args = core.json_decode(meta.ss_network_args)
  check(meta.ss_output_name == name and meta["modelspec.title"] == name, to, "name", meta.ss_output_name)
  check(meta.ss_network_dim == "3" and args.conv_dim == "2" and args.conv_alpha == "2" and args.algo == "lora", to,
    "ranks", meta.ss_network_dim, meta.ss_network_args)
  local data = 8 + ("<I8"):unpack(core.read_part(written, 0, 8))
  check(meta.sshs_model_hash == core.sha256_file(written, data), to, "hash")
  check(meta["modelspec.hash_sha256"] == "0x" .. meta.sshs_model_hash and meta.ss_training_comment == "kept", to,
    "the rest")
end

core.remove_tree(scratch)
print(("%d tensors, worst relative error %.2g"):format(count and #expected:names(), worst))
T.finish()
