-- SPDX-License-Identifier: MIT
-- load_time.lua - how long a checkpoint takes from its file to the device, and what the host holds meanwhile:
--   BURIN_MODEL=model.safetensors burin run --trust scripts/dev/load_time.lua
-- Run it twice: the second time the file is in the page cache. Host memory is what is neither the mapped file nor the
-- device's (on a CPU driver the device's memory is the host's and is taken off).
local core = require "burin.core"
local models = require "burin.models.model"

local function status(key)
  for line in io.lines "/proc/self/status" do
    local kib = line:match("^" .. key .. ":%s*(%d+)")
    if kib then return tonumber(kib) / 1024 end
  end
end

local path = assert(os.getenv "BURIN_MODEL", "BURIN_MODEL names a checkpoint")
local precision = os.getenv "BURIN_PRECISION" or "f16"
local function now() return { core.clock(), os.clock() } end
local function between(a, b) return ("%.2f s (processor %.2f s)"):format(b[1] - a[1], b[2] - a[2]) end

local start = now()
local model = models.open(path, { dtype = precision ~= "int8" and precision or "f16", int8 = precision == "int8" })
model:declare()
local graph = core.graph()  -- one step's graph: pieces of the file pass through its arena
local function input(name, shape) return graph:leaf(core.var(name, shape, "f32", "input")) end
local c, size = model.config.unet, model.config.sample_size // model:downsample()
local e = model:predict(graph, input("x", { 1, size, size, 4 }), input("t", { 1 }),
  input("context", model:context_shape(1)), c.added and { added = input("added", { 1, c.added }) })
graph:assign(core.var("e", e.shape, "f32", "input"), e:cast "f32")
local session = core.session(graph, "step")
local opened = now()
core.commit()
local took = now()
model:load()
core.wait()
local done = now()
assert(session)
local device = core.allocated_memory() / (1 << 20)
if core.device().type ~= "cpu" then device = 0 end
print(("open and declare %s, take memory %s, load %s; device %.0f MiB; host %.0f MiB now"):format(
  between(start, opened), between(opened, took), between(took, done), core.allocated_memory() / (1 << 20),
  status "RssAnon" + status "RssShmem" - device))
