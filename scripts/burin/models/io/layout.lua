-- SPDX-License-Identifier: MIT
-- layout.lua - a whole model as a list of tensors under canonical names, out of either layout and into either. Nothing
-- is read before it is written: an item is { component, name, dtype, shape, read() }.
local core = require "burin.core"
local configs = require "burin.models.io.configs"
local errors = require "burin.base.errors"
local folders = require "burin.base.folders"
local scaled = require "burin.models.io.scaled"
local sums = require "burin.base.sums"
local layout = {}

local floats = scaled.floats
-- Tensors of single files that no network reads: noise schedules, averages, positions, CLIP's temperature, and the text
-- layer and projection of OpenCLIP that are not used. Source: the key lists in tests/data/keys_*.tsv.
local passive = { "^model_ema", "^betas$", "^alphas_cumprod", "^sqrt_", "^log_one_minus", "^posterior_",
  "position_ids$", "logit_scale$", "text_projection$", "%.resblocks%.%d+%.", "^v_pred$", "^ztsnr$", "^logvar$",
  "^denoiser%.", "^first_stage_model%.model_ema", "%f[^.\0]scaled_fp8$" }

local function is_passive(key)
  for _, pattern in ipairs(passive) do if key:match(pattern) then return true end end
end

local function from_folder(map, component, file, items)
  for _, key in ipairs(file:names()) do
    local info, name = file:info(key), map:from_folder(component, key)
    items[#items + 1] = { component = component, name = name, dtype = info.dtype, shape = info.shape,
      read = function() return file:read(key) end, key = key }
  end
end

