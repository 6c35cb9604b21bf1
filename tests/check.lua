-- SPDX-License-Identifier: MIT
-- check.lua - what the tests share that run inside the binary (burin run --trust, from the repository root):
--   local T = dofile "tests/check.lua"
local core = require "burin.core"
local T = { passed = 0, failed = 0 }

-- Counts; says the rest when it is not ok.
function T.check(ok, ...)
  if ok then T.passed = T.passed + 1 return end
  T.failed = T.failed + 1
  print("FAIL", ...)
end

function T.checkf(ok, text, ...) T.check(ok, ok or text:format(...)) end

-- |a - b| / |b|
function T.relative(a, b)
  local distance, norm = a:distance(b)
  return distance / norm
end

-- A new empty folder; who asks for it removes it.
function T.folder()
  local path = os.tmpname()
  os.remove(path)
  core.make_dirs(path)
  return path
end

function T.finish(note)
  print(("%d passed, %d failed%s"):format(T.passed, T.failed, note or ""))
  if T.failed > 0 then error("tests failed", 0) end
end

return T
