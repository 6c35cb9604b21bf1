-- SPDX-License-Identifier: MIT
-- Each of the first calls of each function of Vulkan's that can fail does so, for want of memory or because the device
-- is lost: an error for people and an exit code, never a crash. One process forks the others (nth_call.c):
--   burin plan --trust --recipe-steps 0 --device null tests/cli/vulkan_test.lua
local core = require "burin.core"
local errors = require "burin.base.errors"
local loops = require "burin.graph.loops"
local T = dofile "tests/check.lua"

local order_path, said_path = assert(core.env "VULKAN_ORDER"), assert(core.env "CALLS_ORDER")
local journal_path = assert(core.env "CALLS_JOURNAL")
local function write(path, text)
  local file <close> = assert(io.open(path, "w"))
  file:write(text)
end
local function read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

-- A device, a little work on it, and the end of the process, as a command has them.
local function job()
  core.open_device { tier = "cpu" }  -- shaders: with kernels of the processor there is less to fail
  local run = loops.session("job", { x = { { 64, 64 }, "f32" } }, function(x) return { y = x.x:matmul(x.x) + 1 } end)
  core.commit(true)
  local y = run { x = core.tensor({ 64, 64 }, "f32", 0.5) }.y
  if y:get(1) ~= 17 then error "wrong numbers" end
end

local HOST, DEVICE, LOST = -1, -2, -4
local says = { [HOST] = "host memory", [DEVICE] = "device memory", [LOST] = "lost" }
local met, cases = 0, 0
local function try(call, n, result)
  cases = cases + 1
  local label = ("%s, call %d, %d"):format(call, n, result)
  write(order_path, ("%s %d %d"):format(call, n, result))
  write(journal_path, "")
  write(said_path, "")
  io.stdout:flush()
  if core.change_folder "//fork" then
    local ok, e = pcall(job)
    write(said_path, ok and "done" or ("%s %d %s"):format(errors.is(e), errors.code(e), errors.message(e)))
    core.change_folder "//exit"
  end
  local out = read(said_path)
  T.checkf(read(journal_path):find "ended", "%s: it was killed: %s", label, out)
  T.checkf(out ~= "", "%s: it says nothing", label)
  if out == "done" then return end  -- so many calls are not made, or another way was found
  met = met + 1
  T.checkf(not out:find "wrong numbers" and not out:find "internal error" and out:find "^true", "%s: it says %s", label,
    out)
  T.checkf(out:find(says[result]), "%s: it says %s", label, out)
end

for _, call in ipairs { "vkCreateInstance", "vkCreateDevice", "vkCreatePipelineLayout", "vkCreateDescriptorSetLayout",
  "vkCreateSemaphore", "vkCreateCommandPool", "vkCreatePipelineCache" } do try(call, 1, HOST) end
for _, call in ipairs { "vkAllocateMemory", "vkCreateBuffer", "vkBindBufferMemory", "vkMapMemory",
  "vkCreateShaderModule", "vkCreateComputePipelines", "vkCreateDescriptorPool", "vkAllocateDescriptorSets",
  "vkAllocateCommandBuffers", "vkBeginCommandBuffer", "vkEndCommandBuffer" } do
  try(call, 1, DEVICE)
  try(call, 2, HOST)
end
for n = 1, 3 do
  try("vkQueueSubmit", n, n == 2 and HOST or LOST)
  try("vkWaitSemaphores", n, n == 2 and DEVICE or LOST)
end
T.checkf(met > cases / 2, "only %d of %d calls failed", met, cases)
print(("%d of %d calls failed"):format(met, cases))
print(("%d passed, %d failed"):format(T.passed, T.failed))
os.exit(T.failed == 0 and 0 or 1)
