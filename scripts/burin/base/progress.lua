-- SPDX-License-Identifier: MIT
-- progress.lua - a bar with rate, ETA and average loss on a terminal; plain lines, at most one every few seconds,
-- otherwise; nothing under --json or --quiet.
local class = require "burin.base.class"
local core = require "burin.core"
local progress = { quiet = false }

local function duration(s)
  if s ~= s or s == math.huge then return "?" end
  s = math.floor(s + 0.5)
  if s >= 3600 then return ("%d:%02d:%02d"):format(s // 3600, s // 60 % 60, s % 60) end
  return ("%d:%02d"):format(s // 60, s % 60)
end
progress.duration = duration

local Bar, new_bar = class "progress"

function progress.new(title, total, first)
  local terminal, width = core.terminal()
  local now = core.clock()
  return new_bar { title = title, total = total, first = first or 0, terminal = terminal, width = width,
    start = now, last = terminal and 0 or now }
end

-- done: units finished; text: what to show behind, such as "loss 0.123".
function Bar:update(done, text)
  if progress.quiet then return end
  local now = core.clock()
  local finished = done >= self.total
  if not finished and now - self.last < (self.terminal and 0.1 or 5) then return end
  self.last = now
  local elapsed = now - self.start
  local rate = (done - self.first) / math.max(elapsed, 1e-9)
  local speed = rate >= 1 and ("%.1f/s"):format(rate) or ("%.2f s each"):format(1 / math.max(rate, 1e-9))
  local line = ("%s %d/%d  %s  %s"):format(self.title, done, self.total, speed,
    finished and "took " .. duration(elapsed) or "ETA " .. duration((self.total - done) / rate))
  if text then line = line .. "  " .. text end
  if not self.terminal then
    core.write_stderr(line .. "\n")
    return
  end
  local room = self.width - #line - 4
  if room >= 10 then
    local full = math.floor(room * done / self.total)
    line = ("[%s%s] %s"):format(("="):rep(full), (" "):rep(room - full), line)
  end
  core.write_stderr("\r" .. line:sub(1, self.width - 1) .. "\27[K" .. (finished and "\n" or ""))
end

return progress