local function from_single(map, file, items, extras)
  for _, key in ipairs(file:names()) do
    local info, op = file:info(key), nil
    local component, list
    component, list, op = map:to_canonical(key)
    local other = not component and map:from_alternative(key)
    if other then component, list, op = map:to_canonical(other) end
    for at, name in ipairs(list or {}) do
      local s = { table.unpack(info.shape) }
      if op == "squeeze" then s = { s[1], s[2] }
      elseif op == "transpose" then s = { s[2], s[1] }
      elseif op == "slice" then s[1] = s[1] // 3 end
      items[#items + 1] = { component = component, name = name, dtype = info.dtype, shape = s, key = key }
      items[#items].read = function()
        local t = file:read(key)
        if op == "slice" then return t:rows((at - 1) * s[1] + 1, at * s[1]) end
        if op == "transpose" then return t:permute { 2, 1 } end
        return op == "squeeze" and t:reshape(s) or t
      end
    end
    if not component then
      extras[#extras + 1] = { key = key, dtype = info.dtype, shape = info.shape,
        read = function() return file:read(key) end }
    end
  end
end

-- The items with those of components that come from elsewhere.
local function replaced(items, parts, map)
  local list = {}
  for _, item in ipairs(items) do if not parts[item.component] then list[#list + 1] = item end end
  for component, part in pairs(parts) do
    for _, item in ipairs((layout.items(part, map))) do
      if item.component == component then list[#list + 1] = item end
    end
  end
  return list
end

-- opened: as files.open gives it -> items, extras (of single files, { key =, dtype =, shape =, read = } ... that have
-- no canonical name), { unknown names } that no known program writes
function layout.items(opened, map)
  local items, extras, unknown = {}, {}, {}
  if opened.single then
    from_single(map, opened.single, items, extras)
  else
    for component, file in pairs(opened) do
      if component ~= "extras" and component ~= "parts" then from_folder(map, component, file, items) end
    end
    for _, key in ipairs(opened.extras and opened.extras:names() or {}) do
      local info = opened.extras:info(key)
      extras[#extras + 1] = { key = key, dtype = info.dtype, shape = info.shape,
        read = function() return opened.extras:read(key) end }
    end
  end
  if opened.parts then items = replaced(items, opened.parts, map) end
  for _, e in ipairs(extras) do if not is_passive(e.key) then unknown[#unknown + 1] = e.key end end
  return items, extras, unknown
end

-- What a traced model has and items lack, and the other way round, as lists of names.
function layout.compare(items, model)
  local have, missing, unknown = {}, {}, {}
  for _, item in ipairs(items) do have[item.component .. "." .. item.name] = item end
  for _, component in ipairs(model:components()) do
    for _, e in ipairs(component.order) do
      local name = component.name .. "." .. e.name
      if not have[name] then missing[#missing + 1] = name end
      have[name] = nil
    end
  end
  for name in pairs(have) do
    if not name:match "position_ids$" then unknown[#unknown + 1] = name end
  end
  table.sort(unknown)
  return missing, unknown
end

-- Items (or extras) whose floats have another type.
function layout.cast(items, dtype)
  local list = {}
  for i, item in ipairs(items) do
    list[i] = item
    if floats[item.dtype] and item.dtype ~= dtype then
      list[i] = setmetatable({ dtype = dtype, read = function() return item.read():cast(dtype) end },
        { __index = item })
    end
  end
  return list
end

-- Stops where "every bit as it is" cannot be kept: weights that are the product of 8 bits and a scale, and, where new
-- numbers are made (changes: item -> whether it gets some), 8 bits.
function layout.check_keep(path, opened, items, changes)
  local function refuse(name, what)
    errors.file(path, "%s is %s; say --dtype f16 (or bf16, f32) for what is written", name, what)
  end
  for _, file in pairs(opened) do
    local name = file.scaled and next(file.scaled)
    if name then refuse(name, "an 8-bit float with a scale, which is read but not written") end
  end
  for _, item in ipairs(items) do
    if changes and item.dtype:find "^f8" and changes(item) then
      refuse(item.key or item.name, "an 8-bit float, to which nothing is converted")
    end
  end
end

local function entry(name, item) return { name, item.read, dtype = item.dtype, shape = item.shape } end

-- in_proj of OpenCLIP: three tensors one after the other
local function join(parts)
  local s = parts[1].shape
  local shape = s[2] and { 3 * s[1], s[2] } or { 3 * s[1] }
  return { dtype = parts[1].dtype, shape = shape, read = function()
    local t = core.tensor(shape, parts[1].dtype)
    for i = 1, 3 do
      local part = parts[i].read()
      t:copy_into((i - 1) * part.count + 1, part)
    end
    return t
  end }
end

-- Files of some families hold one text layer more than is used, and a projection. Without a source the layer
-- repeats the last used one and the projection is the identity, which no program looks at.
local function unused_text(list, config, prefix)
  local have = {}
  for _, e in ipairs(list) do have[e[1]] = true end
  local block = ("%stransformer.resblocks.%%d."):format(prefix)
  local last, unused = block:format(config.layers - 1), block:format(config.layers)
  local dtype
  for _, e in ipairs { table.unpack(list) } do
    if e[1]:sub(1, #last) == last then
      dtype = e.dtype:find "^f8" and "f16" or e.dtype  -- nothing is made in 8 bits
      local name = unused .. e[1]:sub(#last + 1)
      if not have[name] then list[#list + 1] = { name, e[2], dtype = e.dtype, shape = e.shape } end
    end
  end
  local function add(name, shape, make)
    if not have[prefix .. name] then
      list[#list + 1] = { prefix .. name, function() return make():cast(dtype) end, dtype = dtype, shape = shape }
    end
  end
  add("text_projection", { config.width, config.width }, function()
    local t = core.tensor({ config.width, config.width }, "f32")
    for i = 0, config.width - 1 do t:set(i * config.width + i + 1, 1) end
    return t
  end)
  add("logit_scale", {}, function() return core.tensor({}, "f32", 4.60517) end)
end

-- items -> what core.export takes, under a single file's names
function layout.single(items, extras, map, config)
  local list, slices = {}, {}
  for _, item in ipairs(items) do
    local key, op, at = map:to_file(item.component, item.name)
    if not key and item.name:match "position_ids$" then goto next end  -- OpenCLIP's files have none
    if not key then error(item.component .. "." .. item.name .. " has no name in a single file", 0) end
    if op == "slice" then
      slices[key] = slices[key] or {}
      slices[key][at + 1] = item
    elseif op == "squeeze" then
      local s = { item.shape[1], item.shape[2], 1, 1 }
      list[#list + 1] = { key, function() return item.read():reshape(s) end, dtype = item.dtype, shape = s }
    elseif op == "transpose" then
      list[#list + 1] = { key, function() return item.read():permute { 2, 1 } end, dtype = item.dtype,
        shape = { item.shape[2], item.shape[1] } }
    else
      list[#list + 1] = entry(key, item)
    end
    ::next::
  end
  for key, parts in pairs(slices) do
    if not (parts[1] and parts[2] and parts[3]) then error(key .. " needs q, k and v", 0) end
    list[#list + 1] = entry(key, join(parts))
  end
  for _, e in ipairs(extras) do list[#list + 1] = entry(e.key, e) end
  for i, rule in ipairs(map.family.text) do
    if rule.unused_layers and config.text[i] then unused_text(list, config.text[i], rule.prefix) end
  end
  return list
end

local function metadata_of(config, metadata)
  local all, plain = { format = "pt" }, {}
  for k, v in pairs(config) do plain[k] = v end
  all["burin.config"] = core.json_encode(plain)
  for k, v in pairs(metadata or {}) do all[k] = v end
  return sums.ask(all)
end

-- o: metadata (texts), extras
function layout.write_single(path, items, map, config, o)
  errors.guard("output", core.export, path, "safetensors", layout.single(items, o.extras or {}, map, config),
    metadata_of(config, o.metadata))
end

local file_names = { unet = "diffusion_pytorch_model", vae = "diffusion_pytorch_model", text_encoder = "model",
  text_encoder_2 = "model" }

-- A diffusers folder. o: metadata, extras, texts (files that are taken over as they are, { [name] = text }, instead of
-- those made from the configuration), mark (a training's, folders.lua).
function layout.write_folder(path, items, map, config, o)
  folders.write(path, function(place)
    local parts = {}
    for _, item in ipairs(items) do
      parts[item.component] = parts[item.component] or {}
      table.insert(parts[item.component], entry(item.name, item))
    end
    for component, list in pairs(parts) do
      core.make_dirs(place .. "/" .. component)
      core.export(("%s/%s/%s.safetensors"):format(place, component, file_names[component]), "safetensors", list,
        component == "unet" and metadata_of(config, o.metadata) or sums.ask { format = "pt" })
    end
    if o.extras and #o.extras > 0 then
      local list = {}
      for i, e in ipairs(o.extras) do list[i] = entry(e.key, e) end
      core.export(place .. "/" .. layout.extras_file, "safetensors", list, sums.ask { format = "pt" })
    end
    for name, text in pairs(o.texts or configs.folder(config, parts)) do
      core.make_dirs(place .. "/" .. (name:match "^(.*)/" or "."))
      core.write_file(place .. "/" .. name, text)
    end
  end, o.mark)
end

-- Beside the components of a folder: what a single file held that diffusers has no place for, so that converting back
-- gives the same file. diffusers does not look at it.
layout.extras_file = "single_file_extras.safetensors"

return layout
