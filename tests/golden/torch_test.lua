-- SPDX-License-Identifier: MIT
-- A PyTorch checkpoint is taken wherever a safetensors file is: the same weights in both, as base model and as LoRA.
-- Runs as `burin run --trust tests/golden/torch_test.lua` from the repository root.
local components = require "burin.graph.component"
local core = require "burin.core"
local models = require "burin.models.model"
local torch = dofile "tests/golden/torch_file.lua"

local T = dofile "tests/check.lua"
local check = T.check

-- ---- the same in both -----------------------------------------------------------------------------------------------

local folder = T.folder()

for _, name in ipairs { "tiny_sd1", "tiny_sdxl" } do
  local path, ckpt = "tests/golden/" .. name .. "/model_ldm.safetensors", folder .. "/" .. name .. ".ckpt"
  torch.convert(path, ckpt, true)
  assert(os.execute(("cp tests/golden/%s/config.json %s"):format(name, folder)))
  local a, b, same = core.load(path), core.load(ckpt), 0
  check(b:meta().global_step == "470000", name, "metadata")
  for _, key in ipairs(a:names()) do
    local x, y = a:info(key), b:info(key)
    same = same + (y and x.dtype == y.dtype and table.concat(x.shape, ",") == table.concat(y.shape, ",")
      and a:read(key):bytes() == b:read(key):bytes() and 1 or 0)
  end
  check(same == #a:names() and same == #b:names() and same > 900, name, same .. " tensors are the same, of", #a:names())

  local plain, pickled = models.open(path), models.open(ckpt)
  check(core.json_encode(plain.config) == core.json_encode(pickled.config), name, "configuration")
  plain:declare()
  for _, component in ipairs(plain:components()) do
    local read_a, read_b, wrong = plain:reader(component.name), pickled:reader(component.name), 0
    for _, e in ipairs(component.order) do
      local x, y = read_a(e.name), read_b(e.name)
      if not y or components.to_device(e, x):distance(components.to_device(e, y)) > 0 then wrong = wrong + 1 end
    end
    check(wrong == 0 and #component.order > 0, name, component.name, wrong .. " tensors differ")
  end

  local init = "tests/golden/" .. name .. "/lora_init.safetensors"
  if core.exists(init) then
    local lora = torch.convert(init, folder .. "/" .. name .. "-lora.pt")
    local model = models.open(ckpt, { patch = require("burin.adapters.file").patch { { path = lora } } })
    check(#core.load(lora):names() == #core.load(init):names() and model.patch ~= nil, name, "LoRA")
  end
end

os.execute("rm -r " .. folder)
T.finish()
