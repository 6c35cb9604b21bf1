-- SPDX-License-Identifier: MIT
-- The command line from outside: exit codes, help, and the form of what --json prints.
-- Runs in plain Lua 5.4: lua5.4 tests/cli/cli_test.lua <path of the burin binary>
local burin = assert(arg[1], "usage: cli_test.lua BURIN")

local passed, failed = 0, 0
local function check(ok, text, ...)
  if ok then passed = passed + 1 return end
  failed = failed + 1
  print("FAIL " .. text:format(...))
end

-- Runs the binary with a line of arguments: exit code, stdout, stderr.
local function run(line)
  local errors = os.tmpname()
  local pipe = io.popen(("'%s' %s 2>'%s'"):format(burin, line, errors))
  local out = pipe:read "a"
  local _, how, code = pipe:close()
  local file = io.open(errors)
  local err = file:read "a"
  file:close()
  os.remove(errors)
  return how == "exit" and code or 128 + code, out, err
end

-- A strict reader of JSON, enough for what we print (\u escapes stay as they are).
local decode
local function skip(s, i) return s:match("^[ \t\r\n]*()", i) end
local function list_of(s, i, close, item)
  local out = {}
  i = skip(s, i)
  if s:sub(i, i) == close then return out, i + 1 end
  while true do
    i = skip(s, item(out, i))
    local c = s:sub(i, i)
    if c == close then return out, i + 1 end
    assert(c == ",", "JSON: ',' expected")
    i = skip(s, i + 1)
  end
