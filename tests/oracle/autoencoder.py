# SPDX-License-Identifier: MIT
"""Writes the published autoencoder's architecture with random weights, and what diffusers computes with it, for
autoencoder.lua to compare: its attention has one head of 512 columns, which no small model has.

    python tests/oracle/autoencoder.py [/tmp/burin-autoencoder.safetensors]      # torch, diffusers; 330 MB
    burin run --trust tests/oracle/autoencoder.lua

Last run with torch 2.15.0, diffusers 0.42.1: decoding 3.8e-6, encoding 1.8e-6 of the norm."""
import sys

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

torch.manual_seed(0)
vae = AutoencoderKL(down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
                    block_out_channels=[128, 256, 512, 512], layers_per_block=2, norm_num_groups=32).eval()
latents, image = torch.randn(1, 4, 12, 10), torch.rand(1, 3, 96, 80) * 2 - 1
with torch.no_grad():
    out = {"test.latents": latents, "test.image": image, "test.decoded": vae.decode(latents).sample,
           "test.encoded": vae.encode(image).latent_dist.mean}
out.update(vae.state_dict())
save_file({k: v.contiguous() for k, v in out.items()}, sys.argv[1] if len(sys.argv) > 1 else "/tmp/burin-autoencoder.safetensors")
