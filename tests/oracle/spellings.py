# SPDX-License-Identifier: MIT
"""LoRA files as other programs write them, with what those programs make of the weights.

Not part of ./check. It renews tests/golden/spellings: each case is a file or a folder, and expected.safetensors holds
the merged tensors under "CASE|name in the single-file checkpoint". From the repository root:

    VENV/bin/pip install -r tests/oracle/requirements.txt lycoris-lora==3.2.0.post2
    VENV/bin/python tests/oracle/spellings.py [folder with InvokeAI's model_manager/omi/vendor/convert/lora]

LyCORIS' and PEFT's own modules hold random numbers and merge themselves. ComfyUI's and OneTrainer's names are made from
the checkpoint's own keys, or by OneTrainer's converter (the folder; without it that case is left as it is); their
formulas are those of kohya's LoRA, in float64.
"""
import importlib.util
import os
import shutil
import sys

import torch
from safetensors.torch import load_file, save_file

from lycoris.modules.full import FullModule
from lycoris.modules.norms import NormModule
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model

OUT = "tests/golden/spellings"
UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer."
BASE = load_file("tests/golden/tiny_sd1/model_ldm.safetensors")
XL = load_file("tests/golden/tiny_sdxl/model_ldm.safetensors")
EXPECTED = {}
torch.manual_seed(7)
torch.set_grad_enabled(False)

# single file's name -> diffusers' name, of the layers that are used here
LAYERS = {
    UNET + "middle_block.1.transformer_blocks.0.attn1.to_q": "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    UNET + "middle_block.1.transformer_blocks.0.attn1.to_out.0": "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0",
    UNET + "input_blocks.1.0.in_layers.2": "down_blocks.0.resnets.0.conv1",
    UNET + "middle_block.1.proj_in": "mid_block.attentions.0.proj_in",
    UNET + "middle_block.1.norm": "mid_block.attentions.0.norm",
    UNET + "middle_block.1.transformer_blocks.0.norm1": "mid_block.attentions.0.transformer_blocks.0.norm1",
}
Q, OUT0, CONV, PROJ, GROUP, LAYER = LAYERS
FC1 = TEXT + "text_model.encoder.layers.0.mlp.fc1"


def random(*shape):
    return 0.4 * torch.randn(*shape)


def module(name, base=BASE):
    """The layer of this name as a torch module with the checkpoint's weights."""
    w, b = base[name + ".weight"], base.get(name + ".bias")
    if w.dim() == 4:
        m = torch.nn.Conv2d(w.shape[1], w.shape[0], w.shape[2], padding=w.shape[2] // 2, bias=b is not None)
    elif w.dim() == 2:
        m = torch.nn.Linear(w.shape[1], w.shape[0], bias=b is not None)
    elif name == GROUP:
        m = torch.nn.GroupNorm(4, w.shape[0])
    else:
        m = torch.nn.LayerNorm(w.shape[0])
    m.weight.copy_(w)
    if b is not None:
        m.bias.copy_(b)
    return m


def expect(case, name, weight, bias=None):
    EXPECTED[f"{case}|{name}.weight"] = weight.detach().float().contiguous().clone()
    if bias is not None:
        EXPECTED[f"{case}|{name}.bias"] = bias.detach().float().contiguous().clone()


def save(case, tensors):
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, f"{OUT}/{case}.safetensors")


def kohya(name):
    return "lora_unet_" + LAYERS[name].replace(".", "_")


# ---- LyCORIS ----------------------------------------------------------------------------------------------------------

def lycoris(case, classes, **options):
    tensors = {}
    for name, kind in classes.items():
        own = module(name)
        m = kind(kohya(name), own, 1.0, **({} if kind is NormModule else options))
        for p in m.parameters():
            p.data.copy_(random(*p.shape) if p.dim() else torch.ones(()))
        if kind is FullModule:
            state = {"diff": m.weight, "diff_b": m.bias} if m.bias is not None else {"diff": m.weight}
            weight, bias = m.get_diff_weight()
            weight, bias = own.weight + weight, None if bias is None else own.bias + bias
        else:
            state = {k: v for k, v in m.state_dict().items() if not k.startswith("org_")}
            weight, bias = m.get_merged_weight()
        for k, v in state.items():
            tensors[f"{kohya(name)}.{k}"] = v
        expect(case, name, weight.reshape(own.weight.shape), bias)
    save(case, tensors)


