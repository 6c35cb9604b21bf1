-- SPDX-License-Identifier: MIT
-- Converting, merging, extracting and resizing, on the tiny models: what comes out is compared number by number.
-- Runs as `burin run --trust tests/golden/tools_test.lua` from the repository root.
require("burin.base.progress").quiet = true
local convert = require "burin.models.io.convert"
local core = require "burin.core"
local errors = require "burin.base.errors"
local file = require "burin.adapters.file"
local layout = require "burin.models.io.layout"
local metadata = require "burin.adapters.metadata"
local names = require "burin.adapters.keys"
local models = require "burin.models.model"
local adapters = require "burin.adapters.convert"
local extract = require "burin.adapters.extract"
local merge = require "burin.adapters.merge"
local resize = require "burin.adapters.resize"

local T = dofile "tests/check.lua"
local check = T.check

local scratch = T.folder()
local function at(name) return scratch .. "/" .. name end
local function ldm(family) return "tests/golden/tiny_" .. family .. "/model_ldm.safetensors" end
local function recorded(family) return "tests/golden/tiny_" .. family .. "/lora_after_step3.safetensors" end

local function refused(label, code, pattern, f, ...)
  local ok, why = pcall(f, ...)
  local text = type(why) == "table" and why.message or tostring(why)
  check(not ok and text:find(pattern), label, text)
  check(not ok and errors.code(why) == code, label, "exit code", errors.code(why))
end

-- { [component.name] = tensor } of a checkpoint in either layout
local function weights(path)
  local model = models.open(path)
  local items, extras = layout.items(model.files, model.map)
  local list = {}
  for _, item in ipairs(items) do list[item.component .. "." .. item.name] = item.read() end
  return list, model, #items + #extras
end

local function same(label, a, b)
  local wrong, n = 0, 0
  for name, t in pairs(a) do
    n = n + 1
    local u = b[name]
    if not u or u.dtype ~= t.dtype or table.concat(u.shape, ",") ~= table.concat(t.shape,
      ",") or u:bytes() ~= t:bytes() then wrong = wrong + 1 end
  end
  for name in pairs(b) do if not a[name] then wrong = wrong + 1 end end
  check(wrong == 0 and n > 900, label, wrong .. " of " .. n .. " tensors differ")
end

local function same_config(label, a, b)
  local function plain(c)
    local copy = core.json_decode(core.json_encode(c))
    copy.vae.downsample, copy.unet.checkpoint, copy.sample_size = nil, nil, nil
    return core.json_encode(copy)
  end
  check(plain(a) == plain(b), label, plain(a), plain(b))
end

local function keep(o)
  local all = { dtype = "keep", extras = true }
  for k, v in pairs(o or {}) do all[k] = v end
  return all
end

-- ---- checkpoints: there and back ------------------------------------------------------------------------

for _, family in ipairs { "sd1", "sd2", "sdxl" } do
  local source = ldm(family)
  convert.run(source, at(family), keep())
  convert.run(at(family), at(family .. "_back.safetensors"), keep())
  check(metadata.data_hash(source) == metadata.data_hash(at(family .. "_back.safetensors")), family,
    "single, folder, single")
  local original, model = weights(source)
  local folder, other = weights(at(family))
  for name in pairs(original) do
    if name:match "position_ids" then original[name] = nil end
  end
  same(family .. " folder", original, folder)
  same_config(family .. " configuration", model.config, other.config)

  convert.run(source, at(family .. "_f16.safetensors"), keep { dtype = "f16" })
  convert.run(at(family), at(family .. "_f16"), keep { dtype = "f16" })
  local a, b = weights(at(family .. "_f16.safetensors")), weights(at(family .. "_f16"))
  same(family .. " f16, both ways", a, b)
  check(a["unet.conv_in.weight"].dtype == "f16", family, "element type")
  convert.run(at(family .. "_f16"), at(family .. "_f16_back.safetensors"), keep())
  check(metadata.data_hash(at(family .. "_f16.safetensors")) == metadata.data_hash(at(family
    .. "_f16_back.safetensors")), family, "f16")
  convert.run(source, at(family .. "_bf16.safetensors"), keep { dtype = "bf16", extras = false })
  local c, _, n = weights(at(family .. "_bf16.safetensors"))
  local t, u = c["unet.conv_in.weight"], original["unet.conv_in.weight"]
  local d, norm = t:distance(u)
  check(t.dtype == "bf16" and d > 0 and d < 4e-3 * norm, family, "bf16", d / norm)
  local networks = 0
  for _ in pairs(c) do networks = networks + 1 end
  -- SD 2.x: the unused text layer
  check(n == networks + (family == "sd2" and 14 or 0), family, "without extras", n, networks)
