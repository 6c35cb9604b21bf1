-- SPDX-License-Identifier: MIT
-- Every call of every save path fails once: SIGKILL before it, EIO, ENOSPC, EINTR, a write of one byte. What is saved
-- is whole and equal byte for byte, or there is an error for people (exit 74, the file and why); what was there before
-- is whole; no part of a file has a final name; and what stays half written is gone after the next save. Runs in one
-- process, since the library that makes calls fail (nth_call.c) can fork it:
--   burin plan --trust --recipe-steps 0 --device null tests/cli/saves_test.lua
local core = require "burin.core"
local errors = require "burin.base.errors"
local models = require "burin.models.model"
local save = require "burin.adapters.save"
local state = require "burin.base.state"
local sums = require "burin.base.sums"
local T = dofile "tests/check.lua"
local paths = require "burin.base.paths"

require("burin.graph.device").null()
local C = dofile "tests/cli/calls.lua"
local place, arrange, calls, snapshot = C.place, C.arrange, C.look, C.snapshot
local difference, unfinished = C.difference, C.unfinished
paths.begin(place, true)
local KILL, SHORT, EINTR, EIO, ENOSPC = -1, -2, 4, 5, 28
local reasons = { [EINTR] = "Interrupted system call", [EIO] = "Input/output error",
  [ENOSPC] = "No space left on device" }

-- ---- what is saved --------------------------------------------------------------------------------------------------

local model = models.open "tests/golden/tiny_sd1/model_ldm.safetensors"
local function tensor(n, m, stream) return core.tensor({ n, m }, "f32"):fill_normal(5, stream, 1) end
local adapters = {}
for i, module in ipairs { "to_q", "to_k" } do
  adapters[i] = { kind = "lora", rank = 2, alpha = 2, layer = { component = "unet", kind = "linear",
    module = "down_blocks.0.attentions.0.transformer_blocks.0.attn1." .. module },
    parts = { down = tensor(2, 8, i), up = tensor(8, 2, i + 10) } }
end
local function variable(n, stream)
  return { read = function() return tensor(n, 4, stream) end }
end
local function save_state(step)
  return function()
    state.save(place .. "/state", step, { { "amp", variable(2, step) }, { "params.0", variable(9, step + 100) } },
      { step = step }, 2)
  end
end

-- before: what was there. every, of_others: of the writes of tensors, and of the other calls, only every so many-th is
-- tried, where there are hundreds of them. few: not every error.
local kinds = {
  adapter = { file = "a.safetensors", before = function() core.write_file(place .. "/a.safetensors", "older") end,
    run = function()
      save.write(place .. "/a.safetensors", adapters, { map = model.map, metadata = { ss_x = "1" }, sidecar = false })
    end },
  sidecar = { file = "/a.", run = function()
      save.write(place .. "/a.safetensors", adapters, { map = model.map, metadata = {}, sidecar = true,
        profile = "none" })
    end },
  folder = { file = "f", run = function()
      save.write(place .. "/f", adapters, { map = model.map, format = "peft" })
    end },
  checkpoint = { file = "c.safetensors", every = 300, of_others = 2, few = true,
    before = function() core.write_file(place .. "/c.safetensors", "older") end,
    run = function() errors.guard("output", model.save, model, place .. "/c.safetensors", { dtype = "f16" }) end },
  diffusers = { file = "d", every = 300, of_others = 12, few = true,
    run = function()
      errors.guard("output", model.save, model, place .. "/d", { dtype = "f16", format = "diffusers" })
    end },
  state = { file = "state", before = function()
      for step = 1, 2 do save_state(step)() end
    end, run = save_state(3) },
}

local function clean()
  core.remove_tree(place)
  core.make_dirs(place)
end