# ---- PEFT -------------------------------------------------------------------------------------------------------------

class Tree(torch.nn.Module):
    """Modules under their dotted names."""

    def __init__(self, names):
        super().__init__()
        for name in names:
            at, parts = self, LAYERS[name].split(".")
            for part in parts[:-1]:
                if not hasattr(at, part):
                    at.add_module(part, torch.nn.Module())
                at = getattr(at, part)
            at.add_module(parts[-1], module(name))


def randomize(model, wanted):
    for key, p in model.named_parameters():
        if wanted(key):
            p.data.copy_(random(*p.shape))


def merged(case, model, names):
    whole = model.merge_and_unload()
    for name in names:
        m = whole.get_submodule(LAYERS[name])
        expect(case, name, m.weight, m.bias)


def peft(case, config, names, wanted):
    model = get_peft_model(Tree(names), config)
    randomize(model, wanted)
    shutil.rmtree(f"{OUT}/{case}", ignore_errors=True)
    model.save_pretrained(f"{OUT}/{case}/unet")
    os.remove(f"{OUT}/{case}/unet/README.md")
    merged(case, model, names)


def named(case):
    """PEFT's own state with the adapter's name in it, as programs save it that do not take it away."""
    names = [Q, OUT0]
    targets = [LAYERS[n] for n in names]
    model = get_peft_model(Tree(names), LoraConfig(r=3, lora_alpha=3, target_modules=targets, use_dora=True),
                           adapter_name="default_0")
    randomize(model, lambda key: "lora_A" in key or "lora_B" in key)
    save(case, {k: v for k, v in model.state_dict().items() if "lora_" in k})
    merged(case, model, names)


# ---- ComfyUI, OneTrainer, ai-toolkit: their names, kohya's formula ------------------------------------------------------

def pair(name, base=BASE, rank=3):
    w = base[name + ".weight"]
    if w.dim() == 4:
        return random(rank, *w.shape[1:]), random(w.shape[0], rank, 1, 1)
    return random(rank, w.shape[1]), random(w.shape[0], rank)


def product(down, up, like, scale=1.0):
    return (scale * up.double().flatten(1) @ down.double().flatten(1)).reshape(like.shape)


def plain(case, names, spell, ends=("lora_down", "lora_up"), alpha=None, base=BASE, dtype=None):
    tensors = {}
    for name in names:
        down, up = pair(name, base)
        if dtype:
            down, up = down.to(dtype), up.to(dtype)
        key = spell(name)
        tensors[f"{key}.{ends[0]}.weight"], tensors[f"{key}.{ends[1]}.weight"] = down, up
        scale = 1.0
        if alpha:
            tensors[f"{key}.alpha"], scale = torch.tensor(alpha), alpha / down.shape[0]
        w = base[name + ".weight"]
        expect(case, name, w.double() + product(down.float(), up.float(), w, scale))
    return tensors


def comfy_name(name):
    """ComfyUI's model keys are the single file's without "model."; its CLIP-L is clip_l.transformer."""
    if name.startswith(UNET):
        return name[len("model."):]
    return "text_encoders.clip_l.transformer." + name[len(TEXT):]


def comfy():
    tensors = plain("comfy", [Q, CONV, FC1, OUT0, TEXT + "text_model.embeddings.position_embedding"], comfy_name)
    for name in (OUT0, FC1):
        tensors[comfy_name(name) + ".diff_b"] = d = random(*BASE[name + ".bias"].shape)
        EXPECTED[f"comfy|{name}.bias"] = BASE[name + ".bias"] + d
    tensors[comfy_name(GROUP) + ".diff"] = d = random(*BASE[GROUP + ".weight"].shape)
    tensors[comfy_name(GROUP) + ".diff_b"] = e = random(*d.shape)
    expect("comfy", GROUP, BASE[GROUP + ".weight"] + d, BASE[GROUP + ".bias"] + e)
    save("comfy", tensors)


def magnitude():
    tensors = plain("magnitude", [Q, OUT0], kohya, alpha=2.0)
    for name in (Q, OUT0):
        w = EXPECTED[f"magnitude|{name}.weight"].double()
        m = random(w.shape[0]).abs() + 1
        tensors[kohya(name) + ".magnitude"] = m
        expect("magnitude", name, w * (m.double() / w.norm(dim=1))[:, None])
    save("magnitude", tensors)


