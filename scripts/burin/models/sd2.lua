-- SPDX-License-Identifier: MIT
-- sd2.lua - Stable Diffusion 2.x: the base at 512 pixels, which predicts epsilon, and the one at 768, which predicts v.
-- families.lua says what the fields are.
local parts = require "burin.models.parts"

local function sees(meta) return meta.ss_v2 == "True" end

return {
  name = "sd2", label = "Stable Diffusion 2.x",
  mark = "cond_stage_model.model.token_embedding.weight",
  fits = function(unet) return not unet.added and unet.linear_projection end,
  unet = { prefix = "model.diffusion_model.", lora = "lora_unet_", spellings = { "diffusers" },
    extra_spellings = { "file" }, upcast_attention = true },
  vae = { prefix = "first_stage_model.", scaling_factor = 0.18215, force_upcast = false },
  -- Single files hold one layer more than is used, and a projection that nobody looks at.
  text = { { prefix = "cond_stage_model.model.", lora = "lora_te_", native = "clip_h", layout = "openclip",
    unused_layers = 1, act = "gelu", flavour = "hf_pad_bang", pad = 0, clip_skip = 1, final_norm = true } },
  noise = { kind = "diffusion" },
  prediction = "v",
  prediction_guess = "taken for 'v' as SD 2.x at 768 pixels does. The 512-pixel base needs prediction = 'epsilon'",
  sample_size = 768,
  lora = { version = "^sd_v2" },
  metadata = { base_model_version = "sd_v2", v2 = "True", architecture = "stable-diffusion-v2-512",
    implementation = "diffusers", resolution = 512,
    v = { base_model_version = "sd_v2_v", architecture = "stable-diffusion-v2-768-v", resolution = 768 } },
  seen_as = { A1111 = { "SD2", sees }, Forge = { "SD2", sees } },
  diffusers = { pipeline = "StableDiffusionPipeline", index = { requires_safety_checker = false },
    absent = { "feature_extractor", "safety_checker" },
    scheduler = { _class_name = "DDIMScheduler", set_alpha_to_one = false } },
  -- the config.json files of stable-diffusion-2-1
  published = function()
    return { vae = parts.vae(), text = { parts.open_clip(1024, 23) },
      unet = parts.unet({ 320, 640, 1280, 1280 }, { 1, 1, 1, 0 }, 1, { 5, 10, 20, 20 }, 1024) }
  end,
}
