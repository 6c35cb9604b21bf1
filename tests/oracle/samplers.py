# SPDX-License-Identifier: MIT
"""Makes tests/golden/samplers_more.safetensors with the schedulers of diffusers, for what samplers.safetensors lacks:
LMS, UniPC, DDPM, DPM++ 2M and its SDE as diffusers runs them now, zero terminal SNR, image to image, guidance rescale.

    python3 -m venv venv && venv/bin/pip install torch diffusers==0.31.0 transformers==4.44.2 scipy==1.11.4 safetensors==0.4.5
    venv/bin/python tests/oracle/samplers.py        # from the repository root; the record was made with torch 1.13

Start, fresh noise and network are those of samplers.safetensors: 0.6 tanh(x) + 0.3 x + 0.05 cos(0.01 t).
"""
import importlib

import torch
import diffusers
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from safetensors.torch import load_file, save_file

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000)
record = load_file("tests/golden/samplers.safetensors")
unit, fresh = record["x_T_unit"].double(), record["step_noises"].double()
latents = torch.from_numpy(__import__("numpy").random.default_rng(7).standard_normal(tuple(unit.shape))) * 0.8
out = {"latents": latents.float()}


def network(x, t):
    return 0.6 * torch.tanh(x) + 0.3 * x + 0.05 * torch.cos(0.01 * torch.as_tensor(t, dtype=x.dtype))


def draw(key, name, n=8, first=0, predictions=("eps", "v"), **config):
    """first: number of steps left out; then the start is the noised latents."""
    for prediction in predictions:
        cls = getattr(diffusers, name)
        kind = {"eps": "epsilon", "v": "v_prediction"}[prediction]
        s = cls(**SD, prediction_type=kind, **config)
        s.set_timesteps(n)
        index = [0]
        noise = lambda *a, **k: fresh[index[0] % 8]
        module = importlib.import_module(cls.__module__)
        if hasattr(module, "randn_tensor"):
            module.randn_tensor = noise
        timesteps = s.timesteps[first:]
        if first:
            if hasattr(s, "set_begin_index"):
                s.set_begin_index(first)
            x = s.add_noise(latents, unit, timesteps[:1])
        else:
            x = unit * s.init_noise_sigma
        i, seen = first, None
        for t in timesteps:
            index[0] = i
            e = network(s.scale_model_input(x, t), t)
            kwargs = {"variance_noise": fresh[i % 8]} if config.get("algorithm_type") == "sde-dpmsolver++" else {}
            x = s.step(e, t, x, **kwargs).prev_sample
            i += 1
        out[f"{key}.{prediction}"] = x.float().contiguous()
    if hasattr(s, "sigmas"):
        out[key + ".sigmas"] = torch.as_tensor(s.sigmas).float().clone()
    out[key + ".timesteps"] = torch.as_tensor(s.timesteps).float().clone()


CLIP = dict(clip_sample=False)
DDIM = dict(CLIP, set_alpha_to_one=False)
LEADING = dict(timestep_spacing="leading", steps_offset=1)
TRAILING = dict(timestep_spacing="trailing")
ZERO = dict(rescale_betas_zero_snr=True)
SDE = dict(algorithm_type="sde-dpmsolver++")
for n, tail in ((8, ""), (20, ".20")):
    draw("ddpm" + tail, "DDPMScheduler", n, **CLIP, **LEADING)
    draw("lms.leading" + tail, "LMSDiscreteScheduler", n, **LEADING)
    draw("dpmpp_2m" + tail, "DPMSolverMultistepScheduler", n)
    draw("dpmpp_2m_sde" + tail, "DPMSolverMultistepScheduler", n, **SDE)
    draw("unipc" + tail, "UniPCMultistepScheduler", n)
draw("lms.linspace", "LMSDiscreteScheduler")
draw("lms.karras", "LMSDiscreteScheduler", use_karras_sigmas=True)
draw("heun.karras", "HeunDiscreteScheduler", use_karras_sigmas=True)
draw("unipc.karras", "UniPCMultistepScheduler", use_karras_sigmas=True)
draw("euler_a.leading", "EulerAncestralDiscreteScheduler", **LEADING)
v = ("v",)
draw("zero.ddim", "DDIMScheduler", predictions=v, **DDIM, **TRAILING, **ZERO)
draw("zero.ddpm", "DDPMScheduler", predictions=v, **CLIP, **TRAILING, **ZERO)
draw("zero.euler", "EulerDiscreteScheduler", predictions=v, **TRAILING, **ZERO)
draw("zero.euler_a", "EulerAncestralDiscreteScheduler", predictions=v, **TRAILING, **ZERO)
draw("zero.dpmpp_2m", "DPMSolverMultistepScheduler", predictions=v, **ZERO)
draw("zero.dpmpp_2m_sde", "DPMSolverMultistepScheduler", predictions=v, **SDE, **ZERO)
draw("zero.unipc", "UniPCMultistepScheduler", predictions=v, **ZERO)
# Image to image at strength 0.6 of 8 steps: 4 of them.
draw("image.ddim", "DDIMScheduler", first=4, **DDIM, **LEADING)
draw("image.euler_a", "EulerAncestralDiscreteScheduler", first=4, **LEADING)
draw("image.dpmpp_2m", "DPMSolverMultistepScheduler", first=4)
draw("image.unipc", "UniPCMultistepScheduler", first=4)

g = torch.Generator().manual_seed(3)
cond, uncond = torch.randn(2, 4, 6, 5, generator=g), torch.randn(2, 4, 6, 5, generator=g)
guided = uncond + 7.5 * (cond - uncond)
out.update({"guidance.cond": cond, "guidance.uncond": uncond, "guidance.rescaled": rescale_noise_cfg(guided, cond, 0.7)})
save_file(out, "tests/golden/samplers_more.safetensors", {"made by": "tests/oracle/samplers.py, diffusers " + diffusers.__version__})
print(len(out), "tensors")
