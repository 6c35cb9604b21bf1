-- SPDX-License-Identifier: MIT
-- metadata.lua - what LoRA files say about themselves. Every value is a text. The keys are those of kohya-ss/sd-scripts
-- (train_network.py, sai_model_spec.py), which A1111, Forge and others read.
local core = require "burin.core"
local families = require "burin.models.families"
local metadata = {}

local function words(model) return families.metadata(model.family, model.noise.prediction) end

-- The keys that tell what a file is for. o: module, rank, alpha, args (texts by name)
function metadata.network(model, o)
  local family = words(model)
  return {
    ss_v2 = family.v2, ss_base_model_version = family.base_model_version,
    ss_zero_terminal_snr = model.noise.zero_terminal_snr and "True" or nil,
    ss_network_module = o.module, ss_network_dim = tostring(o.rank or "Dynamic"),
    ss_network_alpha = tostring(o.alpha or "Dynamic"),
    ss_network_args = o.args and next(o.args) and core.json_encode(o.args) or "{}",
    ["modelspec.architecture"] = family.architecture .. "/lora",
  }
end

-- The rest of modelspec 1.0.1 (https://github.com/Stability-AI/ModelSpec). o: title, and optional resolution,
-- clip_skip, author, description, trigger, tags, date
function metadata.modelspec(model, o)
  local family = words(model)
  local size = o.resolution or family.resolution
  return {
    ["modelspec.sai_model_spec"] = "1.0.1", ["modelspec.title"] = o.title,
    ["modelspec.implementation"] = family.implementation,
    ["modelspec.resolution"] = ("%dx%d"):format(size, size), ["modelspec.prediction_type"] = model.noise.prediction,
    ["modelspec.encoder_layer"] = tostring(o.clip_skip or 1), ["modelspec.author"] = o.author,
    ["modelspec.description"] = o.description, ["modelspec.trigger_phrase"] = o.trigger, ["modelspec.tags"] = o.tags,
    ["modelspec.date"] = o.date,
  }
end

-- One number as a text; "Dynamic", sd-scripts' word, where layers differ or there is none.
local function only(set)
  local v = next(set)
  return v and next(set, v) == nil and ("%.14g"):format(v) or "Dynamic"
end

-- kohya's network_args: those that were there, with what is now of the convolutions.
local function with_conv(text, conv)
  local ok, args = pcall(core.json_decode, text or "{}", "ss_network_args")
  args = ok and type(args) == "table" and args or {}
  local some = next(conv.ranks) ~= nil
  args.conv_dim, args.conv_alpha = some and only(conv.ranks) or nil, some and only(conv.alphas) or nil
  return next(args) and core.json_encode(args) or "{}"
end

-- What a file says of itself, whatever it was made from: its name, and the ranks and alphas of what is in it, of
-- convolutions apart as in sd-scripts. all: changed; adapters: as save.lua takes them.
function metadata.identify(all, name, adapters)
  local plain, conv = { ranks = {}, alphas = {} }, { ranks = {}, alphas = {} }
  for _, e in ipairs(adapters) do
    local of = (e.layer.kernel or 1) > 1 and conv or plain
    if e.rank then of.ranks[e.rank], of.alphas[e.alpha] = true, true end
  end
  local first = next(plain.ranks) and plain or conv
  all.ss_output_name, all["modelspec.title"] = name, name
  all.ss_network_dim, all.ss_network_alpha = only(first.ranks), only(first.alphas)
  all.ss_network_args = with_conv(all.ss_network_args, conv)
  all.sshs_model_hash, all.sshs_legacy_hash, all["modelspec.hash_sha256"] = nil, nil, nil
  all.format, all.lora_adapter_metadata = nil, nil
end

local minimal = { "ss_v2", "ss_base_model_version", "ss_network_module", "ss_network_dim", "ss_network_alpha",
  "ss_network_args", "modelspec.architecture" }

metadata.profiles = { "full", "minimal", "none" }

-- What a profile leaves of metadata: all of it, what tells programs how to load the file, or nothing.
function metadata.profile(all, profile)
  if profile == "none" then return {} end
  if profile ~= "minimal" then return all end
  local few = {}
  for _, key in ipairs(minimal) do few[key] = all[key] end
  return few
end

-- SHA-256 of a safetensors file's bytes after its header.
function metadata.data_hash(path) return core.sha256_file(path, 8 + ("<I8"):unpack(core.read_part(path, 0, 8))) end

-- A1111's short hash of before 2023: 64 KiB at 1 MiB.
function metadata.legacy_hash(path) return core.sha256_file(path, 0x100000, 0x10000):sub(1, 8) end

-- Adds the hashes of a file with these tensors, as sd-scripts computes them (train_util.py,
-- precalculate_safetensors_hashes): of a file whose metadata are the ss_ keys alone. write(path, metadata) writes it.
function metadata.add_hashes(path, all, write)
  local few, temporary = {}, path .. ".hash.tmp-0-0"
  for k, v in pairs(all) do if k:match "^ss_" then few[k] = v end end
  core.begin_temporary(temporary)
  local ok, why = pcall(function()
    write(temporary, few)
    all.sshs_model_hash, all.sshs_legacy_hash = metadata.data_hash(temporary), metadata.legacy_hash(temporary)
  end)
  local gone, still = pcall(core.remove_file, temporary)
  if not (ok and gone) then error(not ok and why or still, 0) end
  if all["modelspec.sai_model_spec"] then all["modelspec.hash_sha256"] = "0x" .. all.sshs_model_hash end
end

return metadata
