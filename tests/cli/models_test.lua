-- SPDX-License-Identifier: MIT
-- Base models that are not as most are: 8-bit floats, with scales or without. Plain Lua 5.4, from the repository root:
-- lua5.4 tests/cli/models_test.lua BURIN SCRATCH
package.path = "tests/recipes/?.lua;tests/cli/?.lua;" .. package.path
local T = require "support"
local weights = require "weights"
T.private_cache()
T.in_one_process()
local folder = T.folder "models"
local tiny, meta = weights.read "models/tiny-sd.safetensors"

local function at(name) return folder .. "/" .. name end
local function burin(line, ...) return T.run(line:format(...)) end
local function write(name, f) weights.write(at(name), weights.map(tiny, f), meta) end

-- code: the exit code wanted; further arguments: plain texts that must be in what it printed
local function expect(code, line, ...)
  local have, out = T.run(line)
  T.check(have == code, "%s: exit code %d instead of %d: %s", line, have, code, out)
  for _, text in ipairs { ... } do T.check(out:find(text, 1, true), "%s: no '%s' in: %s", line, text, out) end
  T.check(not out:find "attempt to" and not out:find "internal error", "%s: %s", line, out)
  return out
end

local function recipe(name, base)
  return T.recipe(name, { base = ("burin.model %s"):format(base), steps = "2", name = ('"%s"'):format(name) })
end
local function train(path) return ("train %s --output %s"):format(path, at "runs") end

-- { [name] = tensor } of a file
local function by_name(path)
  local all = {}
  for _, t in ipairs((weights.read(path))) do all[t.name] = t end
  return all
end

-- ---- 8-bit floats -------------------------------------------------------------------------------------------------

local function is_unet(t) return t.name:find "^model%.diffusion_model%." end

