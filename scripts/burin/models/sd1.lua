-- SPDX-License-Identifier: MIT
-- sd1.lua - Stable Diffusion 1.x. families.lua says what the fields are.
local parts = require "burin.models.parts"

local function sees(meta) return next(meta) ~= nil end
local function forge_sees(meta)
  return meta.ss_base_model_version ~= nil
    or (meta["modelspec.architecture"] or ""):match "^stable%-diffusion%-v1" ~= nil
end

return {
  name = "sd1", label = "Stable Diffusion 1.x",
  fits = function(unet) return not unet.added and not unet.linear_projection end,
  unet = { prefix = "model.diffusion_model.", lora = "lora_unet_", spellings = { "diffusers" },
    extra_spellings = { "file" } },
  vae = { prefix = "first_stage_model.", scaling_factor = 0.18215, force_upcast = false },
  text = { { prefix = "cond_stage_model.transformer.", lora = "lora_te_", native = "clip_l", layout = "clip",
    bare = true, act = "quick_gelu", flavour = "hf", pad = "eos", clip_skip = 1, final_norm = true } },
  noise = { kind = "diffusion" },
  prediction = "epsilon",
  sample_size = 512,
  lora = { version = "^sd_v1" },
  metadata = { base_model_version = "sd_v1", v2 = "False", architecture = "stable-diffusion-v1",
    implementation = "diffusers", resolution = 512 },
  seen_as = { A1111 = { "SD1", sees }, Forge = { "SD1", forge_sees } },
  diffusers = { pipeline = "StableDiffusionPipeline", index = { requires_safety_checker = false },
    absent = { "feature_extractor", "safety_checker" },
    scheduler = { _class_name = "PNDMScheduler", skip_prk_steps = true, set_alpha_to_one = false } },
  -- the config.json files of stable-diffusion-v1-5
  published = function()
    return { vae = parts.vae(), text = { parts.clip_l() },
      unet = parts.unet({ 320, 640, 1280, 1280 }, { 1, 1, 1, 0 }, 1, { 8, 8, 8, 8 }, 768) }
  end,
}
