-- SPDX-License-Identifier: MIT
-- Compares the published autoencoder's architecture with what autoencoder.py wrote (FILE).
--   burin run --trust tests/oracle/autoencoder.lua, from the repository's root
local core = require "burin.core"
local models = require "burin.models.model"

local file = core.load(core.env "FILE" or "/tmp/burin-autoencoder.safetensors")
local model = models.new { family = "sd1", unet = models.open("models/tiny-sd.safetensors").config.unet, text = {},
  scaling_factor = 1, vae = { channels = { 128, 256, 512, 512 }, layers = 2, latent_channels = 4, groups = 32 } }
local function var(name, shape) return core.var(name, shape, "f32", "input") end
local latents, image = var("latents", { 1, 12, 10, 4 }), var("image", { 1, 96, 80, 3 })
local decoded, encoded = var("decoded", image.shape), var("encoded", latents.shape)
local g = core.graph()
g:assign(decoded, model:decode_latents(g, g:leaf(latents)))
g:assign(encoded, model:encode_latents(g, g:leaf(image)))
local session = core.session(g, "autoencoder")
core.commit(true)
model.vae:load(function(name) return file:read(name) end)
for name, v in pairs { latents = latents, image = image } do v:write(file:read("test." .. name):cast():permute { 1, 3,
  4, 2 }) end
session:run()
local good = true
for name, v in pairs { decoded = decoded, encoded = encoded } do
  local distance, norm = v:read():permute { 1, 4, 2, 3 }:distance(file:read("test." .. name))
  good = good and distance < 1e-5 * norm
  core.write_stdout(("%s differs by %.1e of its norm\n"):format(name, distance / norm))
end
os.exit(good and 0 or 1)