def omi(folder):
    """kohya's names of an SDXL LoRA, put into OMI's by OneTrainer's own converter."""
    package = "invokeai.backend.model_manager.omi.vendor.convert.lora"
    for part in range(1, len(package.split(".")) + 1):
        name = ".".join(package.split(".")[:part])
        sys.modules[name] = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, None, is_package=True))
    for name in ("convert_lora_util", "convert_clip", "convert_sdxl_lora"):
        spec = importlib.util.spec_from_file_location(f"{package}.{name}", f"{folder}/{name}.py")
        sys.modules[spec.name] = m = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(m)
    util = sys.modules[package + ".convert_lora_util"]
    sets = sys.modules[package + ".convert_sdxl_lora"].convert_sdxl_lora_key_sets()
    names = {
        UNET + "middle_block.1.transformer_blocks.1.attn2.to_k": "lora_unet.mid_block.attentions.0.transformer_blocks.1.attn2.to_k",
        UNET + "input_blocks.1.0.in_layers.2": "lora_unet.down_blocks.0.resnets.0.conv1",
        UNET + "output_blocks.2.2.conv": "lora_unet.up_blocks.0.upsamplers.0.conv",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.0.mlp.fc1": "lora_te1.text_model.encoder.layers.0.mlp.fc1",
        "conditioner.embedders.1.model.transformer.resblocks.0.mlp.c_fc": "lora_te2.text_model.encoder.layers.0.mlp.fc1",
    }
    tensors = plain("omi", list(names), lambda name: names[name], alpha=1.5, base=XL)
    made = util.convert_to_omi(tensors, sets)
    assert len(made) == len(tensors), "every key has a name in OMI"
    made["bundle_emb.<cat>.clip_l"] = random(2, 16)
    save("omi", made)


def main():
    os.makedirs(OUT, exist_ok=True)
    lycoris("lycoris_full", {Q: FullModule, OUT0: FullModule, CONV: FullModule, GROUP: NormModule, LAYER: NormModule})
    targets = [LAYERS[n] for n in (Q, OUT0, CONV)]
    everything = lambda key: "hada_" in key or "lokr_" in key
    peft("peft_loha", LoHaConfig(r=3, alpha=2, target_modules=targets, alpha_pattern={LAYERS[Q]: 6}), [Q, OUT0, CONV], everything)
    peft("peft_loha_effective", LoHaConfig(r=2, alpha=2, target_modules=targets[2:], use_effective_conv2d=True), [CONV], everything)
    peft("peft_lokr", LoKrConfig(r=2, alpha=6, target_modules=targets, rank_pattern={LAYERS[Q]: 64}, decompose_factor=4), [Q, OUT0, CONV], everything)
    peft("peft_lokr_both", LoKrConfig(r=1, alpha=3, target_modules=targets[:2], decompose_both=True), [Q, OUT0], everything)
    peft("peft_bias", LoraConfig(r=2, lora_alpha=4, target_modules=targets, bias="all"), [Q, OUT0, CONV, GROUP],
         lambda key: "lora_" in key or "bias" in key)
    peft("peft_lora_bias", LoraConfig(r=2, lora_alpha=4, target_modules=[LAYERS[OUT0]], lora_bias=True), [OUT0], lambda key: "lora_" in key)
    named("named")
    comfy()
    save("ldm", plain("ldm", [Q, CONV, PROJ], lambda name: "lora_unet_" + name[len(UNET):].replace(".", "_"), alpha=2.0))
    save("fp8_e4m3", plain("fp8_e4m3", [Q, CONV], kohya, alpha=2.0, dtype=torch.float8_e4m3fn))
    save("fp8_e5m2", plain("fp8_e5m2", [Q], kohya, alpha=2.0, dtype=torch.float8_e5m2))
    magnitude()
    if len(sys.argv) > 1:
        omi(sys.argv[1])
    else:
        old = load_file(f"{OUT}/expected.safetensors")
        EXPECTED.update({k: v for k, v in old.items() if k.startswith("omi|")})
    save("expected", EXPECTED)


main()
