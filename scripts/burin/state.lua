-- SPDX-License-Identifier: MIT
-- state.lua - the training state on disk, so that a killed run resumes bit for bit. A state file holds every
-- variable that a step changes and, in its metadata, the step and the length of the metrics log. `latest.json`
-- names the newest complete one; a file is complete when it has its final name.
local core = require "burin.core"
local state = {}

local function latest_path(folder) return folder .. "/latest.json" end

-- variables: { { name, var } ... }; info: JSON-able facts that resume checks or needs. Keeps the newest `keep` files.
function state.save(folder, step, variables, info, keep)
  core.make_dirs(folder)
  local tensors = {}
  for i, v in ipairs(variables) do tensors[i] = { v[1], v[2]:read() } end
  local name = ("step-%08d.safetensors"):format(step)
  core.export(folder .. "/" .. name, "safetensors", tensors, { ["burin.state"] = core.json_encode(info) })
  core.write_file(latest_path(folder), core.json_encode { file = name, step = step } .. "\n")
  local old = {}
  for _, file in ipairs(core.list(folder)) do
    if file:match "^step%-%d+%.safetensors$" and file < name then old[#old + 1] = file end
  end
  for i = 1, #old - (keep or 2) + 1 do core.remove_file(folder .. "/" .. old[i]) end
end

-- The newest state's info, or nil when there is none.
function state.latest(folder)
  if not core.exists(latest_path(folder)) then return nil end
  local latest = core.json_decode(core.read_file(latest_path(folder)), latest_path(folder))
  local path = folder .. "/" .. tostring(latest.file)
  local file = core.load(path)
  local text = file:meta()["burin.state"]
  if not text then error({ exit = 65, message = path .. ": this is not a training state (it lacks burin.state)" }, 0) end
  return core.json_decode(text, path), file, path
end

function state.restore(file, path, variables)
  for _, v in ipairs(variables) do
    local t = file:read(v[1])
    if not t or t.count ~= v[2].count then
      error({ exit = 65, message = ("%s: '%s' is missing or has another size: the recipe has changed since"):format(path, v[1]) }, 0)
    end
    v[2]:write(t)
  end
end

return state
