-- SPDX-License-Identifier: MIT
-- Plugins that lie (tests/abi/liar.c), and files that are none: refused, whoever wrote them, without undefined
-- behaviour.
-- Plugins that crash (tests/abi/crasher.c) are left out from then on.
--   lua5.4 tests/cli/plugins_test.lua BURIN SCRATCH LIAR.so CRASHER.so
local T = dofile "tests/recipes/support.lua"
T.private_cache()
local plugins = T.folder "plugins"
T.shell(("cp %s %s/liar.so; mkfifo %s/pipe.so; mkdir %s/folder.so"):format(T.quote(arg[3]), plugins, plugins, plugins))
local BEFORE = "timeout 60 env BURIN_PLUGINS=" .. T.quote(plugins)

local function refused(what, line, code, ...)
  local c, out = T.run(line, BEFORE)
  local ok = c == code and not out:find "runtime error" and not out:find "Sanitizer"
  for _, says in ipairs { ... } do ok = ok and out:find(says, 1, true) end
  T.check(ok, "%s: %d %s", what, c, out)
end

-- What is no regular file is left out, and said.
refused("a pipe", "plugins", 0, "pipe.so is not a plugin: it is not a regular file", "folder.so is not a plugin",
  "liar")
local code, out = T.run("plugins --no-plugins", BEFORE)
T.check(code == 0 and not out:find "liar" and not out:find "pipe" and out:find "safetensors", "--no-plugins: %d %s",
  code, out)

local broken = 'the plugin "liar" is broken'
local function lie(letter) return T.write(("%s/m_%s.bin"):format(T.scratch, letter), "LIE" .. letter) end
for letter, says in pairs { n = "-5 tensors", c = "4611686018427387904 tensors", b = "its shape needs 16",
  m = "has 16 bytes", d = "element type 99",
    D = "element type 0", r = "100 dimensions", R = "-1 dimensions", z = "impossible shape", x = "impossible shape",
      a = "has no end",
    e = "is empty", ["2"] = "is there twice", k = "an entry of its metadata", l = "metadata have no end" } do
  refused("tensors: " .. letter, "inspect --summary " .. lie(letter), 65, broken, says)
end
for _, letter in ipairs { "o", "f", "g" } do
  refused("tensors: " .. letter, "inspect --values " .. lie(letter), 65,
    'the plugin "liar" failed, and it gave no reason')
end
-- Not aligned, and no lie: read.
refused("not aligned", "inspect --values " .. lie "u", 0, "lora_unet_x.lora_down.weight", "mean 0")

for letter, says in pairs { n = "-7 x -7 pixels", h = "1073741824 x", b = "was decoded to 30000 x 30000",
  c = "no usable picture", d = "no usable picture",
    f = "gave no reason" } do
  local path = T.write(("%s/p_%s.png"):format(T.scratch, letter), "PIX" .. letter)
  refused("picture: " .. letter, "sample models/tiny-sd.safetensors --prompt x --steps 1 --init " .. path, 65,
    'the plugin "liar"', says)
end
for letter, says in pairs { n = "-1 pictures", c = "pictures", p = "has no path", r = "repeated -3 times",
  s = "no path or reason",
  f = "gave no reason" } do
  local place = T.folder(letter .. ".lies")
  refused("dataset: " .. letter, "plan --device null " .. T.recipe("lies",
    { concepts = ('{ { images = %q } }'):format(place) }), 65, 'the plugin "liar"', says)
end

-- ---- plugins that crash ---------------------------------------------------------------------------------------------

local crashing = T.folder "crashing"
local crasher, marks = crashing .. "/crasher.so", T.scratch .. "/xdg/burin/crashed-plugins"
local function fresh()
  T.shell(("rm -rf %s; cp %s %s"):format(T.quote(marks), T.quote(arg[4]), T.quote(crasher)))
end
local function with_crasher(line, asked, before)
  return T.run(line, ("%s env XDG_CACHE_HOME=%s BURIN_PLUGINS=%s CRASHER=%s"):format(before or "timeout 60",
    T.quote(T.scratch .. "/xdg"), T.quote(crashing), T.quote(asked or "")))
end
local function all_marks() return select(2, T.shell("ls -A " .. T.quote(marks))):gsub("%s+$", "") end
local crash_file = T.write(T.scratch .. "/crash.bin", "CRASH")
local use = "inspect --summary " .. crash_file