end
function decode(s, i)
  i = skip(s, i)
  local c = s:sub(i, i)
  if c == "{" then
    return list_of(s, i + 1, "}", function(out, at)
      local key, value
      key, at = decode(s, at)
      at = skip(s, at)
      assert(type(key) == "string" and s:sub(at, at) == ":", "JSON: a key is expected")
      value, at = decode(s, at + 1)
      out[key] = value
      return at
    end)
  elseif c == "[" then
    return list_of(s, i + 1, "]", function(out, at)
      out[#out + 1], at = decode(s, at)
      return at
    end)
  elseif c == '"' then
    local j = i + 1
    while s:sub(j, j) ~= '"' do
      assert(j <= #s, "JSON: an open string")
      j = j + (s:sub(j, j) == "\\" and 2 or 1)
    end
    return s:sub(i + 1, j - 1), j + 1
  end
  local word, after = s:match("^([%w.+-]+)()", i)
  local words = { ["true"] = true, ["false"] = false, null = "null" }
  if words[word] ~= nil then return words[word], after end
  return assert(tonumber(word), "JSON: a value is expected"), after
end

-- Exit code 0, nothing but one JSON value on stdout; returns it.
local function json(line)
  local code, out, err = run(line .. " --json")
  check(code == 0, "%s: exit code %d: %s", line, code, err)
  local ok, value, after = pcall(decode, out, 1)
  ok = ok and skip(out, after) > #out
  check(ok, "%s: not JSON: %s", line, out:sub(1, 200))
  return ok and value or {}
end

local function fails(line, want, pattern)
  local code, out, err = run(line)
  check(code == want, "burin %s: exit code %d, not %d: %s", line, code, want, err)
  check(out == "", "burin %s: an error, but stdout says %s", line, out:sub(1, 80))
  check(err:match "^error: " and err:match(pattern), "burin %s: '%s' does not say '%s'", line, err, pattern)
end

-- ---- help -------------------------------------------------------------------------------------------------------

local code, out = run "--version"
check(code == 0 and out:match "^burin %d+%.%d+%.%d+\n$", "--version: %d %s", code, out)
local _, overview = run "--help"
local commands = {}
for name in overview:gmatch "\n  (%l+) +%S" do commands[#commands + 1] = name end
check(#commands >= 11, "--help lists %d commands", #commands)
for _, name in ipairs(commands) do
  local c, text, err = run(name .. " --help")
  check(c == 0 and err == "", "%s --help: exit code %d %s", name, c, err)
  check(text:find("burin " .. name .. " - ", 1, true) == 1, "%s --help begins with %s", name, text:sub(1, 40))
  check(text:find("usage: burin " .. name, 1, true), "%s --help has no usage", name)
  check(text:match "\n  %-%-json +%S", "%s --help has no --json", name)
  fails(name .. " --frobnicate", 2, "no option %-%-frobnicate")
end

-- ---- mistakes ----------------------------------------------------------------------------------------------------

check(run "" == 2, "no command")
fails("trian recipe.lua", 2, "did you mean 'train'")
fails("zzzzzzzz", 2, "no command 'zzzzzzzz'")
fails("ops --jsno", 2, "did you mean %-%-json")
fails("ops --json=1", 2, "takes no value")
fails("ops --device", 2, "needs a value")
fails("plan recipes/lora-tiny.lua --budget junk", 2, "%-%-budget needs an amount")
fails("train", 2, "usage: burin train")
fails("plan /nonexistent/recipe.lua", 66, "no such recipe")
fails("inspect /nonexistent/model.safetensors", 66, "/nonexistent/model.safetensors")
fails("bench gem", 2, "did you mean 'gemm'")
fails("bench step", 2, "%-%-recipe")
fails("bench --device null", 69, "null device")
fails("bench --device 'no such device'", 1, "no such device")

-- ---- lists -------------------------------------------------------------------------------------------------------

local ops, seen = json "ops", {}
check(#ops > 50, "ops: %d rows", #ops)
for _, op in ipairs(ops) do
  check(type(op.name) == "string" and type(op.help) == "string" and type(op.attrs) == "string" and
    math.type(op.inputs) == "integer" and type(op.differentiable) == "boolean", "ops: row %s", op.name)
  check(not seen[op.name], "ops: %s occurs twice", op.name)
  seen[op.name] = true
end
check(seen.matmul and seen.conv2d and seen.attention, "ops: matmul, conv2d or attention is missing")

local devices = json "devices"
check(#devices > 0, "devices: none")
local types = { discrete = true, integrated = true, cpu = true, other = true }
for _, d in ipairs(devices) do
  check(type(d.name) == "string" and types[d.type] and type(d.driver) == "string" and d.subgroup > 0,
    "devices: %s", d.name)
end

local kinds = {}
for _, p in ipairs(json "plugins") do
  check(type(p.name) == "string" and type(p.path) == "string" and #p.provides > 0, "plugins: %s", p.name)
  for _, what in ipairs(p.provides) do kinds[what.kind .. " " .. what.name] = true end
end
check(kinds["loader safetensors"] and kinds["exporter safetensors"], "plugins: safetensors is missing")
check(kinds["loader torch"], "plugins: torch is missing")

-- ---- files -------------------------------------------------------------------------------------------------------

local data = "'" .. (arg[0]:match "^.*/" or "") .. "../data/torch/"
local checkpoint = json("inspect " .. data .. "lightning-1.13.ckpt'")
check(#checkpoint.tensors == 17 and checkpoint.metadata.global_step == "470000", "inspect: a checkpoint of PyTorch")
fails("inspect " .. data .. "whole-2.15.pt'", 65, "torch%.nn%.modules%.linear%.Linear")

-- ---- measurements: their form, not their speed ---------------------------------------------------------------------

local bench = json "bench gemm --quick"
check(type(bench.device) == "table" and type(bench.device.name) == "string", "bench: no device")
check(bench.share_of == "cpu peak" or bench.share_of == "best result", "bench: shares of %s", bench.share_of)
if bench.share_of == "cpu peak" then
  local p = bench.peak or {}
  check(p.flops > 1e9 and p.bandwidth > 1e8 and p.cores >= 1 and type(p.kind) == "string", "bench: peak")
end
local layouts = {}
for _, r in ipairs(bench.results or {}) do
  layouts[r.what] = true
  check(r.dtype == "f32" or r.dtype == "f16", "bench: type %s", r.dtype)
  local m, n, k = tostring(r.shape):match "^(%d+)x(%d+)x(%d+)$"
  check(m and r.ms > 0, "bench: %s %s takes %s ms", r.what, r.shape, r.ms)
  check(m and math.abs(r.gflops * r.ms * 1e6 / (2 * m * n * k) - 1) < 1e-3, "bench: %s %s: %s GFLOP/s", r.what, r.shape,
    r.gflops)
  check(r.share > 0 and r.share <= 1, "bench: %s %s: share %s", r.what, r.shape, r.share)
end
check(layouts["matmul NN"] and layouts["matmul NT"] and layouts["matmul TN"], "bench: a layout is missing")

print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0 and 0 or 1)
