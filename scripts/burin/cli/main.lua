-- SPDX-License-Identifier: MIT
-- main.lua - `burin <command> ...`. A command is a file of this folder that returns
-- { summary =, usage =, options = { { "--name", "kind", "help", default } }, run = function(args) -> exit code }, and
-- optionally more_options, which other commands have as well.
local amounts = require "burin.base.amounts"
local core = require "burin.core"
local errors = require "burin.base.errors"
local progress = require "burin.base.progress"

local commands = { "train", "resume", "plan", "sample", "run", "inspect", "convert", "merge",
  "extract", "resize", "hash", "cache", "devices", "ops", "plugins", "bench", "verify" }

local common = {
  { "--device", "text", "part of a device name, its number, or 'null' (env BURIN_DEVICE)" },
  { "--tier", "text", "force the kernel tier: host, cpu or simd" },
  { "--validate", "flag", "run under the Vulkan validation layers" },
  { "--json", "flag", "machine-readable output on stdout, no progress" },
  { "--quiet", "flag", "errors only" },
  { "--verbose", "flag", "say more" },
  { "--no-plugins", "flag", "only the plugins that came with Burin, not those of BURIN_PLUGINS" },
  { "--help", "flag", "this text" },
}

local function usage_error(text, ...) errors.raise("usage", text, ...) end

-- Of commands that run a recipe. Such a command has recipe = { limited = whether a recipe without trust has these
-- limits when none are told }.
local usual = { steps = 2000000000, seconds = 3, share = 384 << 20 }
local recipe_options = {
  { "--trust", "flag", "run the recipe without the sandbox: it may do all that you may" },
  { "--recipe-memory", "amount", "memory for Lua, tensors on the host included" },
  { "--recipe-steps", "number", "instructions of Lua that the recipe may take; 0 = any number" },
  { "--recipe-time", "number", "seconds of the processor that it may take before step 1, and in each step; 0 = any" },
}

local function options_of(command)
  return { command.options or {}, command.more_options or {}, command.recipe and recipe_options or {}, common }
end

-- What a recipe may use, before it is run.
local function set_limits(command, args)
  local limited = command.recipe.limited
  if args.recipe_memory then core.limit_memory(amounts.parse(args.recipe_memory))
  elseif limited and not args.trust then core.limit_share(usual.share) end
  local steps = math.tointeger(args.recipe_steps or limited and usual.steps or 0)
  if not steps or steps < 0 then usage_error "--recipe-steps needs a whole number" end
  core.limit_steps(steps)
  local seconds = args.recipe_time or limited and not args.trust and usual.seconds or 0
  if not (seconds >= 0 and seconds < 1e9) then usage_error "--recipe-time needs a number of seconds" end
  core.limit_time(seconds)
end

local function load_command(name)
  for _, known in ipairs(commands) do
    if known == name then return require("burin.cli." .. name) end
  end
  local near = core.nearest(name, commands)
  usage_error("there is no command '%s'%s; see burin --help", name, near and ("; did you mean '" .. near .. "'?") or "")
end