fresh()
code, out = with_crasher("plugins")
T.check(code == 0 and out:find "crasher" and all_marks() == "", "no crash, no mark: %d %s", code, out)
for asked, name in pairs { ["constructor wild"] = "SIGSEGV", ["main abort"] = "abort", ["probe wild"] = "SIGSEGV",
  ["open abort"] = "abort", ["open divide"] = "SIGFPE", ["count stack"] = "SIGSEGV", ["close wild"] = "SIGSEGV",
  ["open exit"] = "exit" } do
  fresh()
  code, out = with_crasher(use, asked)
  local mark = marks .. "/" .. all_marks()
  local said = ("the plugin %s crashed: %s; it will be left out from now on, until this file is removed: %s"):format(
    crasher, name, mark)
  T.check((code >= 128 or name == "exit" or out:find "Sanitizer") and out:find(said, 1, true), "%s: %d %s", asked, code,
    out)
  code, out = with_crasher("plugins", asked)
  said = ("%s crashed when it was used (%s); to try it again, remove %s; this plugin is left out"):format(crasher, name,
    mark)
  T.check(code == 0 and out:find("safetensors", 1, true) and out:find(said, 1, true), "%s, next start: %d %s", asked,
    code, out)
  os.remove(mark)
  code, out = with_crasher "plugins"
  T.check(code == 0 and out:find "crasher" and not out:find "left out", "%s, brought back: %d %s", asked, code, out)
end
-- Another file of that name has another chance; --no-plugins asks for neither.
fresh()
with_crasher(use, "probe wild")
T.shell(("touch -d 2020-01-01 %s"):format(T.quote(crasher)))
code, out = with_crasher "plugins"
T.check(code == 0 and not out:find "left out", "a plugin that was replaced: %d %s", code, out)
code, out = with_crasher("plugins --no-plugins", "constructor wild")
T.check(code == 0 and not out:find "crasher", "--no-plugins: %d %s", code, out)
-- What a user ends is no crash, nor is what another process sends; and two crashes at once are one.
for _, signal in ipairs { "KILL", "TERM", "SEGV", "ABRT" } do
  fresh()
  code, out = with_crasher(use, "probe wait", "timeout -s " .. signal .. " 0.5")
  T.check(code ~= 0 and out:find "crasher waits" and all_marks() == "", "ended by SIG%s: %d %s", signal, code, out)
end
fresh()
T.shell(("for i in 1 2 3 4; do XDG_CACHE_HOME=%s BURIN_PLUGINS=%s CRASHER='open wild' %s %s & done; wait"):format(
  T.quote(T.scratch .. "/xdg"), T.quote(crashing), T.quote(T.burin), use))
T.check(#all_marks() == 16, "crashes at once leave one mark: %s", all_marks())
code, out = with_crasher("plugins", "constructor wild")
T.check(code == 0 and out:find "left out", "after crashes at once: %d %s", code, out)
-- Without a place for marks it is said that there is none.
fresh()
code, out = T.run(use, ("env XDG_CACHE_HOME=/dev/null BURIN_PLUGINS=%s CRASHER='open wild'"):format(T.quote(crashing)))
T.check(out:find("crasher.so crashed: SIGSEGV, which could not be noted", 1, true), "without a cache: %d %s", code, out)

-- Tensors that lie anywhere in a file, as other programs write them.
local header = '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
  .. '"b":{"dtype":"F32","shape":[4],"data_offsets":[1,17]}}'
for _, text in ipairs { header, header .. "   ", (header:gsub("F32", "F16"):gsub("%[4%]", "[8]")) } do
  local path = T.write(T.scratch .. "/odd.safetensors", ("<I8"):pack(#text) .. text .. "\1" .. ("<f"):pack(2):rep(4))
  refused("unaligned", "inspect --values " .. path, 0, text:find "F16" and "(8)" or "mean 2")
end

-- Pipes where a file is expected are an error, and nobody waits for them.
T.shell(("rm -f %s/pipe; mkfifo %s/pipe"):format(T.scratch, T.scratch))
local pipe = T.scratch .. "/pipe"
for _, line in ipairs { "plan " .. pipe, "run " .. pipe, "inspect " .. pipe, "sample " .. pipe .. " --prompt x",
  "hash " .. pipe, "plan /dev/zero" } do
  local c, said = T.run(line, "timeout 20")
  T.check(c ~= 0 and c ~= 124 and (said:find "regular file" or said:find "neither a file"), "%s: %d %s", line, c, said)
end
local pictures = T.folder "pictures"
T.shell(("cp examples/sks-cat/*/* %s; cd %s; for f in *.png; do rm -f ${f%%.png}.txt; mkfifo "
  .. "${f%%.png}.txt; break; done"):format(pictures, pictures))
code, out = T.run("plan --device null " .. T.recipe("pipes", { concepts = ('{ { images = %q } }'):format(pictures) }),
  "timeout 20")
T.check(code == 0 and out:find "regular file", "a caption that is a pipe: %d %s", code, out)
-- An index that is no index
local folder = T.folder "folder"
T.run(("convert models/tiny-sd.safetensors %s/m --to diffusers"):format(folder))
T.shell(("rm %s/m/unet/*.safetensors; head -c 5000000 /dev/zero | tr '\\0' ' ' > "
  .. "%s/m/unet/diffusion_pytorch_model.safetensors.index.json"):format(folder, folder))
code, out = T.run(("inspect %s/m"):format(folder))
T.check(code == 65 and out:find "larger than the 4194304 bytes", "a large index: %d %s", code, out)
T.finish()
