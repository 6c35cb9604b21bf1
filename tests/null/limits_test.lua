-- SPDX-License-Identifier: MIT
-- limits_test.lua - the numeric limits of what is read in Lua from files, and of what plugins say, each one below, at
-- and above: what is at the limit is taken, what is beyond is refused by the limit's own sentence. Those of what C
-- reads are in test_limits.c. Runs as `burin run --trust` from the root, with tests/abi/liar.c as a plugin.
local core = require "burin.core"
local adapters = require "burin.adapters.file"
local device = require "burin.graph.device"
local embeddings = require "burin.text.embeddings"
local folder = require "burin.models.io.folder"
local models = require "burin.models.model"
local peft = require "burin.adapters.peft"
local scaled = require "burin.models.io.scaled"
local settings = require "burin.models.io.settings"

local T = dofile "tests/check.lua"
local scratch = T.folder()
device.null()
function core.log() end

local function config()
  return { family = "sdxl", prediction = "epsilon", prediction_known = true, scaling_factor = 0.13025, bos = 1, eos = 2,
    unet = { in_channels = 4, out_channels = 4, channels = { 8, 16 }, depth = { 0, 1 }, layers = 2, groups = 4,
      heads = { 2, 4 }, context = 8, time_ids_width = 256 },
    vae = { channels = { 8, 16 }, layers = 1, groups = 4, latent_channels = 4 },
    text = { { vocab = 64, width = 8, layers = 2, heads = 2, act = "gelu" } } }
end

-- ---- what is limited: n -> raises or not ---------------------------------------------------------------------------

-- A field of what Burin wrote, of a config.json beside a file, of a file of a folder; "unet.groups" lies in an object.
local function object(field, n)
  local outer, inner = field:match "^(%w+)%.(.*)$"
  return outer and { [outer] = { [inner] = n } } or { [field] = n }
end
local function own(field) return function(n) settings.own(config(), object(field, n), "f") end end
local function beside(field) return function(n) settings.beside(config(), object(field, n), "f") end end
local function part(component, field)
  return function(n) settings.part(config(), component, object(field, n), "f") end
end
local function part_folder(component, field)
  return function(n) settings.part_folder(config(), component, object(field, n), "f") end
end
local function of_folder(file, field)
  return function(n)
    settings.folder(config(), function(name) return name == file and object(field, n) or nil end, "f")
  end
end

local function thousandths(f) return function(n) f(n / 1000) end end

local function write(name, text)
  core.write_file(scratch .. "/" .. name, text)
  return scratch .. "/" .. name
end

local function json_bytes(max) return function(n)
  folder.read_object(write("object.json", "{}" .. (" "):rep(n - 2)), max)
end end

local function nested(n) core.json_decode(("["):rep(n) .. ("]"):rep(n), "f") end
local function last_digits(n) core.json_decode(("92233720368547758%02d"):format(n), "f") end

local merges = core.merges():gsub("^[^\n]*\n", "", 1)
local function merge_lines(n)
  local at = 0
  for _ = 1, n do at = merges:find("\n", at + 1, true) end
  core.make_dirs(scratch .. "/tokenizer")
  write("tokenizer/merges.txt", merges:sub(1, at))
  folder.check_tokenizer(scratch, "tokenizer")
end

local unet = { in_channels = 4, out_channels = 4, channels = { 8, 16 }, depth = { 0, 1 }, mid_depth = 1, layers = 1,
  groups = 4, heads = { 2, 4 }, context = 8 }
local text = { vocab = 64, tokens = 77, width = 8, layers = 1, heads = 2, mlp = 16, act = "gelu" }
local function export(name, list)
  core.export(scratch .. "/" .. name, "safetensors", list, {})
  return scratch .. "/" .. name
end

local function vectors(n)
  local path = export("word.safetensors", { { "emb_params", core.tensor({ n, 8 }, "f32", 0.5) } })
  embeddings.add(models.new { family = "sd1", unet = unet, text = { text } }, { path })
end

