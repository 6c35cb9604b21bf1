-- SPDX-License-Identifier: MIT
-- kill_chains.lua - kills trainings with SIGKILL at random moments, three times in a row each, and compares what they
-- end in with an uninterrupted run, byte for byte: tests/recipes/resume_test.lua in longer chains. Takes many minutes.
--   lua5.4 scripts/dev/kill_chains.lua BURIN SCRATCH-FOLDER [KILLS = 60] [A CHAIN'S = 3]
local burin, scratch = assert(arg[1], "usage: kill_chains.lua BURIN SCRATCH [KILLS] [A CHAIN'S]"), assert(arg[2])
local kills, length = math.tointeger(tonumber(arg[3] or 60)), math.tointeger(tonumber(arg[4] or 3))
assert(kills and length and kills >= length and length >= 1, "numbers of kills are expected")
local ok = os.execute(("BURIN_KILLS=%d BURIN_CHAIN=%d lua5.4 tests/recipes/resume_test.lua '%s' '%s' '%s'"):format(
  kills, length, burin, scratch, (burin:match "^(.*/)" or "./") .. "tests/vulkan_call.so"))
os.exit(ok or false)