end

-- A folder as others write it: VAE attention under its old names, the U-Net in two shards, the text encoder as .fp16.
local sd1 = at "sd1"
core.make_dirs(at "foreign/unet")
core.make_dirs(at "foreign/vae")
core.make_dirs(at "foreign/text_encoder")
local vae = core.load(sd1 .. "/vae/diffusion_pytorch_model.safetensors")
local old, list = { to_q = "query", to_k = "key", to_v = "value", ["to_out.0"] = "proj_attn" }, {}
for _, name in ipairs(vae:names()) do
  local head, part, tail = name:match "^(.*%.attentions%.0%.)(to_[%w.]+)(%.%a+)$"
  list[#list + 1] = { old[part] and head .. old[part] .. tail or name, vae:read(name) }
end
core.export(at "foreign/vae/diffusion_pytorch_model.safetensors", "safetensors", list, {})
local unet, shards, map = core.load(sd1 .. "/unet/diffusion_pytorch_model.safetensors"), { {}, {} }, {}
for i, name in ipairs(unet:names()) do
  table.insert(shards[1 + i % 2], { name, unet:read(name) })
  map[name] = ("diffusion_pytorch_model-%05d-of-00002.safetensors"):format(1 + i % 2)
end
for i, shard in ipairs(shards) do
  core.export(at(("foreign/unet/diffusion_pytorch_model-%05d-of-00002.safetensors"):format(i)), "safetensors", shard,
    {})
end
local index = at "foreign/unet/diffusion_pytorch_model.safetensors.index.json"
core.write_file(index, core.json_encode { metadata = {}, weight_map = map })
local text, text_list = core.load(sd1 .. "/text_encoder/model.safetensors"), {}
for i, name in ipairs(text:names()) do text_list[i] = { name, text:read(name) } end
core.export(at "foreign/text_encoder/model.fp16.safetensors", "safetensors", text_list, {})
for _, name in ipairs { "unet", "vae", "text_encoder" } do
  core.write_file(at("foreign/" .. name .. "/config.json"), core.read_file(sd1 .. "/" .. name .. "/config.json"))
end
convert.run(at "foreign", at "foreign.safetensors", keep())
same("old names, shards, variants", (weights(sd1)), (weights(at "foreign.safetensors")))
map["conv_in.weight"] = "../unet.safetensors"
core.write_file(index, core.json_encode { weight_map = map })
refused("a shard elsewhere", 65, "'../unet.safetensors'; a file name is expected", models.open, at "foreign")

-- A replaced VAE, from a whole model, a folder of one, a bare file under either names.
local other_vae, bare, prefixed, changed = {}, {}, {}, {}
for i, item in ipairs(list) do
  local t = item[2]:affine(1.5, 0.01, "f32")
  other_vae[i], changed["vae." .. vae:names()[i]] = { vae:names()[i], t }, t
end
core.make_dirs(at "vae")
core.export(at "vae/diffusion_pytorch_model.safetensors", "safetensors", other_vae, {})
convert.run(ldm "sd1", at "replaced.safetensors", keep { vae = at "vae" })
local replaced, plain = weights(at "replaced.safetensors"), weights(ldm "sd1")
for name, t in pairs(changed) do plain[name] = t end
same("replaced VAE", plain, replaced)
for _, name in ipairs(core.load(at "replaced.safetensors"):names()) do
  local rest = name:match "^first_stage_model%.(.*)$"
  if rest then
    local t = core.load(at "replaced.safetensors"):read(name)
    bare[#bare + 1], prefixed[#prefixed + 1] = { rest, t }, { name, t }
  end
end
core.export(at "bare.safetensors", "safetensors", bare, {})
core.export(at "prefixed.safetensors", "safetensors", prefixed, {})
for _, form in ipairs { "vae/diffusion_pytorch_model.safetensors", "bare.safetensors", "prefixed.safetensors",
  "replaced.safetensors" } do
  convert.run(ldm "sd1", at "again.safetensors", keep { vae = at(form) })
  same("VAE from " .. form, replaced, (weights(at "again.safetensors")))
end
refused("no VAE", 65, "no VAE of Stable Diffusion", convert.run, ldm "sd1", at "x.safetensors",
  keep { vae = recorded "sd1" })

-- Refusals leave nothing behind.
refused("a folder that exists", 73, "exists already", convert.run, ldm "sd1", sd1, keep())
local broken = {}
local whole = core.load(ldm "sd1")
for i, name in ipairs(whole:names()) do broken[i] = { name, whole:read(name) } end
table.remove(broken, 500)
local config = { ["burin.config"] = core.load(at "sd1_back.safetensors"):meta()["burin.config"] }
core.export(at "torso.safetensors", "safetensors", broken, config)
refused("a missing tensor", 65, "1 tensor is missing", convert.run, at "torso.safetensors", at "x", keep())
local f16 = {}
for i, name in ipairs(whole:names()) do
  f16[i] = { name, name:match "conv_in.weight" and whole:read(name):affine(1e6, 0) or whole:read(name) }
end
core.export(at "large.safetensors", "safetensors", f16, config)
local ok, why = pcall(convert.run, at "large.safetensors", at "x", keep { dtype = "f16" })
check(not ok and tostring(type(why) == "table" and why.message or why):find "infinity", "beyond f16", why)
check(not core.exists(at "x") and not core.exists(at "x.tmp-0-0") and not core.exists(at "x.safetensors"),
  "nothing is left")

-- ---- LoRAs: spellings ------------------------------------------------------------------------------------

local function random(seed, ...) return core.tensor({ ... }, "f32"):fill_normal(5, seed, 0.3) end

-- A LoRA for every recorded layer, with random factors and alpha 2.
local function make(path, family, seed)
  local source, out = core.load(recorded(family)), {}
  for i, key in ipairs(source:names()) do
    local t = source:read(key)
    out[i] = { key, key:match "%.alpha$" and core.tensor({}, "f32", 2) or random(seed * 10000 + i,
      table.unpack(t.shape)) }
  end
  core.export(path, "safetensors", out, { ss_training_comment = "made by a test" })
end

local function bake(family, loras, name)
  merge.bake(ldm(family), loras, at(name), keep())
  return (weights(at(name)))
end

-- |(a - base) - (b - base)| / |a - base| over all that changed
local function delta_distance(a, b, base)
  local d2, r2 = 0, 0
  for name, t in pairs(base) do
    local d = a[name]:distance(b[name])
    local r = a[name]:distance(t)
    d2, r2 = d2 + d * d, r2 + r * r
  end
  return math.sqrt(d2 / r2), math.sqrt(r2)
end

for _, family in ipairs { "sd1", "sd2", "sdxl" } do
  local base, lora = ldm(family), at(family .. "_lora.safetensors")
  make(lora, family, 1)
  local model = models.open(base)
  local o = keep { base = base }
  local function to(layout_, name)
    local options = keep { base = base, to = layout_ }
    return adapters.convert(lora, at(name), options)
  end
  to("kohya", family .. "_kohya.safetensors")
  check(metadata.data_hash(lora) == metadata.data_hash(at(family .. "_kohya.safetensors")), family, "kohya to kohya")
  to("diffusers", family .. "_diffusers.safetensors")
  to("peft", family .. "_peft")
  adapters.convert(at(family .. "_peft"), at(family .. "_again.safetensors"), o)
  check(metadata.data_hash(lora) == metadata.data_hash(at(family .. "_again.safetensors")), family,
    "PEFT there and back")
  local want = bake(family, { { path = lora, scale = 0.5 } }, "baked.safetensors")
  same(family .. " from diffusers", want, bake(family, { { path = at(family .. "_diffusers.safetensors"),
    scale = 0.5 } }, "b.safetensors"))
  same(family .. " from PEFT", want, bake(family, { { path = at(family .. "_peft"), scale = 0.5 } }, "b.safetensors"))
  local meta = core.load(at(family .. "_kohya.safetensors")):meta()
  check(meta.ss_output_name == family .. "_kohya", family, "the stem is ss_output_name", meta.ss_output_name)
  check(meta.ss_training_comment == "made by a test", family, "metadata are kept")
  check(meta.sshs_model_hash == metadata.data_hash(lora), family, "sshs_model_hash")
  check(meta.ss_network_dim == "4" and meta.ss_network_alpha == "2", family, "rank and alpha", meta.ss_network_dim,
    meta.ss_network_alpha)
  local versions = { sd1 = "sd_v1", sd2 = "sd_v2_v", sdxl = "sdxl_base_v1-0" }
  local architectures = { sd1 = "stable-diffusion-v1/lora", sd2 = "stable-diffusion-v2-768-v/lora",
    sdxl = "stable-diffusion-xl-v1-base/lora" }
  check(meta.ss_base_model_version == versions[family] and meta["modelspec.architecture"] == architectures[family],
    family, "version")
  check(meta.ss_v2 == (family == "sd2" and "True" or "False"), family, "ss_v2")
end

-- Profiles and the sidecar.
local lora = at "sd1_lora.safetensors"
local function profile(name)
  adapters.convert(lora, at "p.safetensors", keep { base = ldm "sd1", metadata = name, sidecar = true })
  local n, meta = 0, core.load(at "p.safetensors"):meta()
  for _ in pairs(meta) do n = n + 1 end
  return n, meta
end
check(profile "none" == 0, "no metadata")
local n, meta = profile "minimal"
check(n == 8 and meta["burin.sums"] and meta.ss_network_module == "networks.lora" and not meta.ss_output_name,
  "minimal metadata", n)
check(profile "full" > 15, "full metadata")
local card = core.json_decode(core.read_file(at "p.json"))
check(card["sd version"] == "SD1" and card["activation text"] == "" and card["preferred weight"] == 0, "sidecar")

-- ---- merging LoRAs, singular values ----------------------------------------------------------------------

make(at "second.safetensors", "sd1", 2)
local base = weights(ldm "sd1")
local both = { { path = lora, scale = 0.7 }, { path = at "second.safetensors", scale = -0.3 } }
local together = bake("sd1", both, "both.safetensors")
local o = keep { base = ldm "sd1" }
merge.run(both, at "stacked.safetensors", o)
local d, size = delta_distance(together, bake("sd1", { { path = at "stacked.safetensors", scale = 1 } },
  "b.safetensors"), base)
check(d < 1e-6 and size > 1, "stacked LoRAs", d, size)
local stacked = core.load(at "stacked.safetensors")
check(stacked:info("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight").shape[1] == 8, "ranks add up")
merge.run(both, at "svd.safetensors", keep { base = ldm "sd1", rank = 8 })
d = delta_distance(together, bake("sd1", { { path = at "svd.safetensors", scale = 1 } }, "b.safetensors"), base)
check(d < 1e-6, "merged by singular values, full rank", d)
local report = merge.run(both, at "svd4.safetensors", keep { base = ldm "sd1", rank = 4 })
local rank4 = bake("sd1", { { path = at "svd4.safetensors", scale = 1 } }, "b.safetensors")
d = delta_distance(together, rank4, base)
local lost, all = 0, 0  -- layers have different norms; what is kept of each is reported
for _, r in ipairs(report.ranks) do
  local name = r.layer .. ".weight"
  local norm = together[name]:distance(base[name])
  lost, all = lost + (1 - r.kept ^ 2) * norm ^ 2, all + norm ^ 2
end
check(d > 0.05 and math.abs(d - math.sqrt(lost / all)) < 1e-4, "the reported share is what is kept", d,
  math.sqrt(lost / all))

-- Extracting what was merged gives the same LoRA again.
bake("sd1", { { path = lora, scale = 1 } }, "tuned.safetensors")
local result = extract.run(ldm "sd1", at "tuned.safetensors", at "extracted.safetensors",
  keep { rank = 4, dtype = "f32" })
check(result.layers == 210 and result.what == "sd1 LoRA", "extracted layers", result.layers)
d = delta_distance((weights(at "tuned.safetensors")), bake("sd1", { { path = at "extracted.safetensors", scale = 1 } },
  "b.safetensors"), base)
check(d < 1e-5, "extracted LoRA", d)
for _, r in ipairs(result.ranks) do check(r.kept > 0.99999, r.layer, "kept", r.kept) end
result = extract.run(ldm "sd1", at "tuned.safetensors", at "extracted2.safetensors",
  keep { rank = 8, sv_fro = 0.8, dtype = "f16" })
local smaller = 0
for _, r in ipairs(result.ranks) do
  check(r.kept >= 0.8 - 1e-6 and r.rank <= 4, r.layer, "share kept", r.kept, r.rank)
  if r.rank < 4 then smaller = smaller + 1 end
end
check(smaller > 100, "sv_fro lowers ranks", smaller)
refused("nothing differs", 65, "no layer differs", extract.run, ldm "sd1", ldm "sd1", at "x.safetensors",
  keep { rank = 4 })
refused("two families", 65, "of the family sdxl", extract.run, ldm "sd1", ldm "sdxl", at "x.safetensors",
  keep { rank = 4 })

-- Resizing, on known singular values 8, 4, 2, 1, 1/2, 1/4.
local key, values = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q", { 8, 4, 2, 1, 0.5, 0.25 }
local u, _, v = core.svd(random(77, 24, 24), 6)
local s = core.tensor({ 6 }, "f32", values)
core.export(at "known.safetensors", "safetensors", { { key .. ".lora_up.weight", u },
  { key .. ".lora_down.weight", core.scale_rows(v:permute { 2, 1 }, s) },
    { key .. ".alpha", core.tensor({}, "f32", 6) } }, {})
local function resized(options)
  options.base, options.dtype = ldm "sd1", "keep"
  local r = resize.run(at "known.safetensors", at "resized.safetensors", options)
  return r.ranks[1].rank, r.ranks[1].kept
end
-- of the squares 64 + 16 + 4 + 1 + 1/4 + 1/16 = 85.3125, of the sum 15.75
for _, c in ipairs { { { rank = 2 }, 2 }, { { rank = 99 }, 6 }, { { sv_ratio = 5 }, 3 }, { { sv_ratio = 2.001 }, 2 },
  { { sv_fro = 0.9 }, 2 }, { { sv_fro = 0.99 }, 3 }, { { sv_cumulative = 0.8 }, 3 }, { { sv_cumulative = 0.5 }, 1 },
  { { sv_cumulative = 0.8, rank = 2 }, 2 } } do
  local rank, kept = resized(c[1])
  local squares = 0
  for i = 1, c[2] do squares = squares + values[i] ^ 2 end
  check(rank == c[2], "rank", core.json_encode(c[1]), rank, c[2])
  check(math.abs(kept - math.sqrt(squares / 85.3125)) < 1e-6, "share kept", kept)
end
-- sd-scripts keeps one more for the same number, and never more than there are.
for _, c in ipairs { { { sv_ratio = 5 }, 4 }, { { sv_ratio = 4 }, 3 }, { { sv_fro = 0.9 }, 3 },
  { { sv_cumulative = 0.8 }, 4 }, { { sv_cumulative = 0.8, rank = 2 }, 2 }, { { sv_cumulative = 1 }, 6 },
  { { rank = 2 }, 2 } } do
  c[1].rule = "sd-scripts"
  check(resized(c[1]) == c[2], "rank by sd-scripts' rule", core.json_encode(c[1]), c[2])
end
resized { rank = 3 }
local read = file.read(at "resized.safetensors", names.index(models.open(ldm "sd1")))
local change = file.delta(read.adapters[1], core.tensor({ 24, 24 }, "f32"))
local first = core.matmul(u:permute { 2, 1 }:rows(1, 3):permute { 2, 1 }, core.scale_rows(v:permute { 2, 1 }:rows(1, 3),
  s:rows(1, 3)))
local difference, norm = change:distance(first)
check(difference < 1e-6 * norm and norm > 9, "the three greatest", difference / norm)

-- Without a base the family follows from widths, and the layers are the published model's.
for family, c in pairs { sd1 = { "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 768 },
  sd2 = { "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", 1024 },
  sdxl = { "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_k", 2048 } } do
  core.export(at "wide.safetensors", "safetensors", { { c[1] .. ".lora_down.weight", random(1, 2, c[2]) },
    { c[1] .. ".lora_up.weight", random(2, 1280, 2) } }, {})
  core.remove_tree(at "wide")
  local r = adapters.convert(at "wide.safetensors", at "wide", keep { to = "peft" })
  check(r.what == family .. " LoRA" and r.layers == 1, "guessed family", family, r.what)
  adapters.convert(at "wide", at "wide2.safetensors", keep())
  check(core.load(at "wide2.safetensors"):info(c[1] .. ".lora_down.weight"), family, "there and back without a base")
end

-- Widths of SDXL's first text encoder are SD 1.x's: a key that only SDXL has decides, wherever it stands.
local pair = {}
for _, one in ipairs { { "text_encoder", 768 }, { "text_encoder_2", 1280 } } do
  local name = one[1] .. ".text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer."
  pair[#pair + 1] = { name .. "down.weight", random(1, 2, one[2]) }
  pair[#pair + 1] = { name .. "up.weight", random(2, one[2], 2) }
end
core.export(at "pair.safetensors", "safetensors", pair, {})
check(adapters.convert(at "pair.safetensors", at "pair2.safetensors", keep()).what == "sdxl LoRA",
  "two text encoders, guessed family")

-- What has no names in a layout, or no singular values, is refused.
core.export(at "loha.safetensors", "safetensors", { { key .. ".hada_w1_a", random(1, 24, 2) },
  { key .. ".hada_w1_b", random(2, 2, 24) },
  { key .. ".hada_w2_a", random(3, 24, 2) }, { key .. ".hada_w2_b", random(4, 2, 24) } }, {})
refused("LoHa for PEFT", 65, "LoHa has no names in peft files", adapters.convert, at "loha.safetensors", at "x",
  keep { base = ldm "sd1" })
refused("LoHa resized", 65, "no plain LoRA %(loha%)", resize.run, at "loha.safetensors", at "x.safetensors",
  keep { base = ldm "sd1", rank = 1 })
refused("no base", 65, "give %-%-base MODEL", adapters.convert, at "loha.safetensors", at "x", keep())
adapters.convert(at "loha.safetensors", at "loha2.safetensors", keep { base = ldm "sd1" })
check(core.load(at "loha2.safetensors"):meta().ss_network_module == "lycoris.kohya", "LyCORIS' module")

-- Only a folder that a training marked is replaced by one of the same name.
local folders = require "burin.base.folders"
folders.write(at "result", function(place) core.write_file(place .. "/x", "x") end, true)
folders.remove_own(at "result")
check(not core.exists(at "result"), "a marked folder is removed")
folders.write(at "result", function(place) core.write_file(place .. "/x", "x") end)
refused("a folder of somebody else", 73, "not written by a training", folders.remove_own, at "result")
check(core.exists(at "result/x"), "and left as it is")

core.remove_tree(scratch)
check(not core.exists(scratch), "scratch is gone")
T.finish()
