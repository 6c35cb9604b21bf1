-- SPDX-License-Identifier: MIT
-- settings.lua - what the shapes of tensors do not show: heads, norm groups, what is predicted. Burin's own metadata
-- say it, a config.json beside a single file, or the files of a diffusers folder. Models are downloaded: every value
-- that is taken must have its type and agree with the tensors.
local core = require "burin.core"
local errors = require "burin.base.errors"
local families = require "burin.models.families"
local noise = require "burin.models.noise"
local settings = {}

local fail = errors.file

-- ---- rules: value -> whether it is right, what was expected -------------------------------------------------------

local function integer(low, high)
  local wanted = ("an integer from %d to %d"):format(low, high)
  return function(v) return math.type(v) == "integer" and v >= low and v <= high, wanted end
end
local function number(low, high)
  local wanted = ("a number between %g and %g"):format(low, high)
  return function(v) return type(v) == "number" and v > low and v < high, wanted end
end
local function boolean(v) return type(v) == "boolean", "true or false" end
local function one_of(...)
  local list = { ... }
  return function(v)
    for _, known in ipairs(list) do if v == known then return true end end
    return false, "one of " .. table.concat(list, ", ")
  end
end
local function text_of(v)
  return type(v) == "table" and core.json_encode(v) or type(v) == "string" and '"' .. v .. '"' or tostring(v)
end
local function equal(want)
  return function(v) return text_of(v) == text_of(want), text_of(want) .. ", as the tensors have it," end
end

-- Divisors of each level's channels: one for all or, where `listed`, a list.
local function divisors(channels, listed)
  return function(v)
    local ok = type(v) ~= "table" or listed and #v == #channels and #v > 1
    for i, c in ipairs(channels) do
      local d = type(v) == "table" and v[i] or v
      ok = ok and math.type(d) == "integer" and d >= 1 and d <= c and c % d == 0
    end
    return ok, "divisors of " .. table.concat(channels, ", ")
  end
end

-- Removes what is null, checks the fields that have rules; a table of rules is for an object.
local function check(where, object, rules, prefix)
  prefix = prefix or ""
  for field, rule in pairs(rules) do
    local value = object[field]
    if value == core.null then object[field], value = nil, nil end
    if value ~= nil and type(rule) == "table" then
      if type(value) ~= "table" then
        fail(where, "%s%s is %s; an object was expected", prefix, field, text_of(value))
      end
      check(where, value, rule, prefix .. field .. ".")
    elseif value ~= nil then
      local ok, expected = rule(value)
      if not ok then fail(where, "%s%s is %s; %s was expected", prefix, field, text_of(value), expected) end
    end
  end
  return object
end

-- ---- into the configuration c of detect.lua -----------------------------------------------------------------------

local function set_heads(c, heads)
  for i = 1, #c.channels do c.heads[i] = type(heads) == "table" and heads[i] or heads end
end

local function set_prediction(c, text)
  if text then c.prediction, c.prediction_known = text == "epsilon" and "epsilon" or "v", true end
end

local function set_text(t, j)
  if not t or not j then return end
  t.heads = j.num_attention_heads or j.heads or t.heads
  t.act = j.hidden_act or j.act or t.act
end

local function text_rules(t)
  local act = one_of("gelu", "quick_gelu")
  return t and { hidden_size = equal(t.width), num_hidden_layers = equal(t.layers), vocab_size = equal(t.vocab),
    num_attention_heads = divisors { t.width }, heads = divisors { t.width }, hidden_act = act, act = act }
end

-- What Burin wrote in its own files: a configuration as c itself, of which only that is taken which tensors do not
-- show.
function settings.own(c, j, where)
  if type(j) ~= "table" then fail(where, "an object was expected in burin.config") end
  local id, u, v = integer(0, 1 << 24), c.unet, c.vae
  local rules = { family = equal(c.family), prediction = one_of("epsilon", "v"), prediction_known = boolean,
    zero_snr = boolean, scaling_factor = number(0, 1000), bos = id, eos = id, pad = { id, id },
    sample_size = integer(8, 32768), text = {},
    unet = { heads = divisors(u.channels, true), groups = divisors(u.channels), time_ids_width = integer(2, 65536) },
    vae = v and { groups = divisors(v.channels) } }
  for i, t in ipairs(c.text) do rules.text[i] = text_rules(t) end
  check(where .. ": burin.config", j, rules)
  for field in pairs(rules) do
    if type(rules[field]) ~= "table" and j[field] ~= nil then c[field] = j[field] end
  end
  c.pad = j.pad and { j.pad[1], j.pad[2] }
  if j.unet then
    set_heads(u, j.unet.heads or u.heads)
    u.groups, u.time_ids_width = j.unet.groups or u.groups, j.unet.time_ids_width or u.time_ids_width
  end
  if v and j.vae then v.groups = j.vae.groups or v.groups end
  for i, t in ipairs(c.text) do set_text(t, j.text and j.text[i]) end
end

-- Of a component that lies in a file of its own: what Burin wrote there.
function settings.part(c, component, j, where)
  if type(j) ~= "table" then fail(where, "an object was expected in burin.config") end
  local i = families.text_index(component)
  check(where .. ": burin.config", j, { family = equal(c.family), scaling_factor = number(0, 1000),
    vae = not i and { groups = divisors(c.vae.channels) } or nil, text = i and { [i] = text_rules(c.text[i]) } or nil })
  if i then
    set_text(c.text[i], j.text and j.text[i])
  else
    c.vae.groups, c.scaling_factor = j.vae and j.vae.groups or c.vae.groups, j.scaling_factor or c.scaling_factor
  end
end