-- A LoRA whose tensors have so many dims: "down" at least two, and none more than four.
local layer = { component = "unet", module = "a", kind = "linear", inputs = 4, outputs = 4 }
local index = setmetatable({}, { __index = function() return { { layer = layer, style = "first" } } end })
local function dims(n)
  local shape = {}
  for i = 1, n do shape[i] = 1 end
  adapters.read(export("lora.safetensors", { { "lora_unet_a.lora_down.weight", core.tensor(shape, "f32", 1) },
    { "lora_unet_a.lora_up.weight", core.tensor({ 1, 1 }, "f32", 1) } }), index)
end

-- One scale, which is a number above 0.
local function view_of(scale)
  local tensors = { ["a.weight"] = core.tensor({ 2 }, "f8_e4m3"), ["a.scale_weight"] = scale }
  return scaled.view({ names = function() return { "a.scale_weight", "a.weight" } end,
    info = function(_, name) return { dtype = tensors[name].dtype, shape = tensors[name].shape } end,
    read = function(_, name) return tensors[name] end }, "f")
end

local function repeats(n) core.source("examples/sks-cat", { repeats = n }) end
local function file_part(n) core.read_part("README.md", 0, n) end
local function tensors_said(n) core.load(write("tensors.bin", ("LIEN%d"):format(n))) end
local function metadata_said(n) core.load(write("meta.bin", ("LIEM%d"):format(n))):meta() end
local function pictures_said(n)
  local place = ("%s/N%d.lies"):format(scratch, n)
  core.make_dirs(place)
  core.source(place)
end

-- ---- all of them ---------------------------------------------------------------------------------------------------

