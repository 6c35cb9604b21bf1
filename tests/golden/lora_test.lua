-- SPDX-License-Identifier: MIT
-- LoRA files in every spelling, merged into a model: the weights on the device against sums written out here in
-- float64, and what networks compute against recorded outputs of peft and diffusers.
-- Runs as `burin run --trust tests/golden/lora_test.lua` from the repository root.
local core = require "burin.core"
local errors = require "burin.base.errors"
local file = require "burin.adapters.file"
local names = require "burin.adapters.keys"
local models = require "burin.models.model"

local T = dofile "tests/check.lua"
local check = T.check

local temporary = os.tmpname()
local RANK, ALPHA = 3, 1.5

-- ---- adapters with random factors, and what they add, element by element ------------------------

local stream = 0
local function random(...)
  stream = stream + 1
  return core.tensor({ ... }, "f32"):fill_normal(17, stream, 0.4)
end

-- An accessor at(t, i, j, ...) of 0-based positions.
local function at(t)
  local values, s = t:table(), t.shape
  return function(...)
    local k, index = 0, { ... }
    for d = 1, #s do k = k * s[d] + (index[d] or 0) end
    return values[k + 1]
  end
end

local function sum(n, f)
  local x = 0.0
  for i = 0, n - 1 do x = x + f(i) end
  return x
end

local scale = ALPHA / RANK
local formats = {}

-- Each: layer { outputs, inputs, kernel } -> { part name = tensor }, f(o, i, h, w)
function formats.lora(l)
  local k = l.kernel
  local down = k > 1 and random(RANK, l.inputs, k, k) or random(RANK, l.inputs)
  local up = k > 1 and random(l.outputs, RANK, 1, 1) or random(l.outputs, RANK)
  local d, u = at(down), at(up)
  return { down = down, up = up }, function(o, i, h, w)
    return scale * sum(RANK, function(r) return u(o, r) * d(r, i, h, w) end)
  end
end

function formats.mid(l)
  local down, up, mid = random(RANK, l.inputs, 1, 1), random(l.outputs, RANK, 1, 1),
    random(RANK, RANK, l.kernel, l.kernel)
  local d, u, m = at(down), at(up), at(mid)
  return { down = down, up = up, mid = mid }, function(o, i, h, w)
    return scale * sum(RANK, function(a)
      return sum(RANK, function(b) return u(o, a) * m(a, b, h, w) * d(b, i) end)
    end)
  end
end

function formats.loha(l)
  local n = l.inputs * l.kernel ^ 2 // 1 | 0
  local p = { w1_a = random(l.outputs, RANK), w1_b = random(RANK, n), w2_a = random(l.outputs, RANK),
    w2_b = random(RANK, n) }
  local a1, b1, a2, b2 = at(p.w1_a), at(p.w1_b), at(p.w2_a), at(p.w2_b)
  return p, function(o, i, h, w)
    local c = (i * l.kernel + h) * l.kernel + w
    return scale * sum(RANK, function(r) return a1(o, r) * b1(r, c) end) * sum(RANK,
      function(r) return a2(o, r) * b2(r, c) end)
  end
end

function formats.loha_tucker(l)
  local k = l.kernel
  local p = { w1_a = random(RANK, l.outputs), w1_b = random(RANK, l.inputs), t1 = random(RANK, RANK, k, k),
    w2_a = random(RANK, l.outputs), w2_b = random(RANK, l.inputs), t2 = random(RANK, RANK, k, k) }
  local function factor(t, a, b)
    t, a, b = at(t), at(a), at(b)
    return function(o, i, h, w)
      return sum(RANK, function(x) return sum(RANK, function(y) return t(x, y, h, w) * a(x, o) * b(y, i) end) end)
    end
  end
  local f, g = factor(p.t1, p.w1_a, p.w1_b), factor(p.t2, p.w2_a, p.w2_b)
  return p, function(...) return scale * f(...) * g(...) end
end

