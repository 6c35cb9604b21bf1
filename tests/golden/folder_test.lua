-- SPDX-License-Identifier: MIT
-- Diffusers folders: PyTorch's .bin files, Hugging Face's cache, and every class of bad folder (F01 to F10).
-- Runs as `burin run --trust tests/golden/folder_test.lua` from the repository root.
require("burin.base.progress").quiet = true
local convert = require "burin.models.io.convert"
local core = require "burin.core"
local errors = require "burin.base.errors"
local layout = require "burin.models.io.layout"
local models = require "burin.models.model"
local torch = dofile "tests/golden/torch_file.lua"

local T = dofile "tests/check.lua"
local check = T.check

local scratch = T.folder()
local function at(name) return scratch .. "/" .. name end
local function sh(line, ...) assert(os.execute(line:format(...))) end

convert.run("tests/golden/tiny_sd1/model_ldm.safetensors", at "good", { dtype = "keep", extras = true })
local UNET, VAE = "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"

-- A fresh copy of the good folder, changed by the function.
local function folder(change)
  sh("rm -rf %s/case && cp -r %s/good %s/case", scratch, scratch, scratch)
  change(at "case")
  return at "case"
end

local function refused(label, pattern, change)
  local ok, why = pcall(models.open, folder(change))
  local text = type(why) == "table" and why.message or tostring(why)
  check(not ok and text:find(pattern, 1, true), label, ok and "was accepted" or text)
  check(ok or errors.code(why) == 65, label, "exit code", errors.code(why))
end

-- All tensors of the networks, name by name.
local function weights(path)
  local model, list, n = models.open(path), {}, 0
  for _, item in ipairs((layout.items(model.files, model.map))) do
    list[item.component .. "." .. item.name], n = item.read(), n + 1
  end
  return list, n
end

local good, total = weights(at "good")
local function accepted(label, change)
  local ok, list, n = pcall(weights, folder(change))
  if not ok then return check(false, label, type(list) == "table" and list.message or list) end
  local same = 0
  for name, t in pairs(list) do if good[name] and good[name]:bytes() == t:bytes() then same = same + 1 end end
  check(same == total and n == total and total > 900, label, same .. " of " .. total)
end

-- ---- weights in shards ----------------------------------------------------------------------------------------------

-- The U-Net in two shards; `change` may alter the map before it is written.
local function sharded(path, change)
  local file, map, shards = core.load(path .. "/" .. UNET .. ".safetensors"), {}, { {}, {} }
  for i, name in ipairs(file:names()) do
    table.insert(shards[1 + i % 2], { name, file:read(name) })
    map[name] = ("part-%d.safetensors"):format(1 + i % 2)
  end
  for i, shard in ipairs(shards) do core.export(("%s/unet/part-%d.safetensors"):format(path, i), "safetensors", shard,
    {}) end
  core.remove_file(path .. "/" .. UNET .. ".safetensors")
  if change then map = change(map, path) or map end
  core.write_file(path .. "/" .. UNET .. ".safetensors.index.json", core.json_encode { weight_map = map })
end
local function shard_case(label, pattern, change) refused(label, pattern, function(p) sharded(p, change) end) end

accepted("shards", sharded)
for label, where in pairs { ["F01 ../"] = "../vae/diffusion_pytorch_model.safetensors",
  ["F01 absolute"] = "/etc/passwd",
  ["F01 a folder below"] = "sub/part-1.safetensors", ["F01 .."] = "..", ["F01 ."] = ".", ["F01 nothing"] = "" } do
  shard_case(label, "a file name is expected", function(map) map["conv_in.weight"] = where end)
end
shard_case("F01 a number", "a file name is expected", function(map) map["conv_in.weight"] = 5 end)
shard_case("F01 a link that leads out", "leads out of the model's folder", function(_, path)
  sh("mv %s/unet/part-1.safetensors %s/elsewhere && ln -s %s/elsewhere %s/unet/part-1.safetensors", path, scratch,
    scratch, path)
end)
accepted("a link that stays inside", function(path)
  sharded(path)
  sh("cd %s/unet && mv part-1.safetensors kept && ln -s kept part-1.safetensors", path)
end)
shard_case("F02 a missing shard", "part-2.safetensors", function(_,
  path) core.remove_file(path .. "/unet/part-2.safetensors") end)
