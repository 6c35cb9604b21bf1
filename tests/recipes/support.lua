-- SPDX-License-Identifier: MIT
-- support.lua - what the tests share that run the built binary from outside. Plain Lua 5.4, from the repository root:
--   lua5.4 tests/recipes/NAME_test.lua BURIN SCRATCH-FOLDER
local T = { burin = assert(arg[1], "usage: NAME_test.lua BURIN SCRATCH"), scratch = assert(arg[2]), passed = 0,
  failed = 0, servers = {} }

function T.check(ok, text, ...)
  if ok then T.passed = T.passed + 1 return true end
  T.failed = T.failed + 1
  print("FAIL " .. text:format(...))
end

function T.finish()
  for i, pipe in ipairs(T.servers) do T.check(pipe:close(), "server %d ended badly", i) end
  print(("%d passed, %d failed"):format(T.passed, T.failed))
  os.exit(T.failed == 0 and 0 or 1)
end

function T.quote(s) return "'" .. s:gsub("'", "'\\''") .. "'" end

-- Runs a shell line: exit code (128 + n for signal n), all that it printed.
function T.shell(line)
  local pipe = io.popen("exec 2>&1; " .. line)
  local out = pipe:read "a"
  local _, how, code = pipe:close()
  return how == "exit" and code or 128 + code, out
end

-- Runs burin with a line of arguments. before: words in front of it, such as "timeout 3".
function T.run(line, before)
  return T.shell(("%s %s %s"):format(before or "", T.quote(T.burin), line))
end

local here = debug.getinfo(1, "S").source:match "^@(.*)/"
local inside = { train = true, resume = true, plan = true, sample = true, inspect = true, convert = true, merge = true }

-- A process that runs commands of burin one after the other in a folder, so that the device compiles its kernels once:
-- most of what a short training takes. Returns a function: a line of arguments -> exit code, all that it printed.
-- Other commands, and those that choose a device, get a process of their own: --device is for all of a process.
function T.server(folder)
  local root = select(2, T.shell "pwd"):match "[^\n]*"
  local function absolute(path) return T.quote(path:find "^/" and path or root .. "/" .. path) end
  local number = #T.servers + 1
  local reply, said = ("%s/server-%d.reply"):format(T.scratch, number), ("%s/server-%d.said"):format(T.scratch, number)
  T.shell(("rm -f %s; mkfifo %s"):format(T.quote(reply), T.quote(reply)))
  local go, tests = "cd " .. T.quote(folder or "."), absolute(here)
  -- What reads from the pipe must not wait for ever for one that died.
  local line = ("exec 2>%s >&2; %s && TESTS=%s REPLY=%s %s run --trust %s/server.lua || printf '%%s\\n' -1 %s >%s")
    :format(T.quote(said), go, tests, absolute(reply), T.quote(T.burin), tests, "'the server died'", absolute(reply))
  if T.burin_cache then line = ("export BURIN_CACHE=%s; %s"):format(absolute(T.burin_cache), line) end
  local pipe, read = io.popen(line, "w"), 0
  T.servers[number] = pipe
  return function(arguments)
    local words = io.popen(("printf '%%s\\0' %s"):format(arguments))
    local argv = {}
    for word in words:read "a":gmatch "([^\0]*)\0" do argv[#argv + 1] = word end
    words:close()
    if not inside[argv[1]] or arguments:find "%-%-device" then
      return T.shell(("%s && %s %s"):format(go, T.quote(T.burin), arguments))
    end
    pipe:write(#argv, "\n")
    for _, word in ipairs(argv) do pipe:write(#word, "\n", word) end
    pipe:flush()
    local answer = assert(io.open(reply, "rb"))
    local code, _, out = answer:read("n", 1, "a")
    answer:close()
    -- The core writes past Lua.
    local more = T.read(said)
    out, read = out .. more:sub(read + 1), #more
    return code, out
  end
end

-- From now on T.run uses one process; T.process is for what needs one of its own.
T.process = T.run
function T.in_one_process() T.run = T.server() end

function T.read(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "a"
  file:close()
  return text
end

function T.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

-- An empty folder of this name in the scratch folder.
function T.folder(name)
  local path = T.scratch .. "/" .. name
  T.shell(("rm -rf %s; mkdir -p %s"):format(T.quote(path), T.quote(path)))
  return path
end

-- Every test has caches of its own, so that it neither sees nor leaves anything.
function T.private_cache()
  local path = T.folder "cache"
  T.burin_cache = path
  local plain = T.shell
  function T.shell(line) return plain(("export BURIN_CACHE=%s; %s"):format(T.quote(path), line)) end
end

-- A file with a recipe for the tiny model; fields: lines that replace or follow the usual ones.
function T.recipe(name, fields)
  local usual = { name = '"tiny"', base = 'burin.model "models/tiny-sd.safetensors"',
    concepts = '{ { images = "examples/sks-cat" } }',
      method = "burin.lora { rank = 2, alpha = 2, text_encoder = false }",
    resolution = "64", batch = "2", steps = "4", seed = "7", optimizer = "burin.adamw { lr = 2e-3 }" }
  for k, v in pairs(fields or {}) do usual[k] = v end
  local lines, keys = {}, {}
  for k in pairs(usual) do keys[#keys + 1] = k end
  table.sort(keys)
  for _, k in ipairs(keys) do
    if usual[k] ~= "" then lines[#lines + 1] = ("  %s = %s,"):format(k, usual[k]) end
  end
  return T.write(("%s/%s.lua"):format(T.scratch, name),
    ('local burin = require "burin"\nreturn burin.train {\n%s\n}\n'):format(table.concat(lines, "\n")))
end

-- The numbers under a key of metrics.jsonl, in order.
function T.metrics(folder, key)
  local list = {}
  for value in (T.read(folder .. "/metrics.jsonl") or ""):gmatch('"' .. key .. '": ?([%d.eE+-]+)') do
    list[#list + 1] = tonumber(value)
  end
  return list
end

-- What differs between two run folders, except for dates and the lock: "" when nothing does.
function T.difference(a, b)
  local _, out = T.shell(("diff -rq -x run.json -x .lock %s %s"):format(T.quote(a), T.quote(b)))
  return out
end

return T
