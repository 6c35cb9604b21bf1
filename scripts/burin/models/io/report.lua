-- SPDX-License-Identifier: MIT
-- report.lua - what a model's files hold, lack and are, found once when it is opened: inspect, plan, train and sample
-- print from it, and refuse by it.
local components = require "burin.graph.component"
local errors = require "burin.base.errors"
local families = require "burin.models.families"
local layout = require "burin.models.io.layout"
local scaled = require "burin.models.io.scaled"
local reports = {}

-- A component's name for people, with its article.
function reports.title(name)
  if name == "unet" then return "the U-Net" end
  return name == "vae" and "a VAE" or name == "text_encoder_2" and "a second text encoder" or "a text encoder"
end

-- What a U-Net takes beside the latents, by the number of its input channels.
local function purpose_of(unet)
  local out, more = unet.out_channels, unet.in_channels - unet.out_channels
  if more == 0 then return nil end
  return more == out + 1 and "an inpainting model" or more == out and "a model that is told a picture to edit"
    or more == 1 and "a model that is told depth" or "a model of another kind"
end

-- "f16", or "f16, f32 (3 of 686)": the commonest type and the others.
local function types_of(items)
  local count, list = {}, {}
  for _, item in ipairs(items) do count[item.dtype] = (count[item.dtype] or 0) + 1 end
  for dtype in pairs(count) do list[#list + 1] = dtype end
  table.sort(list, function(a, b)
    if count[a] ~= count[b] then return count[a] > count[b] end
    return a < b
  end)
  for i = 2, #list do list[i] = ("%s (%d of %d)"):format(list[i], count[list[i]], #items) end
  return table.concat(list, ", ")
end

-- A tensor's name, with the file's own where that is another.
local function full_name(model, component, name)
  local key = model.files.single and model.map:to_file(component, name)
  return key and ("%s.%s (%s in the file)"):format(component, name, key) or component .. "." .. name
end

-- Tensors that are there, but not as the networks have them.
local function wrong_in(model, component, items)
  local by, list = {}, {}
  for _, item in ipairs(items) do by[item.name] = item end
  for _, e in ipairs(component.order) do
    local item = by[e.name]
    if item and not components.fits(e, item.shape) then
      list[#list + 1] = ("%s has the shape (%s), not (%s)"):format(full_name(model, component.name, e.name),
        table.concat(item.shape, ", "), table.concat(components.file_shape(e), ", "))
    elseif item and not scaled.floats[item.dtype] then
      list[#list + 1] = ("%s is %s; a float is expected"):format(full_name(model, component.name, e.name), item.dtype)
    end
  end
  return list
end

-- twin: the model's networks, traced. -> { path, label, layout, components = { { name, tensors, dtype, wrong } ... },
-- scaled (how many weights have a
-- scale each), lacks = { components }, missing = { tensors }, unknown, strange (lists of names), channels,
-- latent_channels, purpose, prediction, noise, items, extras }
function reports.of(model, twin)
  local r = { path = model.path, label = model.family.label, components = {}, lacks = {}, missing = {},
    layout = model.files.single and "single file" or "diffusers folder",
    channels = model.config.unet.in_channels, latent_channels = model.config.unet.out_channels,
    purpose = purpose_of(model.config.unet), prediction = model.noise.prediction, noise = model.noise:describe() }
  r.items, r.extras, r.strange = layout.items(model.files, model.map)
  r.scaled = 0
  for _, file in pairs(model.files) do for _ in pairs(file.scaled or {}) do r.scaled = r.scaled + 1 end end
  local missing, by = nil, {}
  missing, r.unknown = layout.compare(r.items, twin)
  for i, name in ipairs(missing) do r.missing[i] = full_name(model, name:match "^(.-)%.(.*)$") end
  for _, item in ipairs(r.items) do
    by[item.component] = by[item.component] or {}
    table.insert(by[item.component], item)
  end
  local expected = { "unet", "vae" }
  for i in ipairs(model.family.text) do expected[#expected + 1] = families.text_name(i) end
  for _, name in ipairs(expected) do
    local component = twin:component(name)
    if component then
      table.insert(r.components, { name = name, tensors = #component.order, dtype = types_of(by[name] or {}),
        wrong = wrong_in(model, component, by[name] or {}) })
    else
      table.insert(r.lacks, name)
    end
  end
  return r
end

-- { "a VAE", "a text encoder" } -> "a VAE and a text encoder"
local function joined(list)
  local titles = {}
  for i, name in ipairs(list) do titles[i] = reports.title(name) end
  return #titles < 2 and titles[1] or table.concat(titles, ", ", 1, #titles - 1) .. " and " .. titles[#titles]
end

-- "1, 2, 3, 4, 5, ..."
function reports.some(list)
  return table.concat(list, ", ", 1, math.min(#list, 5)) .. (#list > 5 and ", ..." or "")
end

local function count(list) return #list == 1 and "1 tensor is" or #list .. " tensors are" end

-- Stops unless every tensor of the components that are there is there, and as it should be.
function reports.check_tensors(r)
  if #r.missing > 0 then errors.file(r.path, "%s missing: %s", count(r.missing), reports.some(r.missing)) end
  for _, c in ipairs(r.components) do
    if c.wrong[1] then errors.file(r.path, "%s", c.wrong[1]) end
  end
end

-- Stops unless the model can be trained and sampled.
function reports.check(r)
  if r.purpose then
    errors.file(r.path, "this is %s of %s (%d input channels where others have %d); Burin trains and samples those "
      .. "that take latents alone, and a LoRA of one kind is none for the other", r.purpose, r.label, r.channels,
      r.latent_channels)
  end
  if #r.lacks > 0 then
    errors.file(r.path, "this %s of %s is without %s; complete it with burin.model { \"FILE\", %s } or sample's --%s",
      r.layout, r.label, joined(r.lacks), table.concat(r.lacks, " = \"...\", ") .. " = \"...\"",
      (r.lacks[1]:gsub("_", "-")))
  end
  reports.check_tensors(r)
end

-- One line: "Stable Diffusion 1.x, single file, f16, predicts epsilon, 1000 timesteps". What it lacks is in it.
function reports.line(r)
  local types, list = {}, {}
  for _, c in ipairs(r.components) do
    local first = c.dtype:match "^%w+" or "no type"
    if not types[first] then list[#list + 1] = first end
    types[first] = true
  end
  local text = ("%s, %s, %s, %s"):format(r.label, r.layout, table.concat(list, " and "), r.noise)
  if r.purpose then text = ("%s; %s (%d input channels)"):format(text, r.purpose, r.channels) end
  if #r.lacks > 0 then text = text .. "; without " .. joined(r.lacks) end
  if #r.missing > 0 then text = ("%s; %s missing"):format(text, count(r.missing)) end
  return text
end

return reports
