-- SPDX-License-Identifier: MIT
-- The rules of the house that a compiler does not check: layers, names of foreign libraries, sizes, format, licence
-- lines, the README's reading path. From the root: lua5.4 tests/null/house_test.lua
local LINES = 1000                                        -- of a source file
local FUNCTION = 120                                      -- lines of a C function
local COLUMNS = 100                                       -- of a line of C, in characters
local CEILINGS = {                                        -- of files below a folder
  { "^shaders/", 150 }, { "^scripts/burin/models/", 300 }, { "^recipes/[^/]*$", 60 },
}
-- What a folder of core/ may include, itself aside. main.c is the folder "main".
local LAYERS = {
  base = {}, gpu = { "base" }, plug = { "base" }, host = { "base" }, graph = { "base", "host" },
  data = { "base", "plug" }, lua = { "base", "plug", "graph", "host", "data" }, main = { "lua" },
}
-- Tables in plain preprocessor language, which C and GLSL share: for everybody.
local SHARED = { ["graph/shader.h"] = true, ["graph/control.h"] = true, ["graph/ops.def"] = true,
  ["graph/dtypes.def"] = true, ["lib/erf.glsl"] = true }
-- What stays as it is: the header that the first plugins were compiled with.
local FROZEN = { ["tests/abi/burin_plugin_v1.h"] = true }
-- The exception: graphs meet the device in three files.
local EXCEPT = { ["core/graph/device.c"] = "gpu", ["core/graph/session.c"] = "gpu", ["core/graph/info.c"] = "gpu" }

-- The one file with a socket: a pair without a name, between two processes of ours.
local PAIR = "core/base/channel.c"
local NETWORK = { "socket", "bind", "connect", "listen", "accept", "accept4", "getaddrinfo", "sendto" }

-- A model family is known by its record alone: its name, and the words that other programs have for it, stand in no
-- other file of scripts/burin/. The list of families is the exception. "SDXL" and "Stable Diffusion" are for people.
local SYNONYMS = "scripts/burin/base/synonyms.lua"         -- the words of other programs
local FAMILIES = "scripts/burin/models/families.lua"
local FAMILY_WORDS = { "sd_v%d", "stable%%?%-diffusion", "StableDiffusion", "%.family%s*[=~]=%s*[\"']",
  "family%.name%s*[=~]=" }

-- The rooms of scripts/burin/: each sees itself and those before it. Only init.lua, which recipes get, lies beside
-- them.
local ROOMS = { "base", "graph", "models", "adapters", "text", "sample", "train", "cli" }

