-- SPDX-License-Identifier: MIT
-- Decoders that crash, hang, take too much or try to get out (the pictures of tests/abi/crasher.c): each costs its
-- picture, and nothing else.
--   lua5.4 tests/cli/decoder_test.lua BURIN SCRATCH CRASHER.so
local T = dofile "tests/recipes/support.lua"
T.private_cache()
local plugins = T.folder "plugins"
T.shell(("cp %s %s/crasher.so"):format(T.quote(arg[3]), T.quote(plugins)))
local marks = T.folder "xdg"
local BEFORE = "timeout 300 env BURIN_PLUGINS=" .. T.quote(plugins)
local function run(line, more) return T.run(line, BEFORE .. " " .. (more or "")) end
-- Sanitizers need more memory and system calls than a decoder may have; there nothing is trained either.
local sanitized = T.read(T.burin):find("__asan_init", 1, true)
local function count(text, what) return select(2, text:gsub(what, "")) end

-- ---- a thousand pictures, of which a hundred crash ------------------------------------------------------------------

local function thousand()
  local many = T.folder "many"
  for i = 1, 1000 do
    local how = i % 10 == 3 and (i % 20 == 3 and "wild" or "abort") or "nothing"
    T.write(("%s/%04d.boom"):format(many, i), ("BOOM decode %s\n%s"):format(how, string.char(60 + i % 150)))
  end
  local recipe = T.recipe("many", { concepts = ("{ { images = %q, prompt = 'a cat' } }"):format(many),
    resolution = "16", base = 'burin.model "tests/golden/tiny_sd1/model_ldm.safetensors"', steps = "1", batch = "1",
    optimizer = "burin.adamw { lr = 1e-4 }" })
  local code, out = run(("train %s --output %s"):format(T.quote(recipe), T.quote(T.folder "runs")))
  local signals = { wild = "SIGSEGV", abort = "SIGABRT" }
  T.check(code == 0, "the training with crashing pictures: %d %s", code, out:sub(-2000))
  T.check(count(out, "left out") == 100, "%d left out instead of 100", count(out, "left out"))
  for how, name in pairs(signals) do
    local said = 'the decoder "boom" of the plugin "crasher" crashed %(' .. name .. "%)"
    T.check(count(out, "%d3%.boom left out: [^\n]*" .. said) == 50, "%s: %s", how, out:sub(1, 2000))
  end
  T.check(T.read(T.scratch .. "/runs/tiny/tiny.safetensors"), "the training left no file")
  T.check(not out:find "will be left out from now on", "a picture that crashes marks its plugin")
end
if not sanitized then thousand() end

-- ---- one process, every way to go wrong -----------------------------------------------------------------------------

local script = T.write(T.scratch .. "/script.lua", [[
local core = require "burin.core"
local folder, good = os.getenv "FOLDER", os.getenv "GOOD"
local function now()
  local file <close> = io.open "/proc/uptime"
  return file:read "n"
end
for _, name in ipairs(core.source(folder)) do
  local ok, e = pcall(core.image_load, name.path)
  if ok then e = "fine " .. e:get(1) end
  print(name.path:match "([^/]*)%.boom$", (tostring(e):gsub("\n", " ")))
  -- Whatever happened, the next one goes on.
  assert(core.image_load(good):get(1) == 65, "the picture after " .. name.path)
end
for kind, path in pairs { size = "size wild", recipe = "look wild" } do
  local file <close> = io.open(folder .. "/odd.boom", "w")
  file:write("BOOM ", path, "\nA")
  file:close()
  print(kind, select(2, pcall(core["image_" .. kind], folder .. "/odd.boom")))
end
-- How long it takes after a crash, at worst, until the next picture is there.
local crash, worst = folder .. "/crash.boom", 0
for _ = 1, 20 do
  pcall(core.image_load, crash)
  local from = now()
  core.image_load(good)
  worst = math.max(worst, now() - from)
end
print("worst", worst)
]])
local odd = T.folder "odd"
local function picture(name, text) return T.write(("%s/%s.boom"):format(odd, name), ("BOOM %s\nA"):format(text)) end
for name, text in pairs { crash = "decode wild", stack = "decode stack", divide = "decode divide", exit = "decode exit",
  quit = "decode quit", spin = "decode spin", kill = "decode kill", fork = "decode fork", file = "decode file",
  run = "decode run", thread = "decode thread", log = "decode log", memory = "decode memory",
  host = "decode host memory", damage = "decode damage", nothing = "decode nothing" } do picture(name, text) end
local good = T.write(T.scratch .. "/good.boom", "BOOM decode nothing\nA")
local with = ("XDG_CACHE_HOME=%s FOLDER=%s GOOD=%s"):format(T.quote(marks), T.quote(odd), T.quote(good))
code, out = run("run --trust " .. T.quote(script), with)
local says = { crash = "crashed (SIGSEGV)", stack = "crashed (SIGSEGV)", divide = "crashed (SIGFPE)",
  exit = "ended its process (exit 0)", quit = "ended its process (exit 0)",
  spin = "took more than 2 s of the processor's time", thread = "fine 65", log = "fine 65",
  damage = "fine 65", nothing = "fine 65",
  size = "crashed (SIGSEGV)", recipe = "crashed (SIGSEGV)" }
local jailed = { kill = "may not do (SIGSYS)", fork = "may not do (SIGSYS)", file = "no file can be opened",
  run = "nothing can be run", memory = "there is no memory", host = "took more than 512 MiB of memory" }