shard_case("F03 not in its shard", "conv_out.weight is not in part-", function(map)
  map["conv_out.weight"] = map["conv_out.weight"] == "part-1.safetensors" and "part-2.safetensors"
    or "part-1.safetensors"
end)
shard_case("F03 a name too many", "ghost.weight is not in",
  function(map) map["ghost.weight"] = "part-1.safetensors" end)
shard_case("no map", "no weight_map", function() return 7 end)

-- As Hugging Face's cache has it: every file a link into the blobs of the repository.
do
  local path = folder(sharded)
  sh("mkdir -p %s/hub/blobs %s/hub/snapshots && cp -r %s %s/hub/snapshots/abc", scratch, scratch, path, scratch)
  sh("cd %s/hub/snapshots/abc/unet && for f in *; do mv $f ../../../blobs/$f && ln -s ../../../blobs/$f $f; done",
    scratch)
  local _, n = weights(at "hub/snapshots/abc")
  check(n == total, "a snapshot in the cache", n)
end

-- ---- PyTorch's files ------------------------------------------------------------------------------------------------

local function as_bin(path, from, to)
  torch.convert(path .. "/" .. from, path .. "/" .. to)
  core.remove_file(path .. "/" .. from)
end
accepted("F06 .bin alone", function(path)
  as_bin(path, UNET .. ".safetensors", UNET .. ".bin")
  as_bin(path, VAE .. ".safetensors", VAE .. ".fp16.bin")
  as_bin(path, "text_encoder/model.safetensors", "text_encoder/pytorch_model.bin")
end)
accepted("F06 a shard as .bin", function(path)
  sharded(path)
  local index = path .. "/" .. UNET .. ".safetensors.index.json"
  as_bin(path, "unet/part-1.safetensors", "unet/part-1.bin")
  core.write_file(path .. "/" .. UNET .. ".bin.index.json", (core.read_file(index):gsub("part%-1%.safetensors",
    "part-1.bin")))
  core.remove_file(index)
end)
accepted("F06 both: safetensors wins", function(path)
  core.write_file(path .. "/" .. UNET .. ".bin", "\x80\2cos\nsystem\nX\4\0\0\0exit\x85R.")
end)
refused("F06 a program as .bin", "Python pickle", function(path)
  core.remove_file(path .. "/" .. UNET .. ".safetensors")
  core.write_file(path .. "/" .. UNET .. ".bin", "\x80\2cos\nsystem\nX\4\0\0\0exit\x85R.")
end)

-- ---- settings -------------------------------------------------------------------------------------------------------

local function edit(name, change)
  return function(path)
    local object = core.json_decode(core.read_file(path .. "/" .. name))
    change(object)
    core.write_file(path .. "/" .. name, core.json_encode(object))
  end
end
local function replaced(name, text) return function(path) core.write_file(path .. "/" .. name, text) end end
local function field(name, key, value, pattern, label)
  refused(label .. " " .. key, pattern, edit(name, function(o) o[key] = value end))
end

for key, entry in pairs { unet = { "my_unet", "MyUNet" }, vae = { "../vae.py", "X" }, text_encoder = { "os", "system" },
  _class_name = { "pipeline", "MyPipeline" } } do
  field("model_index.json", key, entry, key .. " comes with code of its own", "F04")
end
accepted("F04 classes that are not read", edit("model_index.json", function(o)
  o.safety_checker, o.unet = { "stable_diffusion", "StableDiffusionSafetyChecker" }, { core.null, core.null }
end))

local unet, vae, text, scheduler = "unet/config.json", "vae/config.json", "text_encoder/config.json",
  "scheduler/scheduler_config.json"
field(unet, "block_out_channels", { -32, 64, 64, 64 }, "block_out_channels is [-32", "F05 negative")
field(unet, "layers_per_block", 1000000000, "layers_per_block is 1000000000", "F05 a billion")
field(unet, "cross_attention_dim", 768, "cross_attention_dim is 768", "F05 another shape")
field(unet, "in_channels", "4", "in_channels is", "F05 text")
for label, value in pairs { text = "8", fraction = 8.5, zero = 0, negative = -8, ["billion"] = 1000000000, list = { 8 },
  object = { a = 1 } } do
  field(unet, "attention_head_dim", value, "attention_head_dim is", "F05 " .. label)
  field(unet, "norm_num_groups", value, "norm_num_groups is", "F05 " .. label)
  field(text, "num_attention_heads", value, "num_attention_heads is", "F05 " .. label)
