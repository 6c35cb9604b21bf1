-- SPDX-License-Identifier: MIT
-- generated.lua - parts of a document that a script writes: what stands between
--   <!-- generated: NAME -->  and  <!-- end -->
-- is replaced by parts[NAME]. With --check nothing is written and a difference is an error.
local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

return function(path, parts, check)
  local old, used = read(path), {}
  local new = old:gsub("(<!%-%- generated: ([%w._ -]-) %-%->\n).-(<!%-%- end %-%->)", function(head, name, tail)
    used[name] = true
    return head .. (parts[name] or error(path .. ": nothing generates '" .. name .. "'")) .. tail
  end)
  for name in pairs(parts) do if not used[name] then error(path .. " lacks <!-- generated: " .. name .. " -->") end end
  if new == old then return end
  if check then
    io.stderr:write(path, " is out of date; write it again with: lua5.4 ", arg[0], "\n")
    os.exit(1)
  end
  local file <close> = assert(io.open(path, "wb"))
  file:write(new)
end
