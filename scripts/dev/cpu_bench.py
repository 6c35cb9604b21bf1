#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""cpu_bench.py - a LoRA step of SD 1.5 (rank 16, U-Net, batch 1, f32) on the processor: Burin and PyTorch in turns.
  python3 scripts/dev/cpu_bench.py [--pixels 256] [--turns 5] [--burin host,cpu] [--torch f32,autocast,bf16]
From the repository's root, with build/release built, lua5.4, and torch, diffusers and peft for this python3. Weights
are random. A line of JSON for each turn, then the medians. peak: what each process held at most; Burin's counts the
model's file, which it maps (2.0 GiB), and planned is what it takes beside that."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

RECIPE = """local burin = require "burin"
return burin.train {{
  name = "step", base = burin.model "{work}/sd15.safetensors", resolution = {pixels}, batch = 1, steps = 2, seed = 7,
  concepts = {{ {{ images = "{here}/examples/sks-cat", prompt = "a photo of sks cat" }} }},
  method = burin.lora {{ rank = 16, text_encoder = false }}, optimizer = burin.adamw {{ lr = 1e-4 }},
}}
"""


def run(command, **more):
    """-> its JSON, and the most bytes that it held."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **more)
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: status {status}")
    return json.loads(text), usage.ru_maxrss * 1024


def burin_turn(tier, work):
    out, peak = run(["build/release/burin", "bench", "step", "--json", "--tier", tier, "--recipe", f"{work}/step.lua"],
                    env=os.environ | {"BURIN_CACHE": f"{work}/cache"})
    step = out["step"]
    return {"seconds": step["seconds_per_step"], "peak": peak, "planned": step["planned_bytes"],
            "start": sum(step["start"].values())}


def torch_turn(mode, pixels):
    out, peak = run([sys.executable, "scripts/dev/torch_step.py", "sd15", str(pixels), mode, "--device", "cpu",
                     "--runs", "3"])
    return {"seconds": out["seconds_per_step"], "peak": peak}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--burin", default="host")
    parser.add_argument("--torch", default="f32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(["lua5.4", "scripts/dev/random_checkpoint.lua", "sd15", f"{work}/sd15.safetensors"], check=True,
                       stdout=subprocess.DEVNULL)
        with open(f"{work}/step.lua", "w") as f:
            f.write(RECIPE.format(work=work, pixels=args.pixels, here=os.getcwd()))
        turns = {}
        for _ in range(args.turns):
            for tier in filter(None, args.burin.split(",")):
                turns.setdefault(f"burin {tier}", []).append(burin_turn(tier, work))
            for mode in filter(None, args.torch.split(",")):
                turns.setdefault(f"torch {mode}", []).append(torch_turn(mode, args.pixels))
            for name, list in turns.items():
                print(json.dumps({"name": name} | list[-1]), flush=True)
        for name, list in turns.items():
            middle = {key: statistics.median(t[key] for t in list) for key in list[0]}
            print(json.dumps({"median": name, "pixels": args.pixels, "turns": args.turns} | middle), flush=True)


main()
