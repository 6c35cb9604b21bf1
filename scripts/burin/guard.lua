-- SPDX-License-Identifier: MIT
-- guard.lua - an exit code for a call that can fail on what a user gave or on the disk: guard(66, core.load, path).
-- A failure that has a code already keeps it.
return function(code, f, ...)
  local results = table.pack(pcall(f, ...))
  if results[1] then return table.unpack(results, 2, results.n) end
  local why = results[2]
  if type(why) == "table" then error(why, 0) end
  why = tostring(why)
  if why:find("NaN or an infinity", 1, true) then code = 70 end  -- the exporters refuse to write it: not the disk's fault
  error({ exit = code, message = why }, 0)
end
