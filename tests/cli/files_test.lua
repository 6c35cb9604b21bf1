-- SPDX-License-Identifier: MIT
-- The commands on model files from outside: every example of docs/files.md in its order, exit codes, --json; and what a
-- trained LoRA says about itself. Plain Lua 5.4, from the repository root: lua5.4 tests/cli/files_test.lua BURIN
-- SCRATCH
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
T.private_cache()
local root = select(2, T.shell "pwd"):gsub("%s+$", "")
local folder = T.folder "files"
T.shell(("ln -sfn %s %s"):format(T.quote(root .. "/tests"), T.quote(folder .. "/tests")))

local function run(line) return T.run(line, "cd " .. T.quote(folder) .. " && ") end

-- The binary may be named relative to the root.
if not T.burin:match "^/" then T.burin = root .. "/" .. T.burin end

-- ---- the examples -------------------------------------------------------------------------------------------

local n = 0
for block in T.read "docs/files.md":gmatch "```sh\n(.-)```" do
  for line in block:gmatch "[^\n]+" do
    local code, out = run(line:gsub("^burin ", ""))
    T.check(code == 0, "%s: exit code %d: %s", line, code, out)
    n = n + 1
  end
end
T.check(n >= 10, "docs/files.md has %d examples", n)

local _, out = run "inspect --summary tiny.safetensors"
T.check(out:find "Stable Diffusion 1.x checkpoint, single file" and out:find "epsilon", "inspect: %s", out)
_, out = run "inspect --summary --base tiny-folder tiny-lora.safetensors"
for _, text in ipairs { "sd1 LoRA", "192 unet", "A1111 sees%s+SD1", "Forge sees%s+SD1",
  "ComfyUI loads%s+210 of 210", "kohya" } do
  T.check(out:find(text), "inspect lacks '%s': %s", text, out)
end
_, out = run "inspect --summary tiny-folder"
T.check(out:find "diffusers folder", "inspect of a folder: %s", out)
_, out = run "inspect tests/golden/tiny_sd1/lora_init.safetensors --summary"
T.check(out:find "unknown model", "inspect without a base: %s", out)
local card = T.read(folder .. "/tiny-lora.json")
T.check(card and card:find '"sd version": "SD1"', "sidecar: %s", tostring(card))

-- What is written says who reads it; what cannot be applied is refused by name, whoever is asked.
_, out = run "convert tiny-lora.safetensors to-diffusers.safetensors --to diffusers --base tiny-folder"
T.check(out:find "read by A1111 0 of 210 layers" and out:find "diffusers 210 of 210 layers", "readers: %s", out)
T.write(folder .. "/oft.safetensors", ("<s8"):pack('{"lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q'
  .. '.oft_blocks":{"dtype":"F32","shape":[1,2,1,1],"data_offsets":[0,8]}}') .. ("\0"):rep(8))
for line, want in pairs { ["inspect oft.safetensors"] = 0,
  ["convert oft.safetensors o.safetensors --base tiny-folder"] = 65,
  ["merge tiny.safetensors oft.safetensors o.safetensors"] = 65,
  [("sample %s/models/tiny-sd.safetensors --prompt x --lora oft.safetensors"):format(root)] = 65 } do
  local ended, said = run(line)
  T.check(ended == want and said:find "of the kind BOFT, which cannot be applied", "%s: %d %s", line, ended, said)
end

-- ---- hashes ---------------------------------------------------------------------------------------------------

_, out = run "hash tiny-small.safetensors"
local _, sum = T.shell("sha256sum " .. T.quote(folder .. "/tiny-small.safetensors"))
T.check(out:find(sum:match "^%x+", 1, true) and out:find(sum:sub(1, 10):upper(), 1, true), "sha256: %s", out)
local text = T.read(folder .. "/tiny-small.safetensors")
T.write(folder .. "/data", text:sub(9 + (string.unpack("<I8", text))))
_, sum = T.shell("sha256sum " .. T.quote(folder .. "/data"))
local data = sum:match "^%x+"
T.check(select(2, out:gsub(data, "")) == 2, "data hash and sshs_model_hash: %s", out)
-- One bit changed after the hash was written.
local damaged = text:sub(1, -2) .. string.char(text:byte(-1) ~ 1)
T.write(folder .. "/damaged.safetensors", damaged)
local code
code, out = run "hash damaged.safetensors"
T.check(code == 65 and out:find "changed since", "a damaged file: %d %s", code, out)
-- Its sums say which tensor it is; so do the commands that read it.
code, out = run "hash --verify damaged.safetensors tiny-small.safetensors tiny-folder"
local tensor = out:match "damaged: tensor '([^']+)'"
T.check(code == 65 and tensor and out:find("damaged.safetensors: damaged, by its sums", 1, true)
  and out:find("tiny-small.safetensors: whole, by its sums", 1, true)
  and out:find("tiny-folder/unet/diffusion_pytorch_model.safetensors: whole", 1, true), "hash --verify: %d %s", code,
  out)
