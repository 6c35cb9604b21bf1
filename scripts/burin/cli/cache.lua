-- SPDX-License-Identifier: MIT
-- cache.lua - what was computed once and is kept: what there is, whether it is whole, and what may go.
local amounts = require "burin.base.amounts"
local cache = require "burin.base.cache"
local caches = require "burin.base.caches"
local core = require "burin.core"
local errors = require "burin.base.errors"
local progress = require "burin.base.progress"

local function line(text, ...) core.write_stdout(core.shown(text:format(...)) .. "\n") end

local function age(entry)
  local days = (select(2, core.date()) - entry.used) / 86400
  return days >= 1 and ("%d d"):format(days // 1) or ("%d h"):format(days * 24 // 1)
end

local function totals(list)
  local kinds, by = {}, {}
  for _, e in ipairs(list) do
    local k = by[e.kind]
    if not k then
      k = { kind = e.kind, entries = 0, bytes = 0, useless = 0, damaged = 0 }
      by[e.kind], kinds[#kinds + 1] = k, k
    end
    k.entries, k.bytes = k.entries + 1, k.bytes + e.bytes
    if e.useless then k.useless = k.useless + 1 end
    if e.damaged then k.damaged = k.damaged + 1 end
  end
  table.sort(kinds, function(a, b) return a.kind < b.kind end)
  return kinds
end

local function print_entry(e)
  local why = e.why or e.useless or e.damaged and "it is damaged"
  line("%-10s %12s %6s  %s%s%s", e.kind, amounts.text(e.bytes), age(e), e.path, e.of and "  of " .. e.of or "",
    why and "  (" .. why .. ")" or "")
end

local function roots()
  local list = { cache.root() }
  local other = core.cache_root()
  if other and other ~= list[1] then list[2] = other .. "/pipelines" end
  return list
end

-- list: entries; more: further fields of the JSON.
local function report(args, list, more)
  if not args.json then return false end
  local out = { folders = roots(), kinds = totals(list), entries = list }
  for k, v in pairs(more or {}) do out[k] = v end
  core.write_stdout(core.json_encode(out) .. "\n")
  return true
end

local actions = {}

function actions.list(args)
  local list = caches.list()
  if report(args, list) then return 0 end
  for _, folder in ipairs(roots()) do line("%s", folder) end
  for _, k in ipairs(totals(list)) do
    line("  %-10s %6d entries %12s%s%s", k.kind, k.entries, amounts.text(k.bytes),
      k.useless > 0 and (", %d of no use any more"):format(k.useless) or "",
      k.damaged > 0 and (", %d damaged"):format(k.damaged) or "")
  end
  for _, e in ipairs(args.entries and list or {}) do print_entry(e) end
  return 0
end

function actions.verify(args)
  local list, damaged = caches.list(), {}
  local bar = progress.new("verifying", #list)
  caches.verify(list, function(i) bar:update(i) end)
  for _, e in ipairs(list) do if e.damaged then damaged[#damaged + 1] = e end end
  if args.remove then errors.guard("output", caches.remove, damaged) end
  local code = #damaged > 0 and not args.remove and errors.codes.data or 0
  if report(args, damaged, { checked = #list, removed = args.remove and #damaged or 0 }) then return code end
  for _, e in ipairs(damaged) do print_entry(e) end
  line("%d entries, %d damaged%s", #list, #damaged, #damaged == 0 and "" or args.remove and " and removed"
    or "; they are computed again when they are needed, and --remove removes them")
  return code
end

function actions.prune(args)
  if args.days and not (args.days >= 0 and args.days < 1e6) then
    errors.raise("usage", "--days takes a number from 0 on, not %s", args.days)
  end
  local bytes = args.size and (amounts.parse(args.size)
    or errors.raise("usage", "--size needs an amount such as '2 GiB', not '%s'", args.size))
  local list, total = caches.list(), 0
  local out = caches.choose(list, { days = args.days, bytes = bytes })
  for _, e in ipairs(out) do total = total + e.bytes end
  if not args.dry_run then errors.guard("output", caches.remove, out) end
  if report(args, out, { removed = args.dry_run and 0 or #out }) then return 0 end
  for _, e in ipairs(args.entries and out or {}) do print_entry(e) end
  line("%d of %d entries %s, %s", #out, #list, args.dry_run and "would be removed" or "removed", amounts.text(total))
  return 0
end

return {
  summary = "what is kept of pictures, captions and kernels: list, verify, prune",
  usage = "list | verify | prune [options]",
  needs = 1,
  options = {
    { "--entries", "flag", "list, prune: each entry, with the picture or caption it is of" },
    { "--remove", "flag", "verify: remove what is damaged" },
    { "--days", "number", "prune: what was not used for so many days" },
    { "--size", "amount", "prune: the longest unused, until the rest takes at most this, as '2 GiB'" },
    { "--dry-run", "flag", "prune: remove nothing, only say" },
  },
  more = "prune always removes what no longer can be used: entries of another version of Burin, of a codec that\n"
    .. "is not there any more, and what a killed process left. Nothing is lost: all of it can be computed again.\n"
    .. "The folder is $BURIN_CACHE, or $XDG_CACHE_HOME/burin, or ~/.cache/burin.",
  run = function(args)
    local action = actions[args[1]]
    if not action then
      errors.raise("usage", "burin cache takes list, verify or prune, not '%s'", args[1])
    end
    return action(args)
  end,
}