end
field(vae, "scaling_factor", -1, "a number between 0 and 1000", "F05 negative")
field(vae, "scaling_factor", "0.18", "scaling_factor is \"0.18\"", "F05 text")
field(vae, "latent_channels", 0, "latent_channels is 0", "F05 zero")
field(text, "num_hidden_layers", 10 ^ 9 // 1 | 0, "num_hidden_layers is 1000000000", "F05 a billion")
field(text, "hidden_act", "relu", "hidden_act is \"relu\"; one of gelu, quick_gelu", "F05 unknown")
field(scheduler, "prediction_type", "sample", "prediction_type is \"sample\"", "F05 unknown")
for _, name in ipairs { unet, vae, text, scheduler, "model_index.json" } do
  refused("F05 NaN in " .. name, name, replaced(name, '{"norm_num_groups": NaN}'))
  refused("F05 1e999 in " .. name, name, replaced(name, '{"norm_num_groups": 1e999}'))
  refused("F05 a list in " .. name, "a JSON object is expected", replaced(name, "[1]"))
  refused("F05 twice in " .. name, "duplicate", replaced(name, '{"a": 1, "a": 2}'))
  refused("F05 nested in " .. name, name, replaced(name, ("["):rep(100000)))
  refused("F07 a folder for " .. name, "a file is expected", function(path)
    sh("rm %s/%s && mkdir %s/%s", path, name, path, name)
  end)
  refused("F07 a pipe for " .. name, "a file is expected", function(path) sh("rm %s/%s && mkfifo %s/%s", path, name,
    path, name) end)
  refused("F07 a device for " .. name, "a file is expected", function(path)
    sh("rm %s/%s && ln -s /dev/zero %s/%s", path, name, path, name)
  end)
  refused("F08 2 GB in " .. name, "larger than the 16777216 bytes", function(path) sh("truncate -s 2G %s/%s", path,
    name) end)
end
for _, name in ipairs { UNET, VAE } do
  refused("F07 a folder for weights", "is a folder", function(path)
    sh("rm %s/%s.safetensors && mkdir %s/%s.safetensors", path, name, path, name)
  end)
  refused("F07 a pipe for weights", "neither a file nor a folder", function(path)
    sh("rm %s/%s.safetensors && mkfifo %s/%s.safetensors", path, name, path, name)
  end)
end
accepted("settings of null, or none", function(path)
  edit(unet, function(o) o.num_attention_heads, o.sample_size = core.null, nil end)(path)
  core.remove_file(path .. "/model_index.json")
end)

-- ---- tokenizer and scheduler ----------------------------------------------------------------------------------------

local merges = {}
for line in core.merges():gsub("^[^\n]*\n", "", 1):gmatch "[^\n]+" do
  if #merges < 48894 then merges[#merges + 1] = line end
end
local function tokenizer(lines)
  return function(path)
    core.make_dirs(path .. "/tokenizer")
    core.write_file(path .. "/tokenizer/merges.txt", lines)
  end
end
local right = "#version: 0.2\n" .. table.concat(merges, "\n")
accepted("CLIP's merges", tokenizer(right .. "\n"))
accepted("CLIP's merges with other line ends", tokenizer((right:gsub("\n", "\r\n"))))
merges[5], merges[6] = merges[6], merges[5]
for label, lines in pairs { ["10^7 lines"] = ("a b\n"):rep(10000000), ["3 * 10^6 lines"] = ("a b\n"):rep(3000000),
  ["other ranks"] = table.concat(merges, "\n"), ["one less"] = right:match "^(.*)\n", ["one more"] = right .. "\na b",
    ["empty"] = "" } do
  refused("F09 " .. label, "merges.txt", tokenizer(lines))
end
for label, value in pairs { zero = 0, negative = -0.1, ["more than 1"] = 1.5, text = "0.012" } do
  field(scheduler, "beta_start", value, "beta_start is", "F10 " .. label)
  field(scheduler, "beta_end", value, "beta_end is", "F10 " .. label)
end
field(scheduler, "num_train_timesteps", 0, "num_train_timesteps is 0", "F10")

sh("rm -r %s", scratch)
T.finish()