local function overview()
  local lines = { "burin " .. core.version .. " - trains LoRAs and Dreambooth models on any Vulkan device", "",
    "usage: burin <command> [options] ...", "" }
  for _, name in ipairs(commands) do
    lines[#lines + 1] = ("  %-10s %s"):format(name, load_command(name).summary)
  end
  lines[#lines + 1] = "\nburin <command> --help says more. Start with: burin plan recipes/lora-tiny.lua\n"
  return table.concat(lines, "\n")
end

local function help_of(name, command)
  local lines = { "burin " .. name .. " - " .. command.summary, "", "usage: burin " .. name .. " " .. command.usage,
    "" }
  for _, list in ipairs(options_of(command)) do
    for _, o in ipairs(list) do
      local left = o[1] .. (o[2] == "flag" and "" or " " .. o[2]:upper())
      lines[#lines + 1] = ("  %-22s %s%s"):format(left, o[3],
        o[4] ~= nil and (" (default %s)"):format(tostring(o[4])) or "")
    end
  end
  if command.more then lines[#lines + 1] = "\n" .. command.more end
  return table.concat(lines, "\n") .. "\n"
end

-- argv -> { positional ..., device =, json =, ... }; "--name=value" and "--name value".
local function parse(name, command, argv)
  local args, known, names = {}, {}, {}
  for _, list in ipairs(options_of(command)) do
    for _, o in ipairs(list) do
      known[o[1]] = o
      names[#names + 1] = o[1]
      if o[4] ~= nil then args[o[1]:sub(3):gsub("-", "_")] = o[4] end
    end
  end
  local i = 2
  while i <= #argv do
    local word = argv[i]
    local flag, value = word:match "^(%-%-[%w-]+)=(.*)$"
    flag = flag or word
    if word == "--" then
      for k = i + 1, #argv do args[#args + 1] = argv[k] end
      break
    elseif word:sub(1, 2) == "--" or word == "-h" then
      local o = known[word == "-h" and "--help" or flag]
      if not o then
        local near = core.nearest(flag, names)
        usage_error("burin %s has no option %s%s", name, flag, near and ("; did you mean " .. near .. "?") or "")
      end
      local key = o[1]:sub(3):gsub("-", "_")
      if o[2] == "flag" then
        if value then usage_error("%s takes no value", flag) end
        args[key] = true
      else
        if not value then
          i = i + 1
          value = argv[i]
        end
        if not value then usage_error("%s needs a value (%s)", flag, o[3]) end
        if o[2] == "number" and not tonumber(value) then usage_error("%s needs a number, not '%s'", flag, value) end
        if o[2] == "amount" and not amounts.parse(value) then
          usage_error("%s needs an amount such as '2 GiB', not '%s'", flag, value)
        end
        value = o[2] == "number" and tonumber(value) or value
        if o.many then
          args[key] = args[key] or {}
          table.insert(args[key], value)
        else
          args[key] = value
        end
      end
    else
      args[#args + 1] = word
    end
    i = i + 1
  end
  return args
end

-- line: gets what a command may want to know of its own command line (patience.lua): argv, the options that are shared
-- with other commands; failed, a function that it leaves there, is told the error that ends the command.
local function run(argv, line)
  local name = argv[1]
  if not name or name == "--help" or name == "-h" or name == "help" then
    (name and core.write_stdout or core.write_stderr)(overview())
    return name and 0 or 2
  end
  if name == "--version" then
    core.write_stdout("burin " .. core.version .. "\n")
    return 0
  end
  local command = load_command(name)
  local args = parse(name, command, argv)
  if args.help then
    core.write_stdout(help_of(name, command))
    return 0
  end
  if #args < (command.needs or 0) then usage_error("usage: burin %s %s", name, command.usage) end
  if args.quiet then core.log_threshold "error" elseif args.verbose then core.log_threshold "debug" end
  if command.recipe then set_limits(command, args) end
  progress.quiet = args.quiet or args.json or false
  local _, more, recipe, shared = table.unpack(options_of(command))
  args.line, line.argv, line.shared = line, argv, {}
  for _, list in ipairs { more, recipe, shared } do table.move(list, 1, #list, #line.shared + 1, line.shared) end
  args.open_device = function()
    core.open_device { name = args.device, tier = args.tier, validate = args.validate }
    if command.computes and core.device().type == "null" then
      errors.raise("device", "the null device computes nothing; it can only plan")
    end
  end
  return command.run(args) or 0
end

-- argv, a message handler -> the exit code. A failure always has one that is not 0, whatever a recipe raised.
return function(argv, handler)
  local line = {}
  local ok, result = xpcall(run, handler, argv, line)
  if ok then return result end
  core.log("error", errors.message(result))
  if line.failed then line.failed(result) end
  return errors.code(result)
end
