-- SPDX-License-Identifier: MIT
-- server.lua - the other end of support.lua's T.server: reads commands of burin from stdin, runs them one after the
-- other, and writes what became of each to the pipe REPLY. TESTS: the folder of this file. An argument comes as its
-- length, a line feed and its bytes; before them comes their number.
local C = dofile(assert(os.getenv "TESTS") .. "/commands.lua")
while true do
  local count = io.read "n"
  if not count then break end
  local argv = {}
  for i = 1, count do
    local bytes = io.read("n", 1)
    argv[i] = bytes > 0 and io.read(bytes) or ""
  end
  local code, out = C.run(argv)
  local pipe <close> = assert(io.open(os.getenv "REPLY", "wb"))
  pipe:write(code, "\n", out)
end
