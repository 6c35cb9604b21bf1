-- SPDX-License-Identifier: MIT
-- state.lua - the training state on disk, so that a killed run resumes bit for bit. A state file holds every
-- variable that a step changes and, in its metadata, what resume needs to know (step, length of the metrics log) and
-- a hash of each tensor and of that knowledge itself: a flipped bit anywhere is found. `latest.json` names the newest
-- complete one; a file is complete when it has its final name.
local core = require "burin.core"
local errors = require "burin.base.errors"
local state = {}

local function latest_path(folder) return folder .. "/latest.json" end

local fail = errors.file
local step_name = "^step%-%d+%.safetensors$"

local function step_files(folder)
  local files = {}
  for _, file in ipairs(core.exists(folder) and core.list(folder) or {}) do
    if file:match(step_name) then files[#files + 1] = file end
  end
  return files
end

-- Forgets a run that is started over. latest.json goes first: a kill in between leaves nothing to resume.
function state.clear(folder)
  core.remove_file(latest_path(folder))
  for _, file in ipairs(step_files(folder)) do core.remove_file(folder .. "/" .. file) end
end

-- What a kill left of files that were being written. Only for the process that holds the run's lock.
function state.sweep(folder)
  for _, file in ipairs(core.exists(folder) and core.list(folder) or {}) do
    if file:match "%.tmp%-%d+%-%d+$" then core.remove_tree(folder .. "/" .. file) end
  end
end

local function write(folder, step, variables, info, keep)
  core.make_dirs(folder)
  local tensors, full = {}, { hashes = {} }
  for k, v in pairs(info) do full[k] = v end
  for i, v in ipairs(variables) do
    tensors[i] = { v[1], v[2]:read() }
    full.hashes[v[1]] = tensors[i][2]:hash()
  end
  local name, text = ("step-%08d.safetensors"):format(step), core.json_encode(full)
  core.export(folder .. "/" .. name, "safetensors", tensors,
    { ["burin.state"] = text, ["burin.check"] = core.hash(text) })
  core.write_file(latest_path(folder), core.json_encode { file = name, step = step } .. "\n")
  local old = {}
  for _, file in ipairs(step_files(folder)) do
    if file < name then old[#old + 1] = file end
  end
  for i = 1, #old - (keep or 2) + 1 do core.remove_file(folder .. "/" .. old[i]) end
end

-- variables: { { name, var } ... }; info: JSON-able facts that resume checks or needs. Keeps the newest `keep` files:
-- an old one goes when the new one is on the disk and named.
function state.save(...) errors.guard("output", write, ...) end

-- What a state file says of itself; its file stays open.
local function open(path)
  local file = errors.guard("data", core.load, path)
  local meta = file:meta()
  local text = meta["burin.state"]
  if not text then fail(path, "this is not a training state (it lacks burin.state)") end
  if meta["burin.check"] ~= core.hash(text) then
    fail(path, "the state is damaged: its metadata does not match its checksum. Remove this file to resume "
      .. "from the state before it")
  end
  return core.json_decode(text, path), file
end

-- Whether a file is a state of which every byte is as it was written.
function state.is_whole(path)
  local ok, same = pcall(function()
    local info, file = open(path)
    for name, hash in pairs(info.hashes) do
      local t = file:read(name)
      if not t or t:hash() ~= hash then return false end
    end
    file:close()
    return true
  end)
  return ok and same
end

-- When latest.json cannot say: the newest file that is whole.
local function newest_whole(folder, why)
  local files = step_files(folder)
  for i = #files, 1, -1 do
    if state.is_whole(folder .. "/" .. files[i]) then
      core.log("warn", ("%s %s; going on from the newest whole state, %s"):format(latest_path(folder), why, files[i]))
      return folder .. "/" .. files[i]
    end
  end
  fail(latest_path(folder), "it %s, and beside it is no whole state", why)
end

-- The file that latest.json names, or the newest one before it when the user has removed that one.
local function newest(folder)
  local path = latest_path(folder)
  if not core.exists(path) then return newest_whole(folder, "is not there") end
  local ok, latest = pcall(function() return core.json_decode(core.read_file(path), path) end)
  if not ok or type(latest) ~= "table" or type(latest.file) ~= "string" or not latest.file:match(step_name) then
    return newest_whole(folder, "is damaged")
  end
  if core.exists(folder .. "/" .. latest.file) then return folder .. "/" .. latest.file end
  local files = step_files(folder)
  for i = #files, 1, -1 do
    if files[i] < latest.file then
      core.log("warn", ("%s names %s, which is not there; going on from %s"):format(path, latest.file, files[i]))
      return folder .. "/" .. files[i]
    end
  end
  fail(path, "it names %s, which is not there, and there is no older state", latest.file)
end

-- The step of the newest state's file, whole or not; nil when there is none.
function state.newest_step(folder)
  local files = step_files(folder)
  return files[1] and tonumber(files[#files]:match "%d+")
end

-- The newest state's info, open file and path; nil when there is none.
function state.latest(folder)
  if not core.exists(latest_path(folder)) and not state.newest_step(folder) then return nil end
  local path = newest(folder)
  local info, file = open(path)
  return info, file, path
end

-- The same of the newest whole state before a step.
function state.before(folder, step)
  local files = step_files(folder)
  for i = #files, 1, -1 do
    local path = folder .. "/" .. files[i]
    if tonumber(files[i]:match "%d+") < step and state.is_whole(path) then
      local info, file = open(path)
      return info, file, path
    end
  end
end

-- Forgets the states after a step, which a run has gone back to.
function state.drop_after(folder, step)
  for _, file in ipairs(step_files(folder)) do
    if tonumber(file:match "%d+") > step then core.remove_file(folder .. "/" .. file) end
  end
end

-- Everything is checked before the first variable is written.
function state.restore(info, file, path, variables)
  local tensors = {}
  for i, v in ipairs(variables) do
    local t = file:read(v[1])
    if not t or t.count ~= v[2].count then
      fail(path, "'%s' is missing or has another size: the recipe has changed since", v[1])
    end
    if t:hash() ~= info.hashes[v[1]] then
      fail(path, "the state is damaged: tensor '%s' does not match its checksum. Remove this file to resume "
        .. "from the state before it", v[1])
    end
    tensors[i] = t
  end
  for i, v in ipairs(variables) do v[2]:write(tensors[i]) end
end

return state
