-- SPDX-License-Identifier: MIT
-- sdxl.lua - Stable Diffusion XL. families.lua says what the fields are.
local parts = require "burin.models.parts"

local function sees(meta) return (meta.ss_base_model_version or ""):match "^sdxl_" ~= nil end
local function forge_sees(meta)
  return sees(meta) or (meta["modelspec.architecture"] or ""):match "^stable%-diffusion%-xl%-v1%-base" ~= nil
end

return {
  name = "sdxl", label = "SDXL",
  mark = "conditioner.embedders.1.model.token_embedding.weight",
  fits = function(unet) return unet.added ~= nil end,
  unet = { prefix = "model.diffusion_model.", lora = "lora_unet_", spellings = { "file", "diffusers" } },
  vae = { prefix = "first_stage_model.", scaling_factor = 0.13025, force_upcast = true },
  text = {
    { prefix = "conditioner.embedders.0.transformer.", lora = "lora_te1_", native = "clip_l", layout = "clip",
      projection = false, act = "quick_gelu", flavour = "hf", pad = "eos", clip_skip = 2, fixed = true },
    { prefix = "conditioner.embedders.1.model.", lora = "lora_te2_", native = "clip_g", layout = "openclip",
      pooled = true, act = "gelu", flavour = "hf", pad = 0, clip_skip = 2, fixed = true },
  },
  conditioning = { sizes = { "height", "width", "top", "left", "target_height", "target_width" } },
  noise = { kind = "diffusion" },
  prediction = "epsilon",
  sample_size = 1024,
  -- Only its transformers are deeper than one block.
  lora = { version = "^sdxl", keys = { "^lora_te[12]_", "^text_encoder_2%.", "clip_g%.",
    "transformer_blocks[_.][1-9]" }, likely = { "^lora_unet_%a+put_blocks_", "^unet%.%a+put_blocks%." } },
  metadata = { base_model_version = "sdxl_base_v1-0", v2 = "False", architecture = "stable-diffusion-xl-v1-base",
    implementation = "https://github.com/Stability-AI/generative-models", resolution = 1024 },
  seen_as = { A1111 = { "SDXL", sees }, Forge = { "SDXL", forge_sees } },
  diffusers = { pipeline = "StableDiffusionXLPipeline", index = { force_zeros_for_empty_prompt = true }, absent = {},
    scheduler = { _class_name = "EulerDiscreteScheduler", timestep_spacing = "leading",
      interpolation_type = "linear", use_karras_sigmas = false } },
  -- the config.json files of stable-diffusion-xl-base-1.0
  published = function()
    return { vae = parts.vae(), text = { parts.clip_l(), parts.open_clip(1280, 32, 1280) },
      unet = parts.unet({ 320, 640, 1280 }, { 0, 2, 10 }, 10, { 5, 10, 20 }, 2048, 2816) }
  end,
}