local function kron(l, w1, w2, factor)
  local r, s = l.outputs // 2, l.inputs // 2
  return function(o, i, h, w) return factor * w1(o // r, i // s) * w2(o % r, i % s, h, w) end
end

function formats.lokr(l)  -- both whole: no scale
  local k = l.kernel
  local p = { k1 = random(2, 2), k2 = k > 1 and random(l.outputs // 2, l.inputs // 2, k, k) or random(l.outputs // 2,
    l.inputs // 2) }
  return p, kron(l, at(p.k1), at(p.k2), 1)
end

function formats.lokr_factors(l)
  local taps = l.kernel ^ 2 // 1 | 0
  local p = { k1_a = random(2, RANK), k1_b = random(RANK, 2), k2_a = random(l.outputs // 2, RANK),
    k2_b = random(RANK, l.inputs // 2 * taps) }
  local a1, b1, a2, b2 = at(p.k1_a), at(p.k1_b), at(p.k2_a), at(p.k2_b)
  return p, kron(l, function(x, y) return sum(RANK, function(r) return a1(x, r) * b1(r, y) end) end,
    function(x, y, h, w)
    return sum(RANK, function(r) return a2(x, r) * b2(r, (y * l.kernel + h) * l.kernel + w) end)
  end, scale)
end

function formats.lokr_tucker(l)
  local p = { k1 = random(2, 2), k2_a = random(RANK, l.outputs // 2), k2_b = random(RANK, l.inputs // 2),
    kt = random(RANK, RANK, l.kernel, l.kernel) }
  local t, a, b = at(p.kt), at(p.k2_a), at(p.k2_b)
  return p, kron(l, at(p.k1), function(x, y, h, w)
    return sum(RANK, function(i) return sum(RANK, function(j) return t(i, j, h, w) * a(i, x) * b(j, y) end) end)
  end, scale)
end

function formats.diff(l)
  local k = l.kernel
  local p = { diff = k > 1 and random(l.outputs, l.inputs, k, k) or random(l.outputs, l.inputs) }
  local d = at(p.diff)
  return p, function(...) return d(...) end
end

-- DoRA on top of plain LoRA; which: "dora" per output or per input, "magnitude" (PEFT) per output
local function dora(which, by_input)
  return function(l)
    local p, plain = formats.lora(l)
    local n = by_input and l.inputs or l.outputs
    local m = random(n):affine(1, 2)
    local s = { n }
    if which == "dora" and by_input then s = l.kernel > 1 and { 1, n, 1, 1 } or { 1, n }
    elseif which == "dora" then s = l.kernel > 1 and { n, 1, 1, 1 } or { n, 1 } end
    p[which] = m:reshape(s)
    local mag, norms = at(m), {}
    local function norm(o, i, merged)
      local square = 0.0
      for x = 0, (by_input and l.outputs or l.inputs) - 1 do
        for y = 0, l.kernel - 1 do
          for z = 0, l.kernel - 1 do
            local v = by_input and merged(x, i, y, z) or merged(o, x, y, z)
            square = square + v * v
          end
        end
      end
      return math.sqrt(square)
    end
    return p, function(o, i, h, w, weight)
      local function merged(...) return weight(...) + plain(...) end
      local line = by_input and i or o
      norms[line] = norms[line] or norm(o, i, merged)
      return merged(o, i, h, w) * mag(line) / norms[line] - weight(o, i, h, w)
    end
  end
end
formats.dora, formats.dora_input, formats.dora_peft = dora("dora"), dora("dora", true), dora "magnitude"

-- ---- spellings ------------------------------------------------------------------------------------

local kohya_ends = {}
for tail, part in pairs(names.parts) do
  if not tail:match "%.default%." and not tail:match "^%.lora_[AB]%." and not tail:match "^%.lora%."
    and not tail:match "lora_linear" and part ~= "magnitude" then kohya_ends[part] = tail end
end

-- file name parts: layer, part, model -> key; alpha: whether the spelling can say it
local spellings = {
  kohya = { alpha = true, key = function(l, part, map) return map:kohya(l.component,
    l.module) .. kohya_ends[part] end },
  kohya_diffusers = { alpha = true, key = function(l, part)
    local prefix = ({ unet = "lora_unet_", text_encoder = "lora_te1_", text_encoder_2 = "lora_te2_" })[l.component]
    return prefix .. l.module:gsub("%.", "_") .. kohya_ends[part]
  end },
  diffusers = { key = function(l, part)
    local tail = { down = ".lora_A.weight", up = ".lora_B.weight", magnitude = ".lora_magnitude_vector" }
    return l.component .. "." .. l.module .. tail[part]
  end },
  old_diffusers = { key = function(l, part)
    return l.component .. "." .. l.module .. (l.component == "unet" and ".lora." or ".lora_linear_layer.") .. part
      .. ".weight"
  end },
  peft = { key = function(l, part)
    local tail = { down = ".lora_A.weight", up = ".lora_B.weight", magnitude = ".lora_magnitude_vector.weight" }
    return "base_model.model." .. l.module .. tail[part]
  end },
  processors = { key = function(l, part)
    local attention, which = l.module:match "^(.*)%.(to_%a+)"
    return attention .. ".processor." .. which .. "_lora." .. part .. ".weight"
  end },
}

-- ---- the check --------------------------------------------------------------------------------------

local function linear(l) return l.kernel == 1 end
local function attention(l) return l.component == "unet" and l.module:match "%.to_%a+[.0]*$" ~= nil end

-- An adapter file for some layers -> { [component.module] = f }
local function write(path, map, layers, format, spelling)
  local list, expected = {}, {}
  for _, l in ipairs(layers) do
    local parts, f = formats[format](l)
    for part, t in pairs(parts) do list[#list + 1] = { spellings[spelling].key(l, part, map), t } end
    if format ~= "diff" then
      list[#list + 1] = { spellings.kohya.key(l, "alpha", map), core.tensor({}, "f32", ALPHA) }
      if not spellings[spelling].alpha then list[#list] = nil end
      if spelling == "kohya_diffusers" then list[#list][1] = spellings[spelling].key(l, "alpha", map) end
    end
    expected[l.component .. "." .. l.module] = f
  end
  core.export(path, "safetensors", list, {})
  return expected
end

local function pick(all, wanted, n)
  local list = {}
  for _, l in ipairs(all) do if wanted(l) then list[#list + 1] = l end end
  local out = {}
  for i = 1, math.min(n, #list) do out[i] = list[1 + (i - 1) * #list // n] end
  return out
end

-- Opens the model with LoRAs and compares every weight: adapted ones with W + sum strength f, others with W.
local worst = 0
local function compare(label, path, loras, expected)
  local model, plain = models.open(path, { patch = file.patch(loras) }), models.open(path)
  model:declare { "text", "unet" }
  core.commit()
  model:load()
  local seen, changed = 0, 0
  for _, component in ipairs(model:components()) do
    local read = plain:reader(component.name)
    for _, item in ipairs(component:export "f32") do
      local base, have = read(item[1]):cast "f32", item[2]
      local fs = {}
      for i, list in ipairs(expected) do fs[i] = list[component.name .. "." .. item[1]:gsub("%.weight$", "")] end
      if next(fs) then
        local s, w, e, k = base.shape, at(base), {}, 0
        for o = 0, s[1] - 1 do
          for i = 0, s[2] - 1 do
            for h = 0, (s[3] or 1) - 1 do
              for x = 0, (s[4] or 1) - 1 do
                k = k + 1
                local v = w(o, i, h, x)
                for n, f in pairs(fs) do v = v + loras[n].scale * f(o, i, h, x, w) end
                e[k] = v
              end
            end
          end
        end
        local distance, norm = have:distance(core.tensor(s, "f32", e))
        seen, worst = seen + 1, math.max(worst, distance / norm)
        check(distance <= 1e-6 * norm, label, component.name, item[1], distance / norm)
        if have:distance(base) > 1e-2 * norm then changed = changed + 1 end
      elseif base.count == have.count then
        check(have:distance(base) == 0, label, component.name, item[1], "is not the file's")
      end
    end
  end
  check(seen > 0 and changed == seen, label, seen .. " adapted, changed " .. changed)
end

local function any(l) return l.inputs % 2 == 0 and l.outputs % 2 == 0 end
local function square_kernel(l) return any(l) and l.kernel > 1 end

for _, family in ipairs { "sd1", "sd2", "sdxl" } do
  local path = "tests/golden/tiny_" .. family .. "/model_ldm.safetensors"
  local plain = models.open(path)
  local all = names.layers(plain)
  check(not plain.unet:is_declared(), family, "listing layers leaves nothing behind")
  local cases = { { "lora", "kohya", any }, { "lora", "diffusers", linear }, { "lora", "old_diffusers", linear },
    { "lora", "processors", attention } }
  if family == "sdxl" then cases[#cases + 1] = { "lora", "kohya_diffusers", any }
  else cases[#cases + 1] = { "lora", "peft", linear } end
  if family == "sd1" then
    for _, f in ipairs { "loha", "lokr", "lokr_factors", "diff", "dora", "dora_input" } do
      cases[#cases + 1] = { f, "kohya", any }
    end
    for _, f in ipairs { "mid", "loha_tucker", "lokr_tucker" } do cases[#cases + 1] = { f, "kohya", square_kernel } end
    cases[#cases + 1] = { "dora_peft", "diffusers", linear }
    cases[#cases + 1] = { "dora_peft", "peft", linear }
  end
  for _, c in ipairs(cases) do
    scale = spellings[c[2]].alpha and ALPHA / RANK or 1  -- no alpha: it is the rank
    local expected = write(temporary, plain.map, pick(all, c[3], 4), c[1], c[2])
    compare(family .. " " .. c[1] .. " " .. c[2], path, { { path = temporary, scale = 0.7 } }, { expected })
  end
end

-- Three at once, each at its scale, one of them negative; DoRA among them changes the norm of the plain weight.
local path = "tests/golden/tiny_sd1/model_ldm.safetensors"
local plain = models.open(path)
local layers = pick(names.layers(plain), any, 5)
local loras, expected, files = {}, {}, {}
for i, format in ipairs { "lora", "loha", "dora" } do
  files[i] = os.tmpname()
  scale = ALPHA / RANK
  local lists = write(files[i], plain.map, layers, format, "kohya")
  loras[i], expected[i] = { path = files[i], scale = ({ 0.8, -0.5, 1.0 })[i] }, lists
end
compare("three at once", path, loras, expected)

-- ---- files that peft and diffusers wrote, with what those compute (tests/oracle/compare.py --golden) ---------

local compute = dofile "tests/oracle/networks.lua"
local foreign = core.list "tests/golden/foreign"
for _, name in ipairs(foreign) do
  local folder = "tests/golden/foreign/" .. name
  local io = core.load(folder .. "/io.safetensors")
  local out = compute(path, { { path = folder, scale = 1 } },
    { read = function(_, key) return io:read("in." .. key) end })
  local without = compute(path, nil, { read = function(_, key) return io:read("in." .. key) end })
  for _, key in ipairs { "context", "noise" } do
    local want = io:read("out." .. key)
    local distance, norm = out[key]:distance(want)
    print(("%s: %s %.2g"):format(name, key, distance / norm))
    check(distance <= 1e-4 * norm, name, key, distance / norm)
    check(without[key]:distance(want) > 1e-2 * norm, name, key, "does not depend on the adapter")
  end
end
check(#foreign == 3, "three files of others", #foreign)

-- ---- what cannot be applied is said ---------------------------------------------------------------

local function refused(label, list, pattern, target)
  core.export(temporary, "safetensors", list, {})
  local model = models.open(target or path, { patch = file.patch { { path = temporary, scale = 1 } } })
  model:declare { "unet" }
  core.commit()
  local ok, why = pcall(model.load, model)
  local text = type(why) == "table" and why.message or tostring(why)
  check(not ok and text:find(pattern) and text:find(temporary, 1, true), label, text)
  check(not ok and errors.code(why) == 65, label, "exit code")
end
local base = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
local good = { { base .. ".lora_down.weight", random(2, 24) }, { base .. ".lora_up.weight", random(24, 2) } }
local function with(...)
  local list = { table.unpack(good) }
  for _, item in ipairs { ... } do list[#list + 1] = item end
  return list
end
refused("unknown key", with { "lora_unet_nowhere.lora_down.weight", random(2, 2) },
  "1 of its 3 tensors.*lora_unet_nowhere")
refused("all unknown", { { "clip.weight", random(2, 2) } }, "none of its 1 tensors")
refused("no bias", with { base .. ".diff_b", random(24) }, "to_q, which has none in this model")
refused("half a pair", { good[1] }, "no counterpart.*'up' is missing")
refused("wrong width", { { base .. ".lora_down.weight", random(2, 20) }, { base .. ".lora_up.weight", random(24, 2) } },
  "does not fit %(24, 24%).*another size")
refused("too large", { { base .. ".lora_down.weight", random(2, 2000) }, { base .. ".lora_up.weight", random(24, 2) } },
  "larger than the layer")
refused("ranks", { { base .. ".lora_down.weight", random(2, 24) }, { base .. ".lora_up.weight", random(24, 3) } },
  "ranks of its factors")
refused("alpha", with { base .. ".alpha", random(3) }, "alpha of .* not one finite number")
refused("twice", with({ "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", random(2, 24) },
  { "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_B.weight", random(24, 2) }), "the same layer")
refused("no matrix", { { base .. ".lora_down.weight", random(24) }, good[2] }, "shape %(24%) is no part")
refused("rank 0", { { base .. ".lora_down.weight", core.tensor({ 0, 24 }, "f32") },
  { base .. ".lora_up.weight", core.tensor({ 24, 0 }, "f32") } }, "is no part of an adapter")
refused("two kinds", with { base .. ".hada_w1_a", random(24, 2) }, "parts of two kinds")
refused("middle kernel of another rank", with { base .. ".lora_mid.weight", random(3, 3, 3, 3) },
  "ranks of its factors")
refused("incomplete LoKr", { { base .. ".lokr_w1", random(2, 2) } }, "no complete adapter")
refused("other family", good, "does not fit %(32, 32%)", "tests/golden/tiny_sdxl/model_ldm.safetensors")

-- PEFT's own description is believed only where it is understood.
local copy = T.folder()
local from = "tests/golden/foreign/peft_attention/unet/"
core.write_file(copy .. "/adapter_model.safetensors", core.read_file(from .. "adapter_model.safetensors"))
local text = core.read_file(from .. "adapter_config.json")
local file = require "burin.adapters.file"
local index = names.index(models.open(path))
for _, c in ipairs { { '"peft_type": "LORA"', '"peft_type": "BOFT"', "peft_type BOFT cannot" },
  { '"fan_in_fan_out": false', '"fan_in_fan_out": true', "fan_in_fan_out" },
  { '"lora_alpha": 3', '"lora_alpha": "x"', "is not a number" }, { "mid_block.attentions", "mid_block[.]attentions",
    "regular expressions" },
  { '"alpha_pattern": {', '"alpha_pattern": 5, "x": {', "alpha_pattern is no object" },
  { '"alpha_pattern": {', '"alpha_pattern": ["a b"], "x": {', "regular expressions" },
  { "{", "{{", "adapter_config.json" } } do
  local changed, n = text:gsub(c[1]:gsub("%p", "%%%0"), (c[2]:gsub("%%", "%%%%")), 1)
  core.write_file(copy .. "/adapter_config.json", changed)
  local ok, why = pcall(file.read, copy, index)
  local said = type(why) == "table" and why.message or tostring(why)
  check(n == 1 and not ok and said:find(c[3], 1, true) and errors.code(why) == 65, "adapter_config", c[2], said)
end
core.export(copy .. "/meta.safetensors", "safetensors", good, { lora_adapter_metadata = "5" })
local ok, why = pcall(file.read, copy .. "/meta.safetensors", index)
check(not ok and type(why) == "table" and why.message:find "lora_adapter_metadata is no object",
  "metadata that is a number", why)
core.remove_tree(copy)

for _, name in ipairs(files) do os.remove(name) end
os.remove(temporary)
print(("worst relative error %.2g"):format(worst))
T.finish()