-- The step of the newest state that can be gone on from.
local function newest_whole()
  local info, opened, from = state.latest(place .. "/state")
  if not info then return nil end
  local into = {}
  local function writes(v) return { count = v.read().count, write = function(_, t) into[#into + 1] = t:hash() end } end
  local ok = pcall(state.restore, info, opened, from, { { "amp", writes(variable(2, info.step)) },
    { "params.0", writes(variable(9, info.step + 100)) } })
  opened:close()
  return ok and into[2] == variable(9, info.step + 100).read():hash() and info.step
end

local total = 0

-- One case: call n of a save meets `what`, `times` times.
local function try(name, kind, before, after, n, what, times)
  total = total + 1
  local label = ("%s, call %d, %s x %d"):format(name, n, reasons[what] or what == KILL and "SIGKILL" or "short", times)
  clean()
  arrange(0, 0, 0)
  if kind.before then kind.before() end
  calls()
  arrange(n, what, times)
  local ok, e = true, nil
  if what == KILL then
    io.stdout:flush()
    if core.change_folder "//fork" then
      pcall(kind.run)
      core.change_folder "//exit"
    end
  else
    ok, e = pcall(kind.run)
  end
  arrange(0, 0, 0)
  local journal, files = calls(), snapshot(place)
  local hit
  for _, c in ipairs(journal) do hit = hit or c.fails and c end
  T.check(hit, label .. ": no call was met")
  if what == KILL then
    T.check(journal[#journal].path == "killed", label .. ": the process was not killed")
  end
  local cleaning = hit and (hit.call == "unlink" or hit.call == "remove")
  local done = difference(files, after) == ""
  if what ~= KILL and ok then T.checkf(done, "%s: no error, but not equal: %s", label, difference(files, after)) end
  if not ok then
    local text = errors.message(e)
    T.checkf(errors.code(e) == 74, "%s: exit code %d: %s", label, errors.code(e), text)
    T.checkf((text:find(kind.file, 1, true) or text:find(hit.path, 1, true)) and text:find(reasons[what], 1, true),
      "%s: it says %s", label, text)
  end
  -- All of it as it was before, or as it is afterwards; a state is several files, each of which is whole.
  for file, bytes in pairs(files) do
    if not file:find "%.tmp%-" then
      T.checkf(bytes == before[file] or bytes == after[file], "%s: %s is half written", label, file)
    end
  end
  if name == "state" then
    local step = newest_whole()
    T.checkf(step == 2 or step == 3, "%s: the newest whole state is of step %s", label, step)
  end
  if name == "state" and not ok and not cleaning then
    T.checkf(files["state/step-00000001.safetensors"], "%s: a save that failed removed an old state", label)
  end
  -- An error cleans up at once, unless it was cleaning up that failed; a kill when the next process takes the folder.
  if not ok and times == 1 and not cleaning then
    T.checkf(not unfinished(files), "%s: it leaves %s", label, unfinished(files))
  end
  for _, folder in ipairs { place, place .. "/state" } do state.sweep(folder) end
  if kind.file:find(".", 1, true) or not core.exists(place .. "/" .. kind.file) or name == "state" then
    local again, why = pcall(kind.run)
    T.checkf(again, "%s: the next save fails: %s", label, again or errors.message(why))
  end
  files = snapshot(place)
  T.checkf(difference(files, after) == "" and not unfinished(files), "%s: after the next save: %s %s", label,
    difference(files, after), unfinished(files))
end

-- The calls of a save that are tried: of the writes of a large file's tensors a few.
local function chosen(kind, journal)
  local list, writes, others = {}, 0, 0
  for n, c in ipairs(journal) do
    local chosen
    if c.call == "pwrite" then
      writes = writes + 1
      chosen = writes % (kind.every or 1) == 0
    else
      others = others + 1
      chosen = others % (kind.of_others or 1) == 0
    end
    if chosen or n == #journal then list[#list + 1] = n end
  end
  return list
end

-- The order that a power cut wants: a file is synced before it gets its name, its folder afterwards, and what is older
-- goes last.
local function check_order(name, journal)
  local written, renamed = {}, {}
  for _, c in ipairs(journal) do
    local path = c.path:gsub("/+$", "")
    if c.call == "write" or c.call == "pwrite" or c.call == "ftruncate" then written[path] = true end
    if c.call == "fsync" then written[path] = nil end
    if c.call == "rename" then
      for other in pairs(written) do T.check(false, name, "is renamed before this is synced", other) end
      renamed[path:match "^(.*)/"] = path
    end
    if c.call == "fsync-folder" then renamed[path] = nil end
    if c.call == "unlink" and path:find "step%-%d+%.safetensors$" then
      for _, other in pairs(renamed) do T.check(false, name, "an old state goes before the new one is there", other) end
    end
  end
  for folder, path in pairs(renamed) do T.check(folder == path, name, "the folder is not synced after", path) end
end

local cuts_of_state
for _, name in ipairs { "adapter", "sidecar", "folder", "state", "checkpoint", "diffusers" } do
  local kind = kinds[name]
  clean()
  arrange(0, 0, 0)
  if kind.before then kind.before() end
  local before = snapshot(place)
  calls()
  kind.run()
  local journal, after = calls(), snapshot(place)
  check_order(name, journal)
  for _, n in ipairs(chosen(kind, journal)) do
    local writes = journal[n].call == "write" or journal[n].call == "pwrite"
    try(name, kind, before, after, n, KILL, 1)
    for _, what in ipairs(kind.few and { EIO } or { EIO, ENOSPC, EINTR }) do
      try(name, kind, before, after, n, what, 1)
      if what ~= EINTR and not kind.every then try(name, kind, before, after, n, what, 1000) end
    end
    if writes then try(name, kind, before, after, n, SHORT, kind.every and 1 or 3) end
  end
  if name == "state" then cuts_of_state = #journal end
  print(("%-10s %d calls"):format(name, #journal))
end

-- ---- power cuts -----------------------------------------------------------------------------------------------------

-- A disk that forgets what was not synced: the end of a file, or all of it; and, each by itself, names that were given
-- or removed while their folder was not synced. journal: the calls until the power was cut. before: what was there.
local function forget(journal, before)
  local written, names = {}, {}
  for _, c in ipairs(journal) do
    if c.call == "write" or c.call == "pwrite" or c.call == "ftruncate" then written[c.path] = true end
    if c.call == "fsync" then written[c.path] = nil end
    local folder = c.path:match "^(.*)/" or ""
    if c.call == "rename" or c.call == "unlink" or c.call == "remove" then
      names[folder] = names[folder] or {}
      table.insert(names[folder], c.path)
    end
    if c.call == "fsync-folder" then names[c.path] = nil end
  end
  local lost = 0
  for path in pairs(written) do
    if core.exists(path) == "file" then
      local bytes = core.read_file(path, 1 << 30)
      core.write_file(path, bytes:sub(1, math.random(0, #bytes)))
      lost = lost + 1
    end
  end
  for _, list in pairs(names) do
    for _, path in ipairs(list) do
      if math.random(2) == 1 then
        local old = before[path:sub(#place + 2)]
        if old then core.write_file(path, old) else core.remove_file(path) end
        lost = lost + 1
      end
    end
  end
  return lost
end

math.randomseed(20240229)
local forgot = 0
for cut = 1, 500 do
  clean()
  arrange(0, 0, 0)
  kinds.state.before()
  local before = snapshot(place)
  calls()
  arrange(1 + cut % cuts_of_state, KILL, 1)
  io.stdout:flush()
  if core.change_folder "//fork" then
    pcall(kinds.state.run)
    core.change_folder "//exit"
  end
  arrange(0, 0, 0)
  local lost = forget(calls(), before)
  forgot = forgot + (lost > 0 and 1 or 0)
  local step = newest_whole()
  T.checkf(step == 2 or step == 3, "power cut %d, %d things lost: the newest state is of step %s", cut, lost, step)
end
T.checkf(forgot > 100, "only %d of 500 power cuts lost anything", forgot)
print(("500 power cuts, %d of which lost something"):format(forgot))

-- ---- one bit --------------------------------------------------------------------------------------------------------

-- Wherever a bit of a state flips, it is found before anything of it is used.
clean()
save_state(1)()
local path = place .. "/state/step-00000001.safetensors"
local whole, found = core.read_file(path), 0
math.randomseed(20240229)
for _ = 1, 1000 do
  local at, bit = math.random(#whole), 1 << math.random(0, 7)
  local file <close> = assert(io.open(path, "wb"))
  file:write(whole:sub(1, at - 1), string.char(whole:byte(at) ~ bit), whole:sub(at + 1))
  file:flush()
  local took = 0
  local function into(n) return { count = 4 * n, write = function() took = took + 1 end } end
  local ok, e = pcall(function()
    local info, opened, from = state.latest(place .. "/state")
    state.restore(info, opened, from, { { "amp", into(2) }, { "params.0", into(9) } })
  end)
  if not ok and errors.code(e) == 65 and took == 0 then found = found + 1 end
end
T.checkf(found == 1000, "of 1000 flipped bits %d were found", found)

-- The same of each kind of result, by the sums in it: header, metadata and sums included.
for name, leaf in pairs { adapter = "a.safetensors", folder = "f/unet/adapter_model.safetensors",
  checkpoint = "c.safetensors" } do
  clean()
  kinds[name].run()
  path, found = place .. "/" .. leaf, 0
  local bytes = select(2, core.exists(path))
  local head = 8 + ("<I8"):unpack(core.read_part(path, 0, 8))
  local damaged = sums.verify(path)
  T.checkf(damaged and #damaged == 0, "%s is not whole: %s", leaf, damaged and damaged[1] or "no sums")
  for i = 1, 1000 do
    -- Half of them in the header, which is small beside the data.
    local at, bit = math.random(i % 2 == 0 and head or bytes) - 1, 1 << math.random(0, 7)
    local file <close> = assert(io.open(path, "r+b"))
    file:setvbuf "no"
    local function put(byte)
      file:seek("set", at)
      file:write(string.char(byte))
    end
    local byte = core.read_part(path, at, 1):byte()
    put(byte ~ bit)
    damaged = sums.verify(path)
    if not damaged or #damaged > 0 then found = found + 1 end
    put(byte)
  end
  T.checkf(found == 1000, "%s: of 1000 flipped bits %d were found", leaf, found)
end
clean()
core.remove_tree(place)
print(("%d cases; %d passed, %d failed"):format(total, T.passed, T.failed))
os.exit(T.failed == 0 and 0 or 1)
