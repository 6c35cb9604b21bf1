# SPDX-License-Identifier: MIT
"""torch_step.py - a LoRA training step (rank 16, U-Net only, AdamW) of diffusers and peft, timed for comparison with
`burin bench step`. Weights, latents and texts are random. One line of JSON on stdout:
  python3 scripts/dev/torch_step.py sd15|sdxl PIXELS f32|tf32|autocast|bf16|compiled [--device cpu] [--runs N]
f32 keeps matrix units off, tf32 lets them in, autocast is bf16 over f32 weights, bf16 holds the whole U-Net in bf16,
compiled is bf16 through torch.compile."""
import argparse
import contextlib
import json
import statistics
import time

import diffusers
import peft
import torch

SIZES = {
    "sd15": dict(cross_attention_dim=768, attention_head_dim=8),
    "sdxl": dict(
        cross_attention_dim=2048, attention_head_dim=[5, 10, 20], block_out_channels=[320, 640, 1280],
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        transformer_layers_per_block=[1, 2, 10], use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816),
}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
MODES = ["f32", "tf32", "autocast", "bf16", "compiled"]


def unet(model, dtype, device):
    with torch.device(device):
        net = diffusers.UNet2DConditionModel(sample_size=64, **SIZES[model])
    net.requires_grad_(False).to(dtype)
    net.add_adapter(peft.LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS))
    for p in net.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return net.train()


def batch(model, pixels, device):
    def normal(*shape):
        return torch.randn(shape, device=device)
    added = None
    if model == "sdxl":
        added = {"text_embeds": normal(1, 1280), "time_ids": torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]],
                                                                         device=device)}
    size = pixels // 8
    return normal(1, 4, size, size), normal(1, 77, SIZES[model]["cross_attention_dim"]), added


def measure(model, pixels, mode, device, runs):
    tf32 = mode == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    whole = mode in ("bf16", "compiled")
    net = unet(model, torch.bfloat16 if whole else torch.float32, device)
    latents, text, added = batch(model, pixels, device)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    forward = torch.compile(net) if mode == "compiled" else net
    signal = torch.linspace(0.99, 0.05, 1000, device=device)
    # LoRA weights stay f32 in every mode, as trainers keep them; autocast casts them for the products.
    cast = contextlib.nullcontext() if mode in ("f32", "tf32") else torch.autocast(device, torch.bfloat16)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def step():
        noise, t = torch.randn_like(latents), torch.randint(0, 1000, (1,), device=device)
        a = signal[t].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        with cast:
            guess = forward(noisy, t, text, added_cond_kwargs=added).sample
        torch.nn.functional.mse_loss(guess.float(), noise).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    wait()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        wait()
        times.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return {"seconds_per_step": statistics.median(times), "peak_bytes": peak}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=SIZES)
    parser.add_argument("pixels", type=int)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=int, default=10)
    args = parser.parse_args()
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__}
    print(json.dumps(versions | measure(args.model, args.pixels, args.mode, args.device, args.runs)))


main()
