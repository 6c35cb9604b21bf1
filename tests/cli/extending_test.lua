-- SPDX-License-Identifier: MIT
-- Follows docs/extending.md: applies its diffs to a copy of the tree, builds that, and uses what they add.
-- lua5.4 tests/cli/extending_test.lua <source folder> <scratch folder> <cmake>, from the source folder
package.path = "tests/recipes/?.lua;" .. package.path
local T = require "support"
local source, scratch, cmake = table.unpack(arg, 1, 3)
local tree, build = scratch .. "/tree", scratch .. "/build"
local LONGEST = 30  -- lines of a diff
local FAMILY = 60   -- lines of all that a model family takes

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end
local function write(path, text)
  local file <close> = assert(io.open(path, "wb"))
  file:write(text)
end
local function sh(text, ...)
  local command = text:format(...)
  local pipe = io.popen(command .. " 2>&1")
  local out = pipe:read "a"
  if not pipe:close() then error("failed: " .. command .. "\n" .. out, 0) end
  return out
end

-- { path =, new file =, hunks = { { old =, new = } } } of every ```diff block.
local function diffs(text)
  local list = {}
  for block in text:gmatch "\n```diff\n(.-)```" do
    local d, hunk, lines = { hunks = {} }, nil, 0
    for line in block:gmatch "([^\n]*)\n" do
      lines = lines + 1
      local sign, rest = line:sub(1, 1), line:sub(2)
      if line:match "^%-%-%- " then d.created = line == "--- /dev/null"
      elseif line:match "^%+%+%+ " then d.path = line:match "^%+%+%+ b/(.+)$"
      elseif sign == "@" then
        hunk = { old = "", new = "" }
        table.insert(d.hunks, hunk)
      else
        if sign ~= "+" then hunk.old = hunk.old .. rest .. "\n" end
        if sign ~= "-" then hunk.new = hunk.new .. rest .. "\n" end
      end
    end
    assert(lines < LONGEST, ("the diff of %s has %d lines"):format(d.path, lines))
    d.lines = lines
    list[#list + 1] = d
  end
  return list
end

-- Applied by content, not by line number. The file keeps its old time unless it or the page is newer, so that a second
-- run of this test builds nothing.
local function apply(d)
  local text = d.created and "" or read(source .. "/" .. d.path)
  for _, h in ipairs(d.hunks) do
    if d.created then
      text = h.new
    else
      local from, to = text:find(h.old, 1, true)
      assert(from and not text:find(h.old, to, true), d.path .. ": the diff's context is not there, or not once")
      text = text:sub(1, from - 1) .. h.new .. text:sub(to + 1)
    end
  end
  local page, original = source .. "/docs/extending.md", source .. "/" .. d.path
  write(tree .. "/" .. d.path, text)
  sh("if [ '%s' -nt '%s' ] || [ ! -e '%s' ]; then touch -r '%s' '%s'; else touch -r '%s' '%s'; fi", page, original,
    original, page, tree .. "/" .. d.path, original, tree .. "/" .. d.path)
end

sh("rm -rf '%s' && mkdir -p '%s' && cd '%s' && cp -a CMakeLists.txt cmake core data plugins scripts shaders '%s'", tree,
  tree, source, tree)
local list = diffs(read(source .. "/docs/extending.md"))
assert(#list == 5, "docs/extending.md: an op, a method, a schedule and the two files of a model family")
assert(list[4].lines + list[5].lines < FAMILY)
for _, d in ipairs(list) do apply(d) end
sh("'%s' -S '%s' -B '%s' -G Ninja -DCMAKE_BUILD_TYPE=Debug", cmake, tree, build)
sh("'%s' --build '%s' --target burin plugin_safetensors plugin_folder plugin_stb_image", cmake, build)

-- The op: values and derivatives on a device.
write(scratch .. "/op.lua", [[
local burin = require "burin"
local at = { -30, -2.5, -0.5, 0, 0.5, 2.5, 30, 1 }
local f = burin.session("op", { x = { { 8 } } }, function(x, graph)
  local y = x.x:softplus()
  return { y = y, dx = graph:backward(y:sum_to {}, { x.x })[1] }
end)
local out = f { x = burin.tensor({ 8 }, "f32", at) }
for i, v in ipairs(at) do
  local y, dx = math.log(1 + math.exp(-math.abs(v))) + math.max(v, 0), 1 / (1 + math.exp(-v))
  assert(math.abs(out.y:get(i) - y) < 1e-5 and math.abs(out.dx:get(i) - dx) < 1e-5, v)
end
]])
-- The method and the schedule: a short training run.
write(scratch .. "/train.lua", ([[
local burin = require "burin"
return burin.train {
  name = "extended", base = burin.model "%s/tests/golden/tiny_sd1/model_ldm.safetensors",
  concepts = { { images = "%s/examples/sks-cat" } },
  method = burin.ia3 {}, schedule = burin.root {}, optimizer = burin.adamw { lr = 0.01 },
  resolution = 64, steps = 4,
}
]]):format(source, source))
local burin = ("cd '%s' && BURIN_CACHE='%s/cache' '%s/burin'"):format(source, scratch, build)
-- What trains and samples is one process, which compiles its kernels once.
T.burin, T.burin_cache = build .. "/burin", scratch .. "/cache"
local server = T.server(source)
local function served(text, ...)
  local code, out = server(text:format(...))
  if code ~= 0 then error(("failed: %s\n%s"):format(text:format(...), out), 0) end
  return out
end
assert(sh("%s ops", burin):find "softplus +1  d")
sh("%s run '%s/op.lua'", burin, scratch)
served("train '%s/train.lua' --force --output '%s/runs'", scratch, scratch)
local step = 0
for line in io.lines(scratch .. "/runs/extended/metrics.jsonl") do
  local lr = tonumber(line:match '"lr": ([%d.e-]+)')
  assert(math.abs(lr - 0.01 * (1 - math.sqrt(step / 4))) < 1e-6, line)
  step = step + 1
end
assert(step == 4)
local result = sh("%s inspect --values '%s/runs/extended/extended.safetensors'", burin, scratch)
local tensors, trained = 0, 0
for name, std in result:gmatch "(%S+%.ia3_scale)%S*  mean %S+ std (%S+)" do
  -- One token attends to itself whatever its key: at this size the middle block's keys have no gradient.
  if not name:find "mid_block.*attn1_to_k" then
    tensors = tensors + 1
    if tonumber(std) > 0 then trained = trained + 1 end
  end
end
assert(tensors > 0 and trained == tensors, result)

-- The model family: the reference model under its names. It is recognised, trained with its noise, sampled with and
-- without the LoRA, and goes into a folder and back.
write(scratch .. "/rename.lua", ([[
local core = require "burin.core"
local names = { ["^model%%.diffusion_model%%."] = "toy.denoiser.", ["^first_stage_model%%."] = "toy.pictures.",
  ["^cond_stage_model%%.transformer%%."] = "toy.words." }
local file, list = core.load "%s/tests/golden/tiny_sd1/model_ldm.safetensors", {}
for i, name in ipairs(file:names()) do
  local new = name
  for from, to in pairs(names) do new = new:gsub(from, to) end
  list[i] = { new, file:read(name) }
end
core.export("%s/toy/toy.safetensors", "safetensors", list, {})
]]):format(source, scratch))
sh("rm -rf '%s/toy' && mkdir '%s/toy'", scratch, scratch)
local settings = read(source .. "/tests/golden/tiny_sd1/config.json"):gsub('"prediction_type"[^,]*,', "", 1)
write(scratch .. "/toy/config.json", settings)  -- of heads and norm groups, which shapes do not show
sh("%s run --trust '%s/rename.lua'", burin, scratch)
local toy = scratch .. "/toy/toy.safetensors"
result = sh("%s inspect --summary '%s'", burin, toy)
assert(result:find "is +Toy Diffusion checkpoint, single file[^\n]*\n.-\nprediction +v\n", result)

write(scratch .. "/toy.lua", ([[
local burin = require "burin"
local least = 1
return burin.train {
  name = "toy", base = burin.model "%s", concepts = { { images = "%s/examples/sks-cat" } },
  method = burin.lora { rank = 2 }, resolution = 64, steps = 2, optimizer = burin.adamw { lr = 0.01 },
  loss = burin.loss { name = "seen", weight = function(snr, prediction)
    least = math.min(least, snr)
    burin.log("least %%.6f %%s", least, prediction)
    return 1
  end },
}
]]):format(toy, source))
local said = served("train '%s/toy.lua' --force --output '%s/runs'", scratch, scratch)
local product = 1
for t = 0, 999 do product = product * (1 - (0.00085 ^ 0.5 + (0.015 ^ 0.5 - 0.00085 ^ 0.5) * t / 999) ^ 2) end
assert(said:find(("least %.6f v"):format(product / (1 - product)), 1, true), "another noise process: " .. said)
local adapter = scratch .. "/runs/toy/toy.safetensors"
result = sh("%s inspect '%s' --base '%s'", burin, adapter, toy)
assert(result:find "ss_base_model_version = toy_v1" and result:find "lora_denoiser_input_blocks_1_1_proj_in"
  and result:find "lora_words_text_model_encoder_layers_0_mlp_fc1" and not result:find "lora_unet_", result)
assert(sh("%s inspect '%s'", burin, adapter):find "is +LoRA of an unknown model; %-%-base MODEL says more")
served("sample '%s' --lora '%s':1 --prompt 'a cat' --steps 2 --out '%s/toy'", toy, adapter, scratch)
assert(sh("%s inspect '%s/toy/00001.png'", burin, scratch):find "Size: 64x64")
sh("%s convert '%s' '%s/toy/folder' --to diffusers", burin, toy, scratch)
assert(read(scratch .. "/toy/folder/scheduler/scheduler_config.json"):find '"beta_end": 0.015')
sh("%s convert '%s/toy/folder' '%s/toy/back.safetensors' --to single", burin, scratch, scratch)
local function tensors_of(path) return sh("%s inspect '%s' | grep toy[.]", burin, path) end
assert(tensors_of(toy) == tensors_of(scratch .. "/toy/back.safetensors"), "a folder and back is another file")
print(("%d diffs applied, %d scales trained"):format(#list, trained))
T.finish()
