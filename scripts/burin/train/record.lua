-- SPDX-License-Identifier: MIT
-- record.lua - what a run's folder says of how it began: run.json, the recipe, and in recipe/ the files that it
-- required, as they were. run.json is written once there is a state to go on from: a folder without one holds no run
-- yet. What it says is believed about numbers and where to read only; where a run lies and whether its recipe is
-- trusted is for the command line.
local class = require "burin.base.class"
local core = require "burin.core"
local errors = require "burin.base.errors"
local state = require "burin.base.state"
local record = {}

local Record, new_record = class("record", {
  "recipe",     -- { path, text }: as it was given
  "name",       -- that its recipe has
  "new_name",   -- of a run that was forked from another
  "trust", "started", "started_in",
  "changes",    -- { steps =, epochs = }: what the command line has set over the recipe
  "forked",     -- { folder = }: where it comes from
  "from",       -- { path =, hash = }: the file that it began from
  "settings",   -- settings.lua: as a file to compare with
})

local function json_path(folder) return folder .. "/run.json" end
local function recipe_path(folder) return folder .. "/recipe.lua" end

-- "world.shapes" -> "world/shapes.lua"
local function file_of(module) return module:gsub("%.", "/") .. ".lua" end

-- The files that the recipe has required so far.
local function required()
  local files = {}
  for module, text in pairs(core.required_files()) do files[file_of(module)] = text end
  return files
end

-- Of a run that begins now. o: recipe = { path =, text = }, name, trust, settings.
function record.new(o)
  return new_record { recipe = o.recipe, name = o.name, trust = o.trust or false, started = core.date(),
    started_in = core.cwd(), changes = {}, settings = o.settings }
end

-- Whether there is a run in this folder, or what is left of one that would be lost.
function record.is_run(folder)
  local step = state.newest_step(folder .. "/state")
  return step and (step > 0 or core.exists(json_path(folder)) ~= nil) or false
end

-- Stops at a folder with files that no run put there: a training would write over them, and remove some. A run's folder
-- is marked by its lock.
function record.check_own(folder)
  local kind = core.exists(folder)
  local own = not kind or kind == "folder" and (core.exists(folder .. "/.lock") or core.exists(json_path(folder))
    or #core.list(folder) == 0)
  if not own then
    errors.raise("exists", "%s exists and is not the folder of a run; choose another name or output, or move it away",
      folder)
  end
end

-- From now on there is no run in this folder.
function record.clear(folder) core.remove_file(json_path(folder)) end

local function text_or_nil(x) return type(x) == "string" and x or nil end

-- { steps =, epochs = }, whatever the file says.
local function read_changes(given)
  given = type(given) == "table" and given or {}
  local steps, epochs = math.tointeger(given.steps), tonumber(given.epochs)
  return { steps = steps and steps > 0 and steps or nil, epochs = not steps and epochs and epochs > 0 and epochs
    or nil }
end

-- Reads a run's folder.
function record.read(folder)
  local path = json_path(folder)
  if not core.exists(path) then
    local begun = core.exists(folder .. "/.lock") and
      "; a training was stopped here before its first state: begin it again with 'burin train'" or ""
    errors.raise("input", folder .. ": this is not the folder of a run (it has no run.json)" .. begun)
  end
  local info = errors.guard("data", core.json_decode, core.read_file(path), path)
  if type(info) ~= "table" then errors.file(path, "a table is expected") end
  local text = errors.guard("input", core.read_file, recipe_path(folder))
  local r = new_record { recipe = { path = text_or_nil(info.recipe), text = text }, trust = info.trust == true,
    started = text_or_nil(info.started), started_in = text_or_nil(info.folder), name = text_or_nil(info.name),
    changes = {}, settings = type(info.settings) == "table" and info.settings or {}, forked = info.forked,
    from = info.from }
  -- Whoever has edited the recipe since means what it says.
  if info.recipe_hash == core.hash(text) then r.changes = read_changes(info.changes) end
  if r.forked then r.new_name = text_or_nil(info.new_name) end
  return r
end

-- An edited recipe takes the place of the one that was kept.
function Record:replace(path, text)
  self.recipe, self.changes = { path = path, text = text }, {}
end

-- From now on this is of a run of another name, which begins with the state of the one in `folder`.
function Record:fork(name, folder)
  self.new_name, self.started, self.forked = name, core.date(), { folder = folder }
end

-- Where the files are that a kept recipe requires, with a slash at its end.
function record.modules(folder) return folder .. "/recipe/" end

-- The hash of each file that the run depends on.
function record.hashes()
  local list = {}
  for file, text in pairs(required()) do list[file] = core.hash(text) end
  return list
end

-- The recipe and what it required; then, as its presence says that all is there, run.json.
function Record:write(folder)
  for file, text in pairs(required()) do
    local path = record.modules(folder) .. file
    core.make_dirs(path:match "^(.*)/")
    errors.guard("output", core.write_file, path, text)
  end
  errors.guard("output", core.write_file, recipe_path(folder), self.recipe.text)
  errors.guard("output", core.write_file, json_path(folder), core.json_encode({ recipe = self.recipe.path,
    name = self.name,
    recipe_hash = core.hash(self.recipe.text), trust = self.trust, version = core.version, started = self.started,
    folder = self.started_in, changes = self.changes, forked = self.forked, new_name = self.new_name,
    from = self.from, settings = self.settings }, 2) .. "\n")
end

return record