for _, dtype in ipairs { "F8_E4M3", "F8_E5M2" } do
  local name = dtype:lower()
  write(name, function(t)
    return is_unet(t) and weights.with(t, { dtype = dtype, data = weights.to_eight(t.data, dtype) }) or t
  end)
  -- All 256 codes but those that are no number, as a norm's weight of a file of its own.
  local values, codes, halves = weights.eight(dtype), {}, {}
  for c = 0, 255 do
    if values[c] - values[c] == 0 then
      codes[#codes + 1], halves[#halves + 1] = string.char(c), ("<I2"):pack(weights.half(values[c]))
    end
  end
  local code_bytes, half_bytes, first = table.concat(codes), table.concat(halves), nil
  local eight = weights.map(weights.read(at(name)), function(t)
    if not first and is_unet(t) and #t.data >= #code_bytes then
      first = t.name
      return weights.with(t, { data = code_bytes .. t.data:sub(#code_bytes + 1) })
    end
    return t
  end)
  weights.write(at(name), eight, meta)
  os.rename(at(name), at(name .. ".safetensors"))
  expect(0, ("convert %s.safetensors %s-f16.safetensors --dtype f16"):format(at(name), at(name)))
  local converted = by_name(at(name .. "-f16.safetensors"))
  T.check(converted[first].dtype == "F16" and converted[first].data:sub(1, #half_bytes) == half_bytes,
    "%s: its values are not what they are as f16", name)
  expect(0, ("convert %s.safetensors %s-f32.safetensors --dtype f32"):format(at(name), at(name)))
  for _, t in pairs(by_name(at(name .. "-f32.safetensors"))) do
    T.check(t.dtype == "F32", "%s: %s is %s after --dtype f32", name, t.name, t.dtype)
  end
  expect(0, ("convert %s.safetensors %s-same.safetensors"):format(at(name), at(name)))
  local kept = by_name(at(name .. "-same.safetensors"))
  for _, t in ipairs(eight) do
    T.check(kept[t.name].dtype == t.dtype and kept[t.name].data == t.data, "%s: %s was not kept", name, t.name)
  end
  -- A file of 8 bits and the same in 16 bits are one model.
  local drawn = {}
  for i, file in ipairs { name, name .. "-f16" } do
    expect(0, ("sample %s.safetensors --prompt 'a cat' --steps 2 --out %s"):format(at(file), at(file)))
    drawn[i] = T.read(at(file) .. "/00001.png")
  end
  local function pixels(png) return png and png:match "IDAT.*" end
  T.check(drawn[1] and pixels(drawn[1]) == pixels(drawn[2]), "%s draws other pictures than as f16", name)
end
local out = expect(0, ("inspect --values %s"):format(at "f8_e4m3.safetensors"), "f8_e4m3")
T.check(not out:find "nan" and not out:find "NOT FINITE", "values of 8-bit floats: %s", out)
expect(0, ("plan %s"):format(recipe("eight", ('"%s"'):format(at "f8_e4m3.safetensors"))))
out = expect(0, train(recipe("eight", ('"%s"'):format(at "f8_e5m2.safetensors"))))
T.check(not out:find "nan" and not out:find "diverged", "training on 8-bit floats: %s", out)

-- ---- with scales ---------------------------------------------------------------------------------------------------

local function scalar(name, v) return { name = name, dtype = "F32", shape = "", data = ("<f"):pack(v) } end

-- Linear layers of the U-Net in 8 bits, each with its scale, as ComfyUI writes them.
local function is_matrix(t) return is_unet(t) and t.name:find "%.weight$" and t.shape:find "^%d+, *%d+$" end
local function scaled(name, word, more)
  local rest = { table.unpack(more or {}) }
  weights.write(at(name), weights.map(tiny, function(t)
    local list = {}
    if is_matrix(t) then
      list[1] = weights.with(t, { dtype = "F8_E4M3", data = weights.to_eight(t.data, "F8_E4M3") })
      list[2] = scalar(t.name:gsub("weight$", word), 0.5)
    else
      list[1] = t
    end
    for _, extra in ipairs(rest) do list[#list + 1] = extra end
    rest = {}
    return list
  end), meta)
end
local mark = { name = "model.diffusion_model.scaled_fp8", dtype = "F8_E4M3", shape = "2", data = "\0\0" }
scaled("scaled.safetensors", "scale_weight", { mark })
scaled("scaled2.safetensors", "weight_scale")
-- The same with twice the weights is the unscaled file: halves of 8-bit floats are f16 still.
for _, name in ipairs { "scaled", "scaled2" } do
  expect(0, ("convert %s.safetensors %s-f32.safetensors --dtype f32"):format(at(name), at(name)))
  local have, values, n = by_name(at(name .. "-f32.safetensors")), weights.eight "F8_E4M3", 0
  for _, t in ipairs(tiny) do
    if is_matrix(t) then
      local want = weights.to_eight(t.data, "F8_E4M3"):gsub(".", function(c)
        return ("<f"):pack(values[c:byte()] * 0.5)
      end)
      T.check(have[t.name].data == want, "%s: %s is not 8 bits times its scale", name, t.name)
      T.check(not have[t.name:gsub("weight$", "scale_weight")], "%s: a scale was written beside its product", name)
      n = n + 1
    end
  end
  T.check(n > 10, "%d scaled matrices", n)
end
expect(65, ("convert %s %s"):format(at "scaled.safetensors", at "kept.safetensors"), "with a scale", "--dtype f16")
expect(0, ("sample %s --prompt 'a cat' --steps 1 --out %s"):format(at "scaled.safetensors", at "drawn"))

-- Scales that are not read are refused, and which they are is said.
local some
for _, t in ipairs(tiny) do some = some or is_matrix(t) and t.name end
local function bad(name, extra, ...)
  weights.write(at(name), weights.map(tiny, function(t)
    if t.name ~= some then return t end
    return { weights.with(t, { dtype = "F8_E4M3", data = weights.to_eight(t.data, "F8_E4M3") }), extra }
  end), meta)
  expect(65, ("sample %s --prompt a --steps 1 --out %s"):format(at(name), at "bad"), at(name), ...)
end
local layer = some:gsub("weight$", "")
bad("rows.safetensors", { name = layer .. "weight_scale", dtype = "F32", shape = "2", data = ("<ff"):pack(1, 1) },
  layer .. "weight_scale", "one number for the whole")
bad("zero.safetensors", scalar(layer .. "scale_weight", 0), layer .. "scale_weight", "above 0")
bad("stray.safetensors", scalar("no.such.layer.scale_weight", 1), "there is no no.such.layer.weight")
local how = '{"format": "nvfp4"}'
bad("packed.safetensors", { name = layer .. "comfy_quant", dtype = "U8", shape = tostring(#how), data = how }, "nvfp4")

-- ---- models that are not whole, or of another kind -----------------------------------------------------------------

-- What is wrong is said alike by plan, train and sample, and inspect names it.
local function not_for_use(name, f, inspected, ...)
  write(name, f)
  expect(0, ("inspect --summary %s"):format(at(name)), inspected)
  local path = recipe("whole", ('"%s"'):format(at(name)))
  for _, line in ipairs { "plan " .. path, train(path),
    ("sample %s --prompt a --steps 1 --out %s"):format(at(name), at "none") } do
    expect(65, line, at(name), ...)
  end
end
local function without(pattern)
  return function(t) return not t.name:find(pattern) and t or nil end
end
not_for_use("no-vae.safetensors", without "^first_stage_model", "not there", "without a VAE")
not_for_use("no-text.safetensors", without "^cond_stage_model", "not there", "without a text encoder")
not_for_use("unet-only.safetensors", function(t) return is_unet(t) and t or nil end, "not whole",
  "without a VAE and a text encoder")
local last = "model.diffusion_model.out.2.weight"
not_for_use("lacks.safetensors", function(t) return t.name ~= last and t or nil end, last, "1 tensor is missing", last)
not_for_use("whole-number.safetensors", function(t)
  return t.name == last and weights.with(t, { dtype = "I16" }) or t
end, last .. " in the file) is i16", last, "a float is expected")
local inpaint
not_for_use("inpainting.safetensors", function(t)
  if t.name ~= "model.diffusion_model.input_blocks.0.0.weight" then return t end
  local out, inputs = t.shape:match "^(%d+), *(%d+)"
  local kernel, row = 2 * 9, inputs * 9 * 2
  inpaint = t.data:gsub(("."):rep(row), function(rows) return rows .. ("\0"):rep((inputs + 1) * kernel) end)
  return weights.with(t, { shape = ("%d,%d,3,3"):format(out, 2 * inputs + 1), data = inpaint })
end, "an inpainting model (33 input channels)", "an inpainting model", "33 input channels")
out = expect(0, ("inspect --json --summary %s"):format(at "no-vae.safetensors"))
T.check(out:find '"lacks": ?%["vae"%]', "inspect --json: %s", out:sub(-600))

-- ---- completed from other files ------------------------------------------------------------------------------------

local function same_picture(label, line)
  expect(0, ("sample %s --prompt 'a cat' --steps 2 --out %s"):format(line, at "again"))
  local png = T.read(at "again/00001.png")
  T.check(png:match "IDAT.*" == T.read(at "first/00001.png"):match "IDAT.*", "%s draws another picture", label)
  return png
end
expect(0, ("sample models/tiny-sd.safetensors --prompt 'a cat' --steps 2 --out %s"):format(at "first"))
local tiny_file = "models/tiny-sd.safetensors"
local png = same_picture("a VAE of a whole model", ("%s --vae %s"):format(at "no-vae.safetensors", tiny_file))
T.check(png:find("VAE: tiny-sd.safetensors", 1, true), "the picture does not name its VAE")
same_picture("a text encoder", ("%s --text-encoder %s"):format(at "no-text.safetensors", tiny_file))
-- By themselves, without the prefix of the whole file; then both from a folder of diffusers.
local function alone(name, prefix)
  weights.write(at(name), weights.map(tiny, function(t)
    return t.name:find(prefix, 1, true) == 1 and weights.with(t, { name = t.name:sub(#prefix + 1) }) or nil
  end), meta)
end
alone("vae.safetensors", "first_stage_model.")
alone("clip.safetensors", "cond_stage_model.transformer.")
same_picture("parts by themselves", ("%s --vae %s --text-encoder %s"):format(at "unet-only.safetensors",
  at "vae.safetensors", at "clip.safetensors"))
expect(0, ("convert %s %s"):format(tiny_file, at "folder"))
same_picture("parts of a folder", ("%s --vae %s --text-encoder %s"):format(at "unet-only.safetensors", at "folder",
  at "folder/text_encoder"))

expect(0, ("convert %s %s --vae %s"):format(at "no-vae.safetensors", at "added.safetensors", at "vae.safetensors"))
local added = by_name(at "added.safetensors")
for _, t in ipairs(tiny) do T.check(added[t.name] and added[t.name].data == t.data, "convert --vae: %s", t.name) end
same_picture("what convert --vae wrote", at "added.safetensors")

local completed = ('{ "%s", vae = "%s", text_encoder = "%s" }'):format(at "unet-only.safetensors", at "vae.safetensors",
  at "clip.safetensors")
local path = recipe("completed", completed)
expect(0, "plan " .. path)
expect(0, train(path))
local said = select(2, weights.read(at "runs/completed/completed.safetensors"))
for _, text in ipairs { '"ss_vae_name":"vae.safetensors"', "ss_new_vae_hash",
  '"burin.text_encoder":"clip.safetensors"' } do
  T.check(said:find(text, 1, true), "the LoRA does not say %s", text)
end
local whole = by_name(at "runs/completed/completed.safetensors")
expect(0, train(recipe("plain", '"models/tiny-sd.safetensors"')))
for name, t in pairs(by_name(at "runs/plain/plain.safetensors")) do
  T.check(whole[name] and whole[name].data == t.data, "a completed base trains differently: %s", name)
end
path = T.recipe("field", { base = ('burin.model "%s"'):format(at "no-vae.safetensors"), steps = "1",
  vae = ('"%s"'):format(at "vae.safetensors"), name = '"field"' })
expect(0, "plan " .. path)
path = recipe("wrong", ('{ "%s", vea = "x" }'):format(tiny_file))
expect(78, "plan " .. path, "vea", "vae")
expect(78, "plan " .. recipe("wrong", "{ vae = 'x' }"), "file")
expect(66, ("sample %s --vae nowhere --prompt a --out %s"):format(tiny_file, at "none"), "nowhere", "VAE")
expect(65, ("sample %s --vae %s --prompt a --out %s"):format(tiny_file, at "clip.safetensors", at "none"), "no VAE")

-- ---- numbers that are none -----------------------------------------------------------------------------------------

-- One element of the last tensor of a component, in the middle of its file.
for i, case in ipairs { { "model.diffusion_model.out.2.weight", "unet.conv_out.weight", 0x7e00 },
  { "first_stage_model.decoder.conv_out.bias", "vae.decoder.conv_out.bias", 0xfc00 },
  { "cond_stage_model.transformer.text_model.final_layer_norm.weight",
    "text_encoder.text_model.final_layer_norm.weight", 0x7c00 } } do
  local name = ("not-finite-%d.safetensors"):format(i)
  write(name, function(t)
    if t.name ~= case[1] then return t end
    return weights.with(t, { data = t.data:sub(1, -3) .. ("<I2"):pack(case[3]) })
  end)
  expect(65, ("sample %s --prompt a --steps 1 --out %s"):format(at(name), at "none"), at(name), case[2], "NaN")
  if i == 1 then expect(65, train(recipe("none", ('"%s"'):format(at(name)))), at(name), case[2]) end
end
write("not-finite-8.safetensors", function(t)
  return t.name == last and weights.with(t, { dtype = "F8_E4M3", data = ("\127"):rep(#t.data // 2) }) or t
end)
expect(65, ("sample %s --prompt a --steps 1 --out %s"):format(at "not-finite-8.safetensors", at "none"),
  "unet.conv_out")

T.finish()
