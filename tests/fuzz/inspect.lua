-- SPDX-License-Identifier: MIT
-- inspect.lua - any bytes as a file's metadata and the names of its tensors, and as a picture's texts: what `inspect`
-- prints of them is UTF-8 without a control character, and --json one line of JSON.
local core = require "burin.core"
local convert = require "burin.adapters.convert"
local errors = require "burin.base.errors"
local inspect = require "burin.cli.inspect"
local keys = require "burin.adapters.keys"
local models = require "burin.models.model"

require("burin.graph.device").null()
local model = models.new { family = "sd1",
  unet = { in_channels = 4, out_channels = 4, channels = { 8, 16 }, depth = { 1, 0 }, mid_depth = 1, layers = 1,
    groups = 4, heads = { 2, 4 }, context = 8 },
  vae = { channels = { 8, 16 }, layers = 1, groups = 4, latent_channels = 4 },
  text = { { vocab = 64, tokens = 77, width = 8, mlp = 16, layers = 1, heads = 2, act = "quick_gelu" } } }
model:declare()
local index = keys.index(model)
function keys.index() return index end

-- "key\0value\0 ... \0name": a file of text's pieces.
local file, picture
local tensor = core.tensor({ 2, 4 }, "f32")
local function parse(text)
  local pieces = {}
  for piece in (text .. "\0"):gmatch "(%Z*)%z" do pieces[#pieces + 1] = piece end
  local meta, names = {}, {}
  for i = 1, #pieces - 2, 2 do meta[pieces[i]] = pieces[i + 1] end
  for i = #pieces - (#pieces + 1) % 2, #pieces do
    local name = pieces[i]:sub(1, 500)
    if name ~= "" and not names[name] then names[#names + 1], names[name] = name, true end
  end
  return { names = function() return names end, meta = function() return meta end, close = function() end,
    info = function(_, name) return names[name] and { dtype = "f32", shape = { 2, 4 }, bytes = 32 } end,
    read = function(_, name) return names[name] and tensor end }
end

local function chunk(kind, data) return (">I4"):pack(#data) .. kind .. data .. "\0\0\0\0" end

local function head() return "\x89PNG\r\n\x1a\n" .. chunk("IHDR", (">I4I4"):pack(1, 1) .. "\8\2\0\0\0") end

local out
-- As the program's, which writes this to stdout.
function core.write_stdout(text) out[#out + 1] = text:gsub("[^\n\t]+", core.shown) end
function core.exists() return "file", 1000, 0 end
function core.read_part(_, first, n) return (picture or ("\0"):rep(64)):sub(first + 1, first + n) end
function core.read_file() return picture or "" end
function core.load() return file end
function core.log() end
function convert.model() return model end

local function check(text, json)
  local where = text:find "[%z\1-\8\11-\31\127]" or text:find "\xc2[\x80-\x9f]" or text:find "\xe2\x80[\xaa-\xae]"
    or not utf8.len(text) and 1
  if where then
    error(("a control character is printed: %q"):format(text:sub(math.max(1, where - 20), where + 20)), 0)
  end
  if json then core.json_decode(text:gsub("\\u0000", ""), "what was printed") end  -- which the reader refuses
  if json or picture then return end
  local n, most = 0, 0  -- a line break in a value would make a line of its own
  for _ in text:gmatch "\n" do n = n + 1 end
  for _ in pairs(file:meta()) do most = most + 1 end
  if n > most + #file:names() + 20 then error("a value makes lines: " .. text, 0) end
end

local function run(args)
  out = {}
  args[1] = "f.safetensors"
  local ok, e = pcall(inspect.run, args)
  if not ok and not errors.is(e) then error(e, 0) end
  check(table.concat(out), args.json)
end

return function(bytes)
  picture = nil
  file = parse(bytes)
  run {}
  run { json = true }
  picture = head() .. chunk("tEXt", bytes) .. chunk("iTXt", (bytes:gsub("%z", "\0\0\0\0\0", 1))) .. bytes
  run {}
  run { json = true }
end
