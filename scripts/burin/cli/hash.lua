-- SPDX-License-Identifier: MIT
local core = require "burin.core"
local errors = require "burin.base.errors"
local metadata = require "burin.adapters.metadata"

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

return {
  summary = "the hashes of a model file that programs and sites know it by",
  usage = "FILE ... [options]",
  needs = 1,
  run = function(args)
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
