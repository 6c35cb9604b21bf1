-- SPDX-License-Identifier: MIT
-- commands.lua - commands of burin in one process, for tests that train many times: the device compiles its kernels
-- once. Runs inside `burin run --trust`:
--   local C = dofile "tests/recipes/commands.lua"
--   local code, out = C.run { "train", "recipe.lua", "--output", "runs" }
local core = require "burin.core"
local main = require "burin.cli.main"
local C = {}

-- Each run seals the device's memory for good; here others follow.
local commit = core.commit
function core.commit() commit(false) end
function core.open_device() end

-- What the library says, as the binary would print it: stdout and stderr in one.
local out
local levels = { error = 1, warn = 2, info = 3, debug = 4 }
local before = { error = "error: ", warn = "warning: ", info = "", debug = "" }
local threshold = "info"
local log, stdout, stderr = core.log, core.write_stdout, core.write_stderr
local function keep(text) if out then out[#out + 1] = text end end
function core.log(level, text)
  if not out then return log(level, text) end
  if levels[level] <= levels[threshold] then keep(before[level] .. text .. "\n") end
end
function core.log_threshold(level) threshold = level end
function core.write_stdout(text) if out then keep(text) else stdout(text) end end
function core.write_stderr(text) if out then keep(text) else stderr(text) end end

-- argv -> exit code, all that it said. Recipes run without the sandbox, which would hold this process as well.
function C.run(argv)
  local line = { table.unpack(argv) }
  if line[1] == "train" or line[1] == "resume" or line[1] == "plan" then
    for _, more in ipairs { "--trust", "--recipe-steps", "0" } do line[#line + 1] = more end
  end
  out, threshold = {}, "info"
  -- A stack of its own: an error names the line of a recipe that is on it, and this file is none.
  local code = coroutine.wrap(main)(line, function(e) return e end)
  local text = table.concat(out)
  out = nil
  collectgarbage()
  collectgarbage()
  return code, text
end

-- A file's bytes, or nil; and the path of one that was written.
function C.read(path)
  local file <close> = io.open(path, "rb")
  return file and file:read "a"
end
function C.write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
  return path
end

return C
