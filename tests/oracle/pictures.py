# SPDX-License-Identifier: MIT
"""Draws what pictures.lua drew with diffusers' own pipelines, from the same noise and tokens, and compares.

    FACTS=<folder with tiny_sd1/, tiny_sdxl/ and their diffusers/ folders> burin run --trust tests/oracle/pictures.lua
    python tests/oracle/pictures.py <that folder> [/tmp/burin-pictures.safetensors]

Last run with torch 2.15.0, diffusers 0.42.1, transformers 5.23.0: 1.1e-6, 2.0e-6, 1.3e-6.

Exit code 1 when a picture differs by more than 1e-4 of its norm."""
import sys

import torch
from diffusers import (AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, StableDiffusionImg2ImgPipeline,
                       StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel)
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

facts = sys.argv[1]
ours = load_file(sys.argv[2] if len(sys.argv) > 2 else "/tmp/burin-pictures.safetensors")
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading")
ddim = DDIMScheduler(**SD, clip_sample=False, set_alpha_to_one=False)
failed = False


def text_model(cls, folder, width, mlp, heads, act, projection=None):
    config = CLIPTextConfig(vocab_size=1024, hidden_size=width, intermediate_size=mlp, num_hidden_layers=3,
                            num_attention_heads=heads, hidden_act=act, bos_token_id=1022, eos_token_id=1023,
                            projection_dim=projection or width)
    m = cls(config)
    state = load_file(folder + "/model.safetensors")
    if not any(k.startswith("text_model.") for k in m.state_dict()):
        state = {k.removeprefix("text_model."): v for k, v in state.items()}
    missing, unexpected = m.load_state_dict(state, strict=False)
    assert all("position_ids" in k for k in missing) and all("position_ids" in k for k in unexpected), (missing, unexpected)
    return m.eval()


def ids(name, i):  # what lies outside of the small vocabulary is its last token; first half negative, second half the prompt
    return ours[f"{name}.ids.{i}"].long().clamp(max=1023)


def compare(name, picture):
    global failed
    mine = ours[name + ".picture"]
    error = ((picture - mine).norm() / mine.norm()).item()
    failed |= not error < 1e-4
    print(f"{name:12} {tuple(mine.shape)} differs by {error:.2e} of its norm")


def common(name):
    return dict(num_inference_steps=6, guidance_scale=5.0, output_type="pt", return_dict=False)


def denormal(x):  # pipelines return [0, 1], clamped
    return x[0] * 2 - 1


vae = AutoencoderKL.from_pretrained(facts + "/tiny_sd1/diffusers/vae").eval()
unet = UNet2DConditionModel.from_pretrained(facts + "/tiny_sd1/diffusers/unet").eval()
te = text_model(CLIPTextModel, facts + "/tiny_sd1/diffusers/text_encoder", 32, 128, 4, "quick_gelu")
parts = dict(vae=vae, text_encoder=te, tokenizer=None, unet=unet, safety_checker=None, feature_extractor=None,
             requires_safety_checker=False)
for n in ("sd1", "sd1_image", "sdxl"):
    ours[n + ".picture"] = ours[n + ".picture"].clamp(-1, 1)

with torch.no_grad():
    states = te(ids("sd1", 1), output_hidden_states=True).hidden_states[-2]
    states = (te.text_model if hasattr(te, "text_model") else te).final_layer_norm(states)
    pipe = StableDiffusionPipeline(scheduler=ddim, **parts)
    pipe.set_progress_bar_config(disable=True)
    compare("sd1", denormal(pipe(prompt_embeds=states[1:], negative_prompt_embeds=states[:1], latents=ours["sd1.noise"],
                                 guidance_rescale=0.7, **common("sd1"))[0]))

    # The image pipeline draws its noise itself, and a sample of the latents: hand it ours, and their mean.
    last = te(ids("sd1_image", 1)).last_hidden_state
    latents = vae.encode(ours["sd1_image.init"]).latent_dist.mode() * vae.config.scaling_factor
    ddim.set_timesteps(6)
    noisy = ddim.add_noise(latents, ours["sd1_image.noise"], ddim.timesteps[3:4])
    pipe = StableDiffusionImg2ImgPipeline(scheduler=ddim, **parts)
    pipe.set_progress_bar_config(disable=True)
    pipe.prepare_latents = lambda *a, **k: noisy
    compare("sd1_image", denormal(pipe(image=ours["sd1_image.init"] / 2 + 0.5, strength=0.6, prompt_embeds=last[1:],
                                       negative_prompt_embeds=last[:1], **common("sd1_image"))[0]))

    one = text_model(CLIPTextModel, facts + "/tiny_sdxl/diffusers/text_encoder", 16, 64, 2, "quick_gelu")
    two = text_model(CLIPTextModelWithProjection, facts + "/tiny_sdxl/diffusers/text_encoder_2", 24, 96, 3, "gelu", 24)
    a, b = one(ids("sdxl", 1), output_hidden_states=True), two(ids("sdxl", 2), output_hidden_states=True)
    states = torch.cat([a.hidden_states[-2], b.hidden_states[-2]], dim=-1)
    vae.register_to_config(scaling_factor=0.13025, force_upcast=False)
    xl = UNet2DConditionModel.from_pretrained(facts + "/tiny_sdxl/diffusers/unet").eval()
    pipe = StableDiffusionXLPipeline(vae=vae, text_encoder=one, text_encoder_2=two, tokenizer=None, tokenizer_2=None, unet=xl,
                                     scheduler=EulerDiscreteScheduler(**SD), add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    end = ours["sdxl.ids.2"].argmax(dim=1)  # before the clamping
    pooled = two.text_projection(b.last_hidden_state[torch.arange(2), end])
    compare("sdxl", denormal(pipe(height=64, width=96, prompt_embeds=states[1:], negative_prompt_embeds=states[:1],
                                  pooled_prompt_embeds=pooled[1:], negative_pooled_prompt_embeds=pooled[:1],
                                  latents=ours["sdxl.noise"], **common("sdxl"))[0]))
sys.exit(failed)
