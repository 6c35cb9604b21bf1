-- SPDX-License-Identifier: MIT
-- answers.lua - asks a plugin whose answers are any bytes (answers_plugin.c). The first byte says as what: a file of
-- tensors, a picture, a dataset. An error is a text; what is no error can be used.
local core = require "burin.core"
local errors = require "burin.base.errors"

-- A lie about a size must not take the machine's memory.
core.limit_memory(256 << 20)
local place = os.tmpname()
local handle = assert(io.open(place, "w"))
handle:write "ANS, and what it is is for the plugin to say"
handle:close()
-- The file goes with the process.
local gone <const> = setmetatable({}, { __gc = function() os.remove(place) end })
_G.kept = gone

local sizes = { f32 = 4, f16 = 2, bf16 = 2, i32 = 4, i8 = 1, u8 = 1 }

local function is_whole(text)
  assert(type(text) == "string", "an answer that is no text")
  return text
end

local asks = {}

function asks.tensors()
  local file <close> = core.load(place)
  for _, name in ipairs(file:names()) do
    assert(name ~= "" and #name < 512, "a name without end")
    local info = file:info(name)
    local n = sizes[info.dtype] or 1
    for _, d in ipairs(info.shape) do
      assert(d >= 0, "a negative dim")
      n = n * d
    end
    assert(#info.shape <= 8 and info.bytes >= 0 and (not sizes[info.dtype] or n == info.bytes), "bytes and shape")
    local t = file:read(name)
    assert(t.count >= 0, "a tensor without a count")
    t:hash()
    if t.count > 0 and sizes[t.dtype] then t:get(t.count) end
  end
  for key, value in pairs(file:meta()) do is_whole(key) is_whole(value) end
end

function asks.picture()
  local width, height = core.image_size(place)
  assert(width > 0 and height > 0, "a picture without a size")
  local image = core.image_load(place)
  assert(image.shape[3] == 3 and image.count == image.shape[1] * image.shape[2] * 3, "a picture's pixels")
  image:hash()
end

function asks.dataset()
  local items, skipped, remarks = core.source(place .. ".answers")
  for _, item in ipairs(items) do
    is_whole(item.path)
    assert(item.repeats >= 1, "repeats")
    assert(item.caption == nil or utf8.len(item.caption), "a caption that is not UTF-8")
  end
  for _, s in ipairs(skipped) do is_whole(s.path) is_whole(s.reason) end
  for _, text in ipairs(remarks) do is_whole(text) end
end

local kinds = { asks.tensors, asks.picture, asks.dataset }

return function(bytes)
  local ok, e = pcall(kinds[(bytes:byte() or 0) % 3 + 1])
  if ok then return end
  if not errors.is(e) and not core.out_of_memory(e) then error(e, 0) end
  is_whole(errors.message(e))
end