for _, line in ipairs { "merge tiny.safetensors damaged.safetensors out.safetensors",
  "sample tiny.safetensors --prompt x --lora damaged.safetensors" } do
  code, out = run(line)
  T.check(code == 65 and out:find(("tensor '%s' does not match its sum"):format(tensor), 1, true), "%s: %d %s", line,
    code, out)
end
-- Another program has changed the metadata: its sums are not used, and that is said.
local edited = text:gsub('"ss_network_dim":"4"', '"ss_network_dim":"5"', 1)
T.write(folder .. "/edited.safetensors", edited)
code, out = run "convert edited.safetensors edited-too.safetensors --base tiny-folder"
T.check(edited ~= text and code == 0 and out:find "its sums are not its own", "an edited header: %d %s", code, out)
code, out = run "hash --verify edited.safetensors edited-too.safetensors"
T.check(code == 65 and out:find "damaged: its header" and out:find("edited-too.safetensors: whole", 1, true),
  "an edited header: %d %s", code, out)
code, out = run(("hash --verify %s/models/tiny-sd.safetensors"):format(root))
T.check(code == 65 and out:find "carries no sums", "a file without sums: %d %s", code, out)

-- ---- exit codes, JSON -------------------------------------------------------------------------------------------

for line, want in pairs {
  ["convert"] = 2, ["convert tiny.safetensors out.safetensors --dtype f12"] = 2,
    ["convert tiny.safetensors out --to kohya"] = 2,
  ["convert nowhere.safetensors out"] = 66, ["convert tiny.safetensors tiny-folder"] = 73,
    ["merge tiny.safetensors out"] = 2,
  ["merge tiny-lora.safetensors tiny.safetensors out.safetensors"] = 65,
    ["merge tiny-lora.safetensors:1.2.3 out.safetensors"] = 2,
  ["extract tiny.safetensors tiny-vae.safetensors out.safetensors --rank 0"] = 2,
    ["resize tiny-lora.safetensors out.safetensors"] = 2,
  ["resize tiny-lora.safetensors out.safetensors --sv-fro 1.5"] = 2,
    ["resize tiny-lora.safetensors o --sv-fro 1 --sv-ratio 2"] = 2,
  ["resize tiny.safetensors out.safetensors --rank 2"] = 65, ["hash nowhere"] = 66, ["inspect nowhere"] = 66,
  ["convert tiny.safetensors no/where.safetensors"] = 74,
    ["convert tiny-lora.safetensors no/where.safetensors --base tiny-folder"] = 74,
  ["convert tiny-lora.safetensors out.safetensors --vae tiny.safetensors"] = 2,
    ["convert tiny.safetensors out --sidecar"] = 2,
} do
  code, out = run(line)
  T.check(code == want, "%s: exit code %d, not %d: %s", line, code, want, out)
  T.check(#out > 10, "%s: says why", line)
end
for _, name in ipairs { "out", "out.safetensors" } do
  T.check(not T.read(folder .. "/" .. name) and T.shell("test -e " .. T.quote(folder .. "/" .. name)) ~= 0,
    "%s was left behind", name)
end
for _, name in ipairs { "convert", "merge", "extract", "resize", "hash", "inspect" } do
  code, out = run(name .. " --help")
  T.check(code == 0 and out:find("usage: burin " .. name, 1, true), "%s --help", name)
end
code, out = run "resize tiny-both.safetensors small2.safetensors --rank 2 --base tiny-folder --json"
T.check(code == 0 and out:find '"kept"' and out:find '"rank": 2' and out:find '"what": "sd1 LoRA"', "--json: %s",
  out:sub(1, 300))

-- ---- what a trained LoRA says -----------------------------------------------------------------------------------

local served = T.server()  -- one process, which compiles its kernels once
local function train(name, save)
  local recipe = T.recipe(name, { name = ('"%s"'):format(name), steps = "2", save = save,
    method = "burin.lora { rank = 2, alpha = 1 }" })
  local c, text_ = served(("train --quiet %s --output %s"):format(T.quote(recipe), T.quote(folder .. "/runs")))
  T.check(c == 0, "training %s: %d %s", name, c, text_)
end
train("full-meta", "{ dtype = 'f16' }")
_, out = run "inspect --json runs/full-meta/full-meta.safetensors"
local function has(key, value)
  local found = out:match('"' .. key:gsub("%p", "%%%0") .. '": "(.-[^\\])"')
  T.check(found and (not value or found:find(value)), "metadata: %s is %s", key, tostring(found))
end
for key, value in pairs { ss_output_name = "^full%-meta$", ss_base_model_version = "^sd_v1$", ss_v2 = "^False$",
  ss_network_dim = "^2$",
  ss_network_alpha = "^1", ss_network_module = "^networks.lora$", ss_network_args = "{}", ss_steps = "^2$",
    ss_max_train_steps = "^2$",
  ss_seed = "^7$", ss_learning_rate = "^0.002$", ss_optimizer = "adamw", ss_lr_scheduler = "constant",
    ss_sd_model_name = "^tiny%-sd.safetensors$",
  ss_resolution = "^%(64, 64%)$", ss_num_train_images = "^60$", ss_batch_size_per_device = "^2$",
    ss_mixed_precision = "^no$",
  ss_tag_frequency = "sks cat", ss_dataset_dirs = "img_count", ss_bucket_info = "resolution", ss_epoch = "^1$",
    ss_clip_skip = "None",
  ["modelspec.sai_model_spec"] = "^1.0.1$", ["modelspec.architecture"] = "^stable%-diffusion%-v1/lora$",
    ["modelspec.title"] = "full%-meta",
  ["modelspec.prediction_type"] = "^v$", ["modelspec.resolution"] = "^64x64$", ["modelspec.hash_sha256"] = "^0x%x+$",
  sshs_model_hash = "^%x+$", sshs_legacy_hash = "^%x+$", ss_new_sd_model_hash = "^%x+$",
    ss_sd_model_hash = "^%x+$" } do has(key, value) end
code, out = run "hash --verify runs/full-meta"
T.check(code == 0 and out:find "full%-meta.safetensors: whole, by its sums"
  and out:find "step%-00000002.safetensors: whole, by the hashes of a state", "hash --verify of a run: %d %s", code,
  out)
_, out = run "inspect --json runs/full-meta/full-meta.safetensors"
T.check(not out:find "ss_training_started_at" and not out:find "modelspec.date", "the clock stays out")
train("dated", "{ date = true, sidecar = true }")
_, out = run "inspect --json runs/dated/dated.safetensors"
has("ss_training_finished_at", "^%d+$")
has("modelspec.date", "^%d+-%d+-%d+T")
T.check(T.read(folder .. "/runs/dated/dated.json"), "sidecar of a run")
train("minimal-meta", "{ metadata = 'minimal' }")
_, out = run "inspect --json runs/minimal-meta/minimal-meta.safetensors"
T.check(out:find "ss_network_dim" and not out:find "ss_tag_frequency" and not out:find "sks cat", "minimal metadata")
train("peft-run", "{ format = 'peft', every = 1 }")
T.check(T.read(folder .. "/runs/peft-run/peft-run/unet/adapter_config.json"), "a run that writes PEFT's layout")
T.check(T.read(folder .. "/runs/peft-run/peft-run/.burin"), "a folder that a run may replace is marked")
_, out = run(("inspect --summary --base %s runs/peft-run/peft-run"):format(T.quote(root
  .. "/models/tiny-sd.safetensors")))
T.check(out:find "sd1 LoRA" and out:find "rank%s+2", "what it wrote: %s", out)
train("diffusers-run", "{ format = 'diffusers' }")
_, out = run(("inspect --summary --base %s runs/diffusers-run/diffusers-run.safetensors"):format(T.quote(root
  .. "/models/tiny-sd.safetensors")))
T.check(out:find "spelling%s+diffusers", "what it wrote: %s", out)
T.finish()