for name, what in pairs(sanitized and {} or jailed) do says[name] = what end
T.check(code == 0, "one process: %d %s", code, out)
for name, what in pairs(says) do
  local line = out:match("%f[^\n\0]" .. name .. "\t([^\n]*)") or ""
  T.check(line:find(what, 1, true), "%s: '%s' instead of '%s'", name, line, what)
end
T.check(out:find("warning: a picture says \\u001b[31mred", 1, true), "what a decoder logs: %s", out)
local worst = tonumber(out:match "worst\t([%d.]+)")
T.check(worst and worst <= (sanitized and 1 or 0.1), "the next picture came %s s after a crash", worst)

-- ---- the processes themselves ---------------------------------------------------------------------------------------

script = T.write(T.scratch .. "/life.lua", [[
local core = require "burin.core"
local good = os.getenv "GOOD"
local function read(path)
  local file = io.open(path)
  local text = file and file:read "a" or ""
  if file then file:close() end
  return text
end
local me = read "/proc/self/stat":match "^%d+"
local function children(pid)
  local list, pipe = {}, io.popen "cat /proc/[0-9]*/stat 2>/dev/null"
  for line in pipe:lines() do
    local child, name, how, parent = line:match "^(%d+) %((.*)%) (%a) (%d+)"
    if parent == pid and name ~= "sh" then list[#list + 1] = { pid = child, how = how } end
  end
  pipe:close()
  return list
end
local function load() assert(core.image_load(good):get(1) == 65) end
local function worker()
  load()
  local helpers = children(me)
  assert(#helpers == 1 and helpers[1].how ~= "Z", #helpers .. " helpers")
  local workers = children(helpers[1].pid)
  assert(#workers == 1, #workers .. " workers")
  return helpers[1].pid, workers[1].pid
end
local helper, first = worker()
print("helper", helper)
print("worker", first)
-- Nothing is open there that somebody could wait for or read.
for _, pid in ipairs { helper, first } do
  local pipe = io.popen(("ls -l /proc/%s/fd"):format(pid))
  for line in pipe:lines() do
    local to = line:match "%-> (.*)"
    assert(not to or os.getenv "ASAN" or to == "/dev/null" or to:find "^socket" or to:find "/statm$", to)
  end
  pipe:close()
end
local state = read(("/proc/%s/status"):format(first))
print("filter", state:match "Seccomp:%s*(%d)", state:match "NoNewPrivs:%s*(%d)")
-- Ctrl-C goes to a whole group of processes: it is not for these.
for _, name in ipairs { "INT", "TERM", "HUP", "QUIT", "TSTP" } do
  os.execute(("kill -%s %s %s"):format(name, helper, first))
end
assert(select(2, worker()) == first, "a signal ended the worker")
os.execute("kill -9 " .. first)
assert(select(2, worker()) ~= first, "no other worker after one was killed")
for _ = 1, 3 do pcall(core.image_load, os.getenv "CRASH") end
assert(select(2, worker()) ~= first and #children(helper) == 1, "what is left of workers")
if os.getenv "DIE" then
  io.stdout:flush()
  os.execute("kill -9 " .. me)
end
os.execute("kill -9 " .. helper)
for _ = 1, 50 do  -- a worker that has not yet died with it may answer once more
  load()
  if #children(me) == 0 then break end
  os.execute "sleep 0.1"
end
assert(#children(me) == 0, "a helper that was killed is left")
print "alone"
]])
local life = ("run --trust %s"):format(T.quote(script))
with = ("XDG_CACHE_HOME=%s GOOD=%s CRASH=%s/crash.boom %s"):format(T.quote(marks), T.quote(good), T.quote(odd),
  sanitized and "ASAN=1" or "")
local gone = "pictures are decoded in this process, which a broken decoder would end: the one that did it is gone"
for _, how in ipairs { "", " DIE=1" } do
  code, out = run(life, with .. how)
  T.check(code == (how == "" and 0 or 128 + 9), "the processes%s: %d %s", how, code, out)
  T.check(how ~= "" or out:find(gone, 1, true) and out:find "alone", "without a helper: %s", out)
  T.check(sanitized or out:find "filter\t2\t1", "no filter of system calls: %s", out)
  local left, tries = true, 0
  while left and tries < 50 do  -- a process whose parent dies is told, which takes a moment
    left = false
    for pid in out:gmatch "er\t(%d+)" do
      left = left or (T.read(("/proc/%s/stat"):format(pid)) or ""):find "%(burin"
    end
    tries = tries + 1
    if left then T.shell "sleep 0.1" end
  end
  T.check(not left, "processes outlive the program%s", how)
end

-- ---- in the program's own process, when that is asked for -----------------------------------------------------------

local one = T.write(T.scratch .. "/one.lua", 'require "burin.core".image_load(os.getenv "PICTURE")\nprint "after"')
local function here(name)
  return run("run --trust " .. T.quote(one), ("BURIN_DECODE_HERE=1 XDG_CACHE_HOME=%s PICTURE=%s/%s.boom"):format(
    T.quote(marks), T.quote(odd), name))
end
code, out = here "nothing"
T.check(code == 0 and out:find "after" and out:find("would end: as BURIN_DECODE_HERE asks", 1, true), "here: %d %s",
  code, out)
code, out = here "crash"
T.check((code >= 128 or sanitized and code ~= 0)
  and out:find("crasher.so crashed: SIGSEGV; it will be left out", 1, true), "a crash here: %d %s", code, out)
T.finish()
