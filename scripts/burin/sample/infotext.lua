-- SPDX-License-Identifier: MIT
-- infotext.lua - the text that a picture carries: A1111's `parameters`, in its words and order, so that its PNG Info
-- and everything that reads it understands a picture of ours. And the way back, for `burin inspect`.
local cache = require "burin.base.cache"
local core = require "burin.core"
local errors = require "burin.base.errors"
local metadata = require "burin.adapters.metadata"
local samplers = require "burin.sample.samplers"
local infotext = {}

-- hash(path) -> SHA-256 in hex, kept in the cache under the file's content: a checkpoint takes seconds.
local function cached(kind, hash, path)
  local bytes = cache.get("sha256", core.hash(core.hash_file(path) .. kind), function()
    local values = {}
    for pair in hash(path):gmatch "%x%x" do values[#values + 1] = tonumber(pair, 16) end
    return core.tensor({ 32 }, "u8", values)
  end, { of = core.real_path(path) })
  return (bytes:bytes():gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local function stem(path) return (path:match "[^/]*$":gsub("%.%w+$", "")) end

-- What A1111 calls a model and a LoRA: the file's hash, and that of its tensors (what sd-scripts writes as
-- sshs_model_hash). path: of the model; a folder has no hash. loras: { { path =, scale = } ... }. vae: of the VAE where
-- it is another file's. embeddings: paths of textual inversions. Returns { model =, hash =, vae =, vae_hash =, loras =
-- { ... }, embeddings = { ... } }.
function infotext.sources(path, loras, vae, embeddings)
  local function hash(of) return core.exists(of) == "file" and cached("file", core.sha256_file, of):sub(1,
    10) or nil end
  local s = { model = stem(path:gsub("/+$", "")), hash = hash(path), loras = {},
    embeddings = {} }
  if vae then s.vae, s.vae_hash = vae:match "([^/]*)/*$", hash(vae) end
  for i, of in ipairs(embeddings or {}) do
    s.embeddings[i] = { name = stem(of), hash = cached("file", core.sha256_file, of):sub(1, 12) }
  end
  for i, l in ipairs(loras) do
    local file = core.load(l.path)
    local known = file:meta().sshs_model_hash
    file:close()
    known = known or cached("data", metadata.data_hash, l.path)
    s.loras[i] = { name = stem(l.path), scale = l.scale, hash = known:sub(1, 12) }
  end
  return s
end

-- A1111 puts a value in quotes when it has a character that separates.
local function quoted(text)
  text = tostring(text)
  return text:find '[,:\n]' and core.json_encode(text) or text
end

-- job: prompt, negative, seed, steps, guidance, sampler, sigmas, strength. size: width, height, clip_skip, rescale,
-- zero_snr, as sample.new takes them. sources: of infotext.sources, optional. LoRAs stand in the prompt too, since
-- A1111 takes them from there.
function infotext.write(job, size, sources)
  local prompt, hashes = { job.prompt }, {}
  for _, l in ipairs(sources and sources.loras or {}) do
    prompt[#prompt + 1] = ("<lora:%s:%g>"):format(l.name, l.scale)
    hashes[#hashes + 1] = ("%s: %s"):format(l.name, l.hash)
  end
  local both, inversions = (job.prompt .. "\n" .. (job.negative or "")):lower(), {}
  for _, e in ipairs(sources and sources.embeddings or {}) do
    if both:find(e.name:lower(), 1, true) then inversions[#inversions + 1] = ("%s: %s"):format(e.name, e.hash) end
  end
  local fields = {}
  local function field(name, format, value)
    if value ~= nil then fields[#fields + 1] = name .. ": " .. quoted(format:format(value)) end
  end
  field("Steps", "%d", job.steps)
  field("Sampler", "%s", samplers.list[job.sampler].label)
  field("Schedule type", "%s", job.sigmas == "karras" and "Karras" or nil)
  field("CFG scale", "%g", job.guidance)
  field("Seed", "%d", job.seed)
  field("Size", "%s", ("%dx%d"):format(size.width, size.height))
  field("Model hash", "%s", sources and sources.hash)
  field("Model", "%s", sources and sources.model)
  field("VAE hash", "%s", sources and sources.vae_hash)
  field("VAE", "%s", sources and sources.vae)
  field("Denoising strength", "%g", job.strength)
  field("Clip skip", "%d", size.clip_skip)
  field("CFG rescale", "%g", size.rescale)
  field("Noise Schedule", "%s", size.zero_snr and "Zero Terminal SNR" or nil)
  field("Lora hashes", "%s", #hashes > 0 and table.concat(hashes, ", ") or nil)
  field("TI hashes", "%s", #inversions > 0 and table.concat(inversions, ", ") or nil)
  field("Version", "%s", "burin " .. core.version)
  local lines = { table.concat(prompt, " ") }
  if (job.negative or "") ~= "" then lines[2] = "Negative prompt: " .. job.negative end
  lines[#lines + 1] = table.concat(fields, ", ")
  return table.concat(lines, "\n")
end

-- ---- reading --------------------------------------------------------------------------------------------------------

-- The plain texts of a PNG file's bytes: { { key, text } ... }, width, height; nil when it is no PNG. Compressed texts
-- are left out. Of a damaged file, what comes before the damage. PNG specification (ISO 15948), 11.3.4.
function infotext.read_png(bytes)
  if bytes:sub(1, 8) ~= "\x89PNG\r\n\x1a\n" or bytes:sub(13, 16) ~= "IHDR" or #bytes < 33 then return nil end
  local list, at = {}, 9
  while at + 8 <= #bytes do
    local length, kind = (">I4c4"):unpack(bytes, at)
    if at + 12 + length > #bytes + 1 then break end
    local data = bytes:sub(at + 8, at + 7 + length)
    local key, rest = data:match "^([^\0]*)\0(.*)$"
    if kind == "iTXt" and key then
      rest = rest:match "^\0.[^\0]*\0[^\0]*\0(.*)$"  -- not compressed; method, language, translated key
    end
    if (kind == "tEXt" or kind == "iTXt") and key and rest then list[#list + 1] = { key, rest } end
    at = at + 12 + length
  end
  return list, (">I4I4"):unpack(bytes, 17)
end

-- `burin inspect picture.png`: prints what it carries; false when the file is no PNG.
function infotext.inspect(path, json)
  local head = core.exists(path) == "file" and core.read_part(path, 0, 8)
  if head ~= "\x89PNG\r\n\x1a\n" then return false end
  local list, width, height = infotext.read_png(core.read_file(path, 1 << 28))
  if not list then errors.raise("data", path .. ": damaged: a PNG file without its header") end
  if json then
    local text = {}
    for _, one in ipairs(list) do text[one[1]] = one[2] end
    core.write_stdout(core.json_encode { width = width, height = height, text = text } .. "\n")
  else
    for _, one in ipairs(list) do core.write_stdout(("# %s\n%s\n"):format(core.shown(one[1]), one[2])) end
    core.write_stdout(("%d x %d pixels, %d texts\n"):format(width, height, #list))
  end
  return true
end

return infotext