-- what, the limit, whether it is the least or the most, f, the sentence; only: nothing but the limit itself is taken;
-- other: what is within the limit is refused too, by this other sentence.
local MOST, LEAST = 1, -1
local OUT = "was expected"
local rows = {
  { "own: bos", 1 << 24, MOST, own "bos", OUT }, { "own: bos", 0, LEAST, own "bos", OUT },
  { "own: eos", 1 << 24, MOST, own "eos", OUT }, { "own: eos", 0, LEAST, own "eos", OUT },
  { "own: sample_size", 32768, MOST, own "sample_size", OUT }, { "own: sample_size", 8, LEAST, own "sample_size", OUT },
  { "own: time_ids_width", 65536, MOST, own "unet.time_ids_width", OUT },
  { "own: time_ids_width", 2, LEAST, own "unet.time_ids_width", OUT },
  { "own: groups", 1, LEAST, own "unet.groups", OUT }, { "own: heads", 1, LEAST, own "unet.heads", OUT },
  { "own: scaling_factor", 999, MOST, own "scaling_factor", OUT },
  { "own: scaling_factor", 1, LEAST, own "scaling_factor", OUT },
  { "beside: pad", 1 << 24, MOST, beside "pad", OUT }, { "beside: pad", 0, LEAST, beside "pad", OUT },
  { "beside: pad_te1", 1 << 24, MOST, beside "pad_te1", OUT }, { "beside: bos", 1 << 24, MOST, beside "bos", OUT },
  { "beside: time_id_embed_dim", 65536, MOST, beside "time_id_embed_dim", OUT },
  { "beside: time_id_embed_dim", 2, LEAST, beside "time_id_embed_dim", OUT },
  { "beside: num_head_channels", 1, LEAST, beside "num_head_channels", OUT },
  { "beside: norm_num_groups", 1, LEAST, beside "norm_num_groups", OUT },
  { "beside: scaling_factor", 999, MOST, beside "vae.scaling_factor", OUT },
  { "a part: scaling_factor", 999, MOST, part("vae", "scaling_factor"), OUT },
  { "a part: scaling_factor", 1, LEAST, part("vae", "scaling_factor"), OUT },
  { "a part: groups", 1, LEAST, part("vae", "vae.groups"), OUT },
  { "a part's folder: scaling_factor", 999, MOST, part_folder("vae", "scaling_factor"), OUT },
  { "a part's folder: scaling_factor", 1, LEAST, part_folder("vae", "scaling_factor"), OUT },
  { "a part's folder: norm_num_groups", 1, LEAST, part_folder("vae", "norm_num_groups"), OUT },
  { "a part's folder: num_attention_heads", 1, LEAST, part_folder("text_encoder", "num_attention_heads"), OUT },
  { "folder: sample_size", 4096, MOST, of_folder("unet/config.json", "sample_size"), OUT },
  { "folder: sample_size", 1, LEAST, of_folder("unet/config.json", "sample_size"), OUT },
  { "folder: addition_time_embed_dim", 65536, MOST, of_folder("unet/config.json", "addition_time_embed_dim"), OUT },
  { "folder: addition_time_embed_dim", 2, LEAST, of_folder("unet/config.json", "addition_time_embed_dim"), OUT },
  { "folder: scaling_factor", 999, MOST, of_folder("vae/config.json", "scaling_factor"), OUT },
  { "folder: num_train_timesteps", 1000000, MOST,
    of_folder("scheduler/scheduler_config.json", "num_train_timesteps"), OUT },
  { "folder: num_train_timesteps", 2, LEAST,
    of_folder("scheduler/scheduler_config.json", "num_train_timesteps"), OUT },
  { "folder: beta_start", 999, MOST, thousandths(of_folder("scheduler/scheduler_config.json", "beta_start")), OUT },
  { "folder: beta_start", 1, LEAST, thousandths(of_folder("scheduler/scheduler_config.json", "beta_start")), OUT },
  { "folder: beta_end", 999, MOST, thousandths(of_folder("scheduler/scheduler_config.json", "beta_end")), OUT },
  { "folder: beta_end", 1, LEAST, thousandths(of_folder("scheduler/scheduler_config.json", "beta_end")), OUT },
  { "folder: bytes of an object", 16 << 20, MOST, json_bytes(nil), "larger than the 16777216 bytes" },
  { "folder: bytes of an index", 4 << 20, MOST, json_bytes(4 << 20), "larger than the 4194304 bytes" },
  { "folder: merges", 48894, MOST, merge_lines, "these are not CLIP's", only = true },
  { "JSON: depth", 2048, MOST, nested, "maximum parsing depth reached" },
  { "JSON: an integer", 7, MOST, last_digits, "too big integer" },
  { "words: vectors", 225, MOST, vectors, "1 to 225 are read" },
  { "LoRA: dims", 4, MOST, dims, "is no part of an adapter" },
  { "LoRA: dims", 2, LEAST, dims, "is no part of an adapter" },
  { "LoRA: a rank", 1, LEAST, function(n) peft.rank({ r = n }, "a", "f") end, "a rank is expected" },
  { "weights: a scale", 1, LEAST, function(n) view_of(core.tensor({ 1 }, "f32", n)) end,
    "a scale is a number above 0" },
  { "weights: numbers of a scale", 1, MOST, function(n) view_of(core.tensor({ n }, "f32", 1)) end,
    "one number for the whole", only = true },
  { "folders of pictures: repeats", 100000, MOST, repeats, "is outside" },
  { "folders of pictures: repeats", 0, LEAST, repeats, "is outside" },
  { "a part of a file", 1 << 20, MOST, file_part, "at most 1 MiB" },
  { "a plugin: tensors", 1000000, MOST, tensors_said, "is said to have 1000001 tensors", other = "is there twice" },
  { "a plugin: metadata", 1000000, MOST, metadata_said, "its metadata have no end" },
  { "a plugin: pictures", 100000000, MOST, pictures_said, "is said to have 100000001 pictures",
    other = "gave no reason" },
}

for _, row in ipairs(rows) do
  local what, limit, kind, f, says, other = row[1], row[2], row[3], row[4], row[5], row.other
  for n = limit - 1, limit + 1 do
    local ok, e = pcall(f, n)
    local said = ok and "taken" or type(e) == "table" and e.message or tostring(e)
    local within = (n - limit) * kind <= 0 and (not row.only or n == limit)
    local expected = within and (ok and "" or other) or not within and not ok and says
    T.check(expected and said:find(expected, 1, true), what, n, said)
  end
end
os.execute("rm -r " .. scratch)
T.finish()
