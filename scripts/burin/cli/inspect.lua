-- SPDX-License-Identifier: MIT
-- inspect.lua - what a file is, and what other programs will take it for.
local consumers = require "burin.adapters.consumers"
local core = require "burin.core"
local device = require "burin.graph.device"
local embeddings = require "burin.text.embeddings"
local errors = require "burin.base.errors"
local families = require "burin.models.families"
local file = require "burin.adapters.file"
local files = require "burin.models.io.files"
local infotext = require "burin.sample.infotext"
local keys = require "burin.adapters.keys"
local models = require "burin.models.model"
local sums = require "burin.base.sums"
local adapters = require "burin.adapters.convert"

-- { { file =, name = component or nil } ... } behind a path
local function open(path)
  if not core.exists(path) then errors.raise("input", path .. ": there is no such file or folder") end
  if core.exists(path) == "file" then return { { file = errors.guard("data", sums.load, path) } } end
  local list = {}
  if adapters.is_lora(path) then
    for i, source in ipairs(file.sources(path)) do list[i] = { file = errors.guard("data", sums.load, source.path),
      name = source.component } end
  else
    local _, opened = files.open(path)
    for name, f in pairs(opened) do list[#list + 1] = { file = f, name = name } end
    table.sort(list, function(a, b) return a.name < b.name end)
  end
  return list
end

-- A1111's rule (extensions-builtin/Lora/network.py) and Forge's (modules_forge): by metadata alone.
local function lora_consumers(meta)
  local list = {}
  for i, program in ipairs { "A1111", "Forge" } do
    list[i] = { program, families.seen_as(program, meta) or "Unknown" }
  end
  return list
end

local function range(list)
  table.sort(list)
  if #list == 0 then return nil end
  local function text(v) return ("%g"):format(v) end
  return list[1] == list[#list] and text(list[1]) or text(list[1]) .. " to " .. text(list[#list])
end

local styles = { first = "kohya", kohya = "kohya", extra = "kohya, with other names of layers", lycoris = "LyCORIS",
  diffusers = "diffusers", short = "PEFT or diffusers", bare = "bare names", peft = "PEFT", comfy = "ComfyUI",
  omi = "OneTrainer (OMI)" }

-- Whose names the most layers have.
local function spelling_of(read)
  local counts, best = {}, nil
  for _, e in ipairs(read) do
    local name = styles[e.style]
    if e.style == "diffusers" and e.spelt[1].form ~= "peft" then name = "older diffusers" end
    counts[name] = (counts[name] or 0) + 1
    if not best or counts[name] > counts[best] then best = name end
  end
  return best
end

-- The algorithm of a file that cannot be applied (keys.lua); nil for others.
local function algorithm_of(parts)
  for _, p in ipairs(parts) do
    for _, key in ipairs(p.file:names()) do
      local found = keys.algorithm(key, #p.file:info(key).shape)
      if found then return found end
    end
  end
end

local function lora_facts(path, base)
  local parts, meta = open(path), {}
  for _, p in ipairs(parts) do for k, v in pairs(p.file:meta()) do meta[k] = v end end
  local facts = { consumers = lora_consumers(meta) }
  local algorithm = algorithm_of(parts)
  if algorithm then
    facts.what = ("adapter of the kind %s, which cannot be applied to a model here"):format(algorithm)
    return facts
  end
  local known, model = pcall(adapters.model, path, base)
  if not known then
    facts.what = "LoRA of an unknown model; --base MODEL says more"
    return facts
  end
  facts.what, facts.prediction = model.family.name .. " LoRA", meta["modelspec.prediction_type"]
  local ok, read = pcall(file.read, path, keys.index(model))
  if not ok then
    facts.what = facts.what .. ", with tensors that do not fit: "
      .. (type(read) == "table" and read.message or tostring(read))
    return facts
  end
  local kinds, ranks, alphas, by = {}, {}, {}, {}
  for _, e in ipairs(read.adapters) do
    local kind = e.kind .. ((e.parts.dora or e.parts.magnitude) and " with DoRA" or e.parts.mid
      and " with middle kernels" or "")
    kinds[kind] = (kinds[kind] or 0) + 1
    by[e.layer.component] = (by[e.layer.component] or 0) + 1
    ranks[#ranks + 1], alphas[#alphas + 1] = e.rank, e.alpha
  end
  local function counts(t)
    local list = {}
    for k, n in pairs(t) do list[#list + 1] = n .. " " .. k end
    table.sort(list)
    return table.concat(list, ", ")
  end
  facts.rank, facts.alpha, facts.kinds, facts.layers = range(ranks), range(alphas), counts(kinds), counts(by)
  facts.spelling, facts.loads = spelling_of(read.adapters), consumers.count(read.adapters)
  return facts
end

local words = { unet = "U-Net", vae = "VAE", text_encoder = "text encoder", text_encoder_2 = "second text encoder" }

-- Out of models/io/report.lua.
local function checkpoint_facts(r)
  local facts = { what = ("%s checkpoint, %s"):format(r.label, r.layout), prediction = r.prediction, noise = r.noise,
    channels = r.channels, purpose = r.purpose, components = {}, lacks = r.lacks, missing = r.missing, wrong = {},
    unknown = r.unknown }
  if r.purpose then facts.what = ("%s: %s (%d input channels)"):format(facts.what, r.purpose, r.channels) end
  if #r.lacks + #r.missing > 0 then facts.what = facts.what .. ", not whole" end
  if r.scaled > 0 then facts.what = ("%s, %d weights with a scale each"):format(facts.what, r.scaled) end
  if #r.extras > 0 then facts.what = ("%s, %d tensors that no network reads"):format(facts.what, #r.extras) end
  for i, c in ipairs(r.components) do
    facts.components[i] = { name = c.name, tensors = c.tensors, dtype = c.dtype }
    for _, text in ipairs(c.wrong) do table.insert(facts.wrong, text) end
  end
  return facts
end

-- Out of text/embeddings.lua.
local function inversion_facts(e)
  return { what = ("textual inversion for %s: the word '%s' in prompts"):format(e.family or "an unknown model", e.word),
    vectors = e.vectors, width = e.widths }
end

-- { what =, prediction =, consumers = { { program, what it sees } ... }, unknown = { names }, ... } of a checkpoint or
-- LoRA
local function facts_of(path, base)
  if adapters.is_lora(path) then return lora_facts(path, base) end
  local inversion = core.exists(path) == "file"
    and embeddings.describe(errors.guard("data", core.load, path), path)
  if inversion then return inversion_facts(inversion) end
  device.null()
  local opens, model = pcall(models.open, path)
  if not opens then
    if not errors.is(model) then error(model, 0) end  -- a bug of ours
    return { what = "no Stable Diffusion model: " .. errors.message(model) }
  end
  return checkpoint_facts(model:look())
end

local function print_facts(facts)
  local function line(name, value) if value then core.write_stdout(("%-22s %s\n"):format(core.shown(name),
    core.shown(tostring(value)))) end end
  line("is", facts.what)
  for _, c in ipairs(facts.components or {}) do line(words[c.name], ("%d tensors, %s"):format(c.tensors, c.dtype)) end
  for _, name in ipairs(facts.lacks or {}) do line(words[name], "not there") end
  for _, name in ipairs(facts.missing or {}) do line("missing", name) end
  for _, text in ipairs(facts.wrong or {}) do line("wrong", text) end
  line("prediction", facts.prediction)
  line("noise", facts.noise)
  line("input channels", facts.channels)
  for _, name in ipairs { "vectors", "width", "rank", "alpha", "layers", "kinds", "spelling" } do
    line(name, facts[name])
  end
  for _, row in ipairs(facts.consumers or {}) do line(row[1] .. " sees", row[2]) end
  for _, row in ipairs(facts.loads or {}) do line(row.program .. " loads", consumers.text(row)) end
  if facts.unknown and #facts.unknown > 0 then
    line("unknown", #facts.unknown .. ": " .. table.concat(facts.unknown, ", ", 1, math.min(4, #facts.unknown)))
  end
end

return {
  summary = "what is in a model file or a picture: what it is, who will recognise it, tensors, metadata",
  usage = "FILE-OR-FOLDER [options]",
  needs = 1,
  options = {
    { "--values", "flag", "also mean, deviation, least and greatest value of each tensor" },
    { "--base", "model", "of a LoRA: the checkpoint whose layers it names" },
    { "--summary", "flag", "no list of tensors" },
  },
  run = function(args)
    if infotext.inspect(args[1], args.json) then return 0 end
    local parts = open(args[1])
    local facts, list, total, meta = facts_of(args[1], args.base), {}, 0, {}
    for _, part in ipairs(parts) do
      for _, name in ipairs(part.file:names()) do
        local t = part.file:info(name)
        t.name = part.name and part.name .. ": " .. name or name
        total = total + t.bytes
        if args.values then t.stats = part.file:read(name):stats() end
        list[#list + 1] = t
      end
      for k, v in pairs(part.file:meta()) do meta[k] = v end
    end
    if args.json then
      core.write_stdout(core.json_encode { tensors = list, metadata = meta, bytes = total, facts = facts } .. "\n")
      return 0
    end
    print_facts(facts)
    local keys = {}
    for k in pairs(meta) do keys[#keys + 1] = k end
    table.sort(keys)
    for _, k in ipairs(keys) do
      local v = meta[k]
      v = #v > 120 and v:sub(1, 117):gsub("[\xc0-\xff][\x80-\xbf]*$", "") .. "..." or v
      core.write_stdout(("# %s = %s\n"):format(core.shown(k), core.shown(v)))
    end
    for _, t in ipairs(args.summary and {} or list) do
      core.write_stdout(("%-5s %-22s %s%s\n"):format(t.dtype, "(" .. table.concat(t.shape, ", ") .. ")",
        core.shown(t.name),
        t.stats and ("  mean %.4g std %.4g min %.4g max %.4g%s"):format(t.stats.mean, t.stats.std, t.stats.min,
          t.stats.max, t.stats.finite and "" or "  NOT FINITE") or ""))
    end
    core.write_stdout(("%d tensors, %.2f MiB\n"):format(#list, total / 2 ^ 20))
  end,
}