local failures, checks = {}, 0
local function check(ok, text, ...)
  checks = checks + 1
  if not ok then failures[#failures + 1] = text:format(...) end
end

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end
local function lines_of(text) return select(2, text:gsub("\n", "")) end

-- Every file of ours below the folders, without build trees: name -> text.
local files = {}
local pipe = io.popen("find core plugins shaders scripts recipes tests editors -type f \\( -name '*.[ch]' "
  .. "-o -name '*.lua' -o -name '*.comp' -o -name '*.glsl' -o -name '*.def' \\) | LC_ALL=C sort")
for path in pipe:lines() do files[#files + 1] = path end
pipe:close()
assert(#files > 100, "run this from the repository's root")

-- C without comments and strings, line breaks kept.
local function code_of(text)
  local function blank(s) return (s:gsub("[^\n]", " ")) end
  local out, i = {}, 1
  while i <= #text do
    local two = text:sub(i, i + 1)
    local from, to, keep = i, i, false
    if two == "/*" then to = select(2, text:find("*/", i + 2, true)) or #text
    elseif two == "//" then to = (text:find("\n", i, true) or #text + 1) - 1
    elseif two:match "^[\"']" then
      to = i + 1
      while text:sub(to, to) ~= two:sub(1, 1) do to = to + (text:sub(to, to) == "\\" and 2 or 1) end
    else
      to, keep = (text:find("[/\"']", i + 1) or #text + 1) - 1, true
    end
    out[#out + 1] = keep and text:sub(from, to) or blank(text:sub(from, to))
    i = to + 1
  end
  return table.concat(out)
end

local function allowed(list, folder)
  for _, one in ipairs(list) do if one == folder then return true end end
end

local function check_includes(path, text)
  local folder = path:match "^core/(%l+)/" or (path == "core/main.c" and "main")
  for line in text:gmatch "[^\n]+" do
    local own, foreign = line:match '^%s*#%s*include%s*"([^"]+)"', line:match "^%s*#%s*include%s*<([^>]+)>"
    if path:match "^plugins/" and own then
      check(own == "burin_plugin.h" or not own:find "/", "%s includes %s: a plugin sees burin_plugin.h only", path, own)
    elseif folder and own then
      local target = own:match "^(%l+)/"
      check(not target or target == folder or SHARED[own] or allowed(LAYERS[folder] or {}, target)
        or EXCEPT[path] == target,
        "%s includes %s: %s/ is not below %s/", path, own, target, folder)
    end
    if foreign then  -- nothing listens and nothing is fetched, so nothing of it needs to be guarded
      check(not (foreign:match "^sys/socket" and path ~= PAIR or foreign:match "^sys/un%." or foreign:match "^netinet"
        or foreign:match "^netdb" or foreign:match "curl"), "%s includes %s: Burin has no network", path, foreign)
    end
    if foreign and path:match "^core/" then
      check(not foreign:match "^lua" and not foreign:match "^lauxlib" or folder == "lua",
        "%s includes %s: only core/lua does", path, foreign)
      check(not foreign:match "^vulkan" or folder == "gpu", "%s includes %s: only core/gpu does", path, foreign)
    end
  end
end

-- Bodies that begin with a brace in column 0 (or end the line of a signature) and end with one.
local function check_functions(path, code)
  local line, start, name = 0, nil, "?"
  for text in (code .. "\n"):gmatch "([^\n]*)\n" do
    line = line + 1
    local opens = text:match "^{" or text:match "^%a.*%)%s*{%s*$"
    if not start and opens then start = line end
    name = not start and text:match "^%a.-([%w_]+)%(" or name
    if start and text:match "^}" then
      check(line - start + 1 <= FUNCTION, "%s:%d: %s has %d lines", path, start, name, line - start + 1)
      start = nil
    end
  end
end

local function check_columns(path, text)
  local line = 0
  for one in text:gmatch "([^\n]*)\n" do
    line = line + 1
    local n = utf8.len(one)
    check(n and n <= COLUMNS, "%s:%d: %s", path, line, n and n .. " columns" or "no UTF-8")
  end
end

-- One process for all files; what it finds goes to stderr, so that is joined.
local function check_format(paths)
  local pipe = io.popen("LC_ALL=C clang-format --dry-run -Werror " .. table.concat(paths, " ") .. " 2>&1")
  local said = pipe:read "a"
  local ok, _, code = pipe:close()
  check(code ~= 127,
    "clang-format is not installed, so the format of the C files cannot be checked; ./setup installs it")
  if ok or code == 127 then return end
  local seen = {}
  for path, line in said:gmatch "([%w_/.-]+%.[ch]):(%d+):%d+: error" do
    if not seen[path] then check(false, "%s:%s: not as clang-format has it; run clang-format -i %s", path, line,
      path) end
    seen[path] = true
  end
  check(next(seen), "clang-format failed: %s", said)
end

-- A number that a kernel and its caller agree on has its name in core/graph/shader.h alone.
local function check_shader(path, text)
  check(not text:gsub("#define IDS_BINDING", ""):find "#define%s+[%u%d_]+%s+%d",
    "%s gives a number a name: that is for core/graph/shader.h", path)
  local name = path:match "([%w_]+)%.comp$"
  if name == "selftest" then return end  -- its caller is a test
  check(not text:find "constant_id%s*=%s*%d" or path == "shaders/lib/types.glsl",
    "%s: KERNEL_SPEC_OWN + i is a kernel's own constant i", path)
  local emitted = false
  for _, other in ipairs(files) do
    emitted = emitted or other:match "^core/graph/.*%.c$" and read(other):find("%f[%w_]SHADER_" .. (name or "")
      .. "%f[^%w_]")
  end
  check(not name or emitted, "%s: nothing in core/graph calls it", path)
end

local sources = {}
for _, path in ipairs(files) do
  local text = read(path)
  if path:match "^shaders/" then check_shader(path, text) end
  local n = lines_of(text)
  local ceiling = LINES
  for _, c in ipairs(CEILINGS) do if path:match(c[1]) then ceiling = c[2] end end
  check(n <= ceiling, "%s has %d lines, %d at most", path, n, ceiling)
  local first, second = text:match "^([^\n]*)\n([^\n]*)"
  local spdx = (first or ""):find("SPDX-License-Identifier: MIT", 1, true)
    or ((first or ""):match "^#" or (first or ""):match "^%-%-%-@meta") and second:find("SPDX-License-Identifier: MIT",
      1, true)
  check(spdx, "%s: the first line is no SPDX-License-Identifier", path)
  if path:match "%.[ch]$" then
    local code = code_of(text)
    check_functions(path, code)
    if not FROZEN[path] then
      sources[#sources + 1] = path
      check_columns(path, text)
    end
    if not path:match "^tests/" then check_includes(path, text) end
    if path == PAIR then
      for _, name in ipairs(NETWORK) do
        check(not code:find("%f[%w_]" .. name .. "%s*%("), "%s calls %s: Burin has no network", path, name)
      end
    end
    if path:match "^core/" then
      check(path:match "^core/gpu/" or not code:find "%f[%w_]Vk%u", "%s: Vulkan outside core/gpu", path)
      check(path:match "^core/lua/" or not code:find "%f[%w_]lua_%l", "%s: Lua outside core/lua", path)
      check(not code:find "%f[%w]case%s+OP_%l", "%s: a switch over ops; the op table says what an op is", path)
    end
  end
end

check_format(sources)

for _, path in ipairs(files) do
  local n = 0
  for line in (path:match "%.lua$" and read(path) or ""):gmatch "([^\n]*)\n" do
    n = n + 1
    check((utf8.len(line) or #line) <= 120, "%s:%d: more than 120 columns", path, n)
  end
end

local floor = {}
for i, room in ipairs(ROOMS) do floor[room] = i end
for _, path in ipairs(files) do
  local inner = path:match "^scripts/burin/(.*)%.lua$"
  local room = inner and inner:match "^(%l+)/"
  if inner then
    check(room and floor[room] or inner == "init", "%s: no room of scripts/burin (%s)", path, table.concat(ROOMS, ", "))
    for module in read(path):gmatch 'require[ (]*"burin%.([%w_.]+)"' do
      local target = floor[module:match "^%l+"]
      check(module == "core" or target and target <= (floor[room] or #ROOMS - 1),
        "%s requires burin.%s: that is no room below it", path, module)
    end
  end
end

local records, words = {}, { table.unpack(FAMILY_WORDS) }  -- record: its own word
for name in read(FAMILIES):match "\nlocal files = (%b{})":gmatch '"([%w_]+)"' do
  local record = ("scripts/burin/models/%s.lua"):format(name)
  check(read(record):find(('name = "%s"'):format(name), 1, true), "%s is the record of no family '%s'", record, name)
  words[#words + 1] = "%f[%w_]" .. name
  records[record] = words[#words]
end
check(next(records), "%s lists no family", FAMILIES)
for _, path in ipairs(files) do
  if path:match "^scripts/burin/" and path ~= FAMILIES and path ~= SYNONYMS then
    local n, own = 0, records[path]
    for line in (read(path) .. "\n"):gmatch "([^\n]*)\n" do
      n = n + 1
      for i, word in ipairs(words) do
        check(word == own or own and i <= #FAMILY_WORDS or not line:find(word),
          "%s:%d names a model family, which only its record may (%s)", path, n, word)
      end
    end
  end
end

-- "| `path` | 123 |" in the README: within a tenth of the truth, all together about what the text says.
local total, readme = 0, read "README.md"
for path, said in readme:gmatch "| `([%w_/.-]+)` | (%d+) |" do
  local n = lines_of(read(path))
  total = total + n
  check(math.abs(n - said) <= n / 10, "README.md: %s has %d lines, not %s", path, n, said)
end
local promised = readme:match "[Aa]bout ([%d,]+) lines"
check(promised and math.abs(total - promised:gsub(",", "")) <= total / 10,
  "README.md: the reading path has %d lines, not %s", total, promised)
for path in readme:gmatch "%]%(([%w_/.-]+)%)" do
  local file = io.open(path)
  check(file or path == "docs/before-after.png", "README.md points at %s, which does not exist", path)
  if file then file:close() end
end

print(("%d checks, %d failed"):format(checks, #failures))
for _, text in ipairs(failures) do print("FAILED: " .. text) end
os.exit(#failures == 0)
