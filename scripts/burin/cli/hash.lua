-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local errors = require "burin.base.errors"
local folders = require "burin.base.folders"
local metadata = require "burin.adapters.metadata"
local state = require "burin.base.state"
local sums = require "burin.base.sums"

-- Names as people meet them: A1111 shows the first 10 digits of the whole file's SHA-256 (12 for LoRAs, of the data),
-- Civitai calls the 10 AutoV2, and before 2023 A1111 hashed 64 KiB at 1 MiB.
local function hashes(path)
  local kind = core.exists(path)
  if kind ~= "file" then errors.raise("input", path
    .. (kind and ": this is no regular file" or ": there is no such file")) end
  local whole = core.sha256_file(path)
  local h = { path = path, sha256 = whole, autov2 = whole:sub(1, 10):upper(), a1111 = whole:sub(1, 10),
    legacy = metadata.legacy_hash(path) }
  if path:match "%.safetensors$" then
    local file = errors.guard("data", core.load, path)
    h.data = metadata.data_hash(path)
    h.a1111_lora = h.data:sub(1, 12)
    h.sshs_model_hash, h.sshs_legacy_hash = file:meta().sshs_model_hash, file:meta().sshs_legacy_hash
    h.sshs_matches = h.sshs_model_hash and h.sshs_model_hash == h.data
  end
  return h
end

local rows = {
  { "sha256", "SHA-256 of the file" }, { "autov2", "AutoV2 (Civitai)" }, { "a1111", "A1111, checkpoint" },
  { "legacy", "A1111 before 2023" }, { "data", "SHA-256 of the data after the header" },
    { "a1111_lora", "A1111, LoRA" },
  { "sshs_model_hash", "sshs_model_hash in the metadata" }, { "sshs_legacy_hash", "sshs_legacy_hash in the metadata" },
}

-- What is to be verified: a file, or in a folder the model files.
local function files_of(path)
  local kind = core.exists(path)
  if not kind then errors.raise("input", path .. ": there is no such file or folder") end
  if kind ~= "folder" then return { path } end
  local list = {}
  for _, each in ipairs(folders.walk(path)) do
    if each:match "%.safetensors$" then list[#list + 1] = each end
  end
  if #list == 0 then errors.raise("input", path .. ": there is no model file in this folder") end
  return list
end

-- { path =, whole =, damaged = { sentences }, by = which sums say so }. A state has hashes of its own. Of a LoRA by
-- another program or by an older Burin the data have one; whatever has none cannot be said to be whole.
local function verify(path)
  local damaged = sums.verify(path)
  if damaged then return { path = path, whole = #damaged == 0, damaged = damaged, by = "its sums" } end
  local meta = core.load(path):meta()
  local wanted = meta.sshs_model_hash
  if meta["burin.state"] then
    return { path = path, whole = state.is_whole(path), damaged = {}, by = "the hashes of a state" }
  end
  if not wanted then return { path = path, whole = false, damaged = {} } end
  local same = metadata.data_hash(path) == wanted
  return { path = path, whole = same, damaged = { not same and "the data after the header" or nil },
    by = "sshs_model_hash, which its header is not part of" }
end

local function verify_all(args)
  local list, whole = {}, true
  for _, path in ipairs(args) do
    for _, each in ipairs(files_of(path)) do
      list[#list + 1] = verify(each)
      whole = whole and list[#list].whole
    end
  end
  if args.json then
    core.write_stdout(core.json_encode(list) .. "\n")
    return whole and 0 or 65
  end
  for _, r in ipairs(list) do
    core.write_stdout(("%s: %s\n"):format(core.shown(r.path), not r.by and "it carries no sums, so nobody can tell"
      or r.whole and "whole, by " .. r.by or "damaged, by " .. r.by))
    for _, what in ipairs(r.damaged) do core.write_stdout(("  damaged: %s\n"):format(core.shown(what))) end
  end
  return whole and 0 or 65
end

return {
  summary = "the hashes of a model file that programs and sites know it by",
  usage = "FILE ... [options]",
  needs = 1,
  options = {
    { "--verify", "flag", "compare files, or those of a folder, with the sums in them: which tensor is damaged" },
  },
  run = function(args)
    if args.verify then return verify_all(args) end
    local list, wrong = {}, false
    for i, path in ipairs(args) do
      list[i] = hashes(path)
      wrong = wrong or list[i].sshs_matches == false
    end
    if args.json then
      core.write_stdout(core.json_encode(list) .. "\n")
    else
      for _, h in ipairs(list) do
        core.write_stdout(h.path .. "\n")
        for _, row in ipairs(rows) do
          if h[row[1]] then core.write_stdout(("  %-64s  %s\n"):format(h[row[1]], row[2])) end
        end
        if h.sshs_matches == false then
          core.write_stdout "  the data have changed since sshs_model_hash was written\n"
        end
      end
    end
    return wrong and 65 or 0
  end,
}