-- The same of diffusers' config.json of the component.
function settings.part_folder(c, component, j, where)
  local i = families.text_index(component)
  if i then return set_text(c.text[i], check(where, j, text_rules(c.text[i]))) end
  check(where, j, { norm_num_groups = divisors(c.vae.channels), scaling_factor = number(0, 1000) })
  c.vae.groups, c.scaling_factor = j.norm_num_groups or c.vae.groups, j.scaling_factor or c.scaling_factor
end

-- A config.json beside a single file: one object for the whole model.
function settings.beside(c, j, where)
  local id, u, v = integer(0, 1 << 24), c.unet, c.vae
  local head_channels = function(n)
    local ok = math.type(n) == "integer" and n >= 1
    for _, ch in ipairs(u.channels) do ok = ok and ch % n == 0 end
    return ok, "a divisor of " .. table.concat(u.channels, ", ")
  end
  check(where, j, { attention_heads = divisors(u.channels, true), num_head_channels = head_channels,
    norm_num_groups = divisors(u.channels), time_id_embed_dim = integer(2, 65536),
    prediction_type = one_of("epsilon", "v_prediction"), rescale_betas_zero_snr = boolean, bos = id, eos = id,
    pad = id, pad_te1 = id, pad_te2 = id, text_encoder = text_rules(c.text[1]),
    text_encoder_2 = text_rules(c.text[2]),
    vae = v and { norm_num_groups = divisors(v.channels), scaling_factor = number(0, 1000) } })
  if j.attention_heads then set_heads(u, j.attention_heads) end
  if j.num_head_channels then
    for i, ch in ipairs(u.channels) do u.heads[i] = ch // j.num_head_channels end
  end
  u.groups, u.time_ids_width = j.norm_num_groups or u.groups, j.time_id_embed_dim or u.time_ids_width
  set_prediction(c, j.prediction_type)
  if j.rescale_betas_zero_snr ~= nil then c.zero_snr = j.rescale_betas_zero_snr or nil end
  c.bos, c.eos = j.bos or c.bos, j.eos or c.eos
  c.pad = { j.pad_te1 or j.pad, j.pad_te2 }
  set_text(c.text[1], j.text_encoder)
  set_text(c.text[2], j.text_encoder_2)
  if v then
    v.groups = j.vae and j.vae.norm_num_groups or j.norm_num_groups or v.groups
    c.scaling_factor = j.vae and j.vae.scaling_factor or c.scaling_factor
  end
end

-- Noise is always added as the family does it.
local function mention_betas(where, object, family)
  local betas = noise.new(family.noise).settings
  for field, ours in pairs { beta_start = betas.beta_start, beta_end = betas.beta_end, beta_schedule = "scaled_linear",
    num_train_timesteps = betas.steps } do
    if object[field] ~= nil and object[field] ~= ours then
      core.log("warn", ("%s: %s is %s, but %s is used, as in %s"):format(where, field, text_of(object[field]), ours,
        family.label))
    end
  end
end

-- The config.json files of a diffusers folder; attention_head_dim holds the number of heads there. read(name) gives the
-- object of a file, nil where the folder at `path` has none.
function settings.folder(c, read, path)
  local function get(name, rules)
    local object = read(name)
    return object and check(path .. "/" .. name, object, rules)
  end
  local u, v = c.unet, c.vae
  local j = get("unet/config.json", { in_channels = equal(u.in_channels), out_channels = equal(u.out_channels),
    block_out_channels = equal(u.channels), layers_per_block = equal(u.layers), cross_attention_dim = equal(u.context),
    attention_head_dim = divisors(u.channels, true), num_attention_heads = divisors(u.channels, true),
    norm_num_groups = divisors(u.channels), sample_size = integer(1, 4096),
    addition_time_embed_dim = integer(2, 65536) })
  if j then
    set_heads(u, j.num_attention_heads or j.attention_head_dim or u.heads)
    u.groups, u.time_ids_width = j.norm_num_groups or u.groups, j.addition_time_embed_dim or u.time_ids_width
    c.sample_size = j.sample_size and j.sample_size * 8
  end
  j = v and get("vae/config.json", { block_out_channels = equal(v.channels), layers_per_block = equal(v.layers),
    latent_channels = equal(v.latent_channels), norm_num_groups = divisors(v.channels),
    scaling_factor = number(0, 1000) })
  if j then
    v.groups, c.scaling_factor = j.norm_num_groups or v.groups, j.scaling_factor or c.scaling_factor
  end
  local name = "scheduler/scheduler_config.json"
  j = get(name, { beta_start = number(0, 1), beta_end = number(0, 1), num_train_timesteps = integer(2, 1000000),
    prediction_type = one_of("epsilon", "v_prediction"), rescale_betas_zero_snr = boolean })
  if j then
    mention_betas(path .. "/" .. name, j, families.get(c.family))
    set_prediction(c, j.prediction_type)
    c.zero_snr = j.rescale_betas_zero_snr or nil
  end
  for i, t in ipairs(c.text) do
    set_text(t, get("text_encoder" .. (i == 1 and "" or "_" .. i) .. "/config.json", text_rules(t)))
  end
end

-- What the network predicts: told, or what the files say. Files of either kind may look the same, so a guess is said
-- aloud.
function settings.settle_prediction(c, told, path)
  if told and c.prediction_known and told ~= c.prediction then
    core.log("warn", ("%s says that it predicts %s; it is taken for %s as told"):format(path, c.prediction, told))
  elseif not told and c.prediction_known == false then
    core.log("warn", ("%s does not say what it predicts; %s"):format(path,
      families.get(c.family).prediction_guess or "taken for '" .. c.prediction .. "'"))
  end
  if told then c.prediction, c.prediction_known = told, true end
end

return settings
