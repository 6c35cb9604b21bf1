# SPDX-License-Identifier: MIT
"""Files that Burin writes, read by diffusers and peft, and the other way round; outputs are compared.

Not part of ./check: it needs PyPI packages (requirements.txt) and minutes. From the repository root:

    python3 -m venv VENV && VENV/bin/pip install -r tests/oracle/requirements.txt
    VENV/bin/python tests/oracle/compare.py build/release/burin [sd1 sd2 sdxl] [--golden | --full]

--golden also writes tests/golden/foreign: adapters made by those libraries, with what they compute. --full compares models of
the published sizes with random weights instead of the tiny ones; SDXL takes 14 GB of disk and 20 GB of memory.
"""
import gc
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import logging as diffusers_logging
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

BURIN = os.path.abspath(sys.argv[1])
GOLDEN = "--golden" in sys.argv
SCRATCH = tempfile.mkdtemp(prefix="burin-oracle-")
FAILED = []
torch.manual_seed(1)
torch.set_grad_enabled(False)

SIZES = {"sd1": dict(context=32, ids=1023), "sd2": dict(context=24, ids=1023), "sdxl": dict(context=40, ids=1023, pooled=24)}
FULL_SIZES = {"sd1": dict(context=768, ids=49407), "sd2": dict(context=1024, ids=49407), "sdxl": dict(context=2048, ids=49407, pooled=1280)}


class Warnings(logging.Handler):
    """Collects what the libraries complain about."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


WARNINGS = Warnings()
logging.captureWarnings(True)  # peft reports missing keys as warnings
for name in ("diffusers", "peft", "transformers", "py.warnings"):
    logging.getLogger(name).addHandler(WARNINGS)
diffusers_logging.set_verbosity_warning()


def check(ok, text):
    print(("ok    " if ok else "FAIL  ") + text, flush=True)
    if not ok:
        FAILED.append(text)


def burin(*args, **env):
    result = subprocess.run([BURIN, *args], env={**os.environ, **env}, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"burin {' '.join(args)}: {result.stderr}")
    return result.stdout


def scratch(name):
    return os.path.join(SCRATCH, name)


def inputs_of(family, sizes=SIZES):
    s = sizes[family]
    ids = torch.randint(1, 1000, (2, 77), dtype=torch.int32)
    ids[:, 0] = s["ids"] - 1
    ids[0, 9:], ids[1, 20:] = s["ids"], s["ids"]
    data = dict(ids=ids, x=torch.randn(2, 4, 16, 16), t=torch.tensor([37.0, 812.0]), latents=0.2 * torch.randn(1, 4, 8, 8),
                context=torch.randn(2, 77, s["context"]))
    if family == "sdxl":
        data.update(ids_2=ids.clone(), pooled=torch.randn(2, s["pooled"]), time_ids=torch.tensor([[64.0, 64, 0, 0, 64, 64], [96, 64, 8, 4, 64, 48]]))
    return data


def ours(model, data, loras=(), dtype=None):
    save_file(data, scratch("in.safetensors"))
    job = dict(model=model, loras=[dict(path=p, scale=s) for p, s in loras], inputs=scratch("in.safetensors"),
               output=scratch("out.safetensors"), dtype=dtype)
    with open(scratch("job.json"), "w") as f:
        json.dump(job, f)
    burin("run", "--trust", "tests/oracle/networks.lua", BURIN_ORACLE_JOB=scratch("job.json"))
    return load_file(scratch("out.safetensors"))


def theirs(pipe, family, data):
    ids = data["ids"].long()
    out = {}
    extra = None
    if family == "sdxl":
        one = pipe.text_encoder(ids, output_hidden_states=True)
        two = pipe.text_encoder_2(data["ids_2"].long(), output_hidden_states=True)
        out["context"] = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        out["pooled"] = two[0]
        extra = dict(text_embeds=data["pooled"], time_ids=data["time_ids"])
    else:
        out["context"] = pipe.text_encoder(ids)[0]
    out["noise"] = pipe.unet(data["x"], data["t"], data["context"], added_cond_kwargs=extra).sample
    out["image"] = pipe.vae.decode(data["latents"] / pipe.vae.config.scaling_factor).sample
    return out


def exactly(pipe, family, data):
    """theirs in float64: what random weights make of rounding is not to be taken for a difference."""
    nets = [net for net in (pipe.unet, pipe.vae, pipe.text_encoder, getattr(pipe, "text_encoder_2", None)) if net is not None]
    for net in nets:
        net.double()
    out = theirs(pipe, family, {k: v.double() if v.is_floating_point() else v for k, v in data.items()})
    for net in nets:
        net.float()
    return out


def distance(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def compare(label, a, b, tolerance, exact=None):
    for name in sorted(b):
        error, text = distance(a[name], b[name]), ""
        if exact and error > tolerance:
            mine, own = distance(a[name], exact[name]), distance(b[name], exact[name])
            text = f"; from float64 Burin {mine:.2g}, torch {own:.2g}"
        check(error <= tolerance or bool(text) and mine <= 2 * own, f"{label}: {name} {distance(a[name], b[name]):.2g} of {tolerance:g}{text}")


def typical(label, pipe, family, model, loras, tolerance):
    """Eight inputs, most of them within the tolerance, and the worst too or no further from float64 than twice torch's worst. With
    an adapter this strong a random network magnifies rounding at some inputs, and at one input alone chance decides."""
    errors, mine, own = {}, {}, {}
    for _ in range(8):
        data = inputs_of(family)
        a, b, exact = ours(model, data, loras), theirs(pipe, family, data), exactly(pipe, family, data)
        for name in b:
            for into, x, y in ((errors, a, b), (mine, a, exact), (own, b, exact)):
                into.setdefault(name, []).append(distance(x[name], y[name]))
    for name in sorted(errors):
        median, worst = sorted(errors[name])[4], max(errors[name])
        check(median <= tolerance and (worst <= tolerance or max(mine[name]) <= 2 * max(own[name])),
              f"{label}: {name} median {median:.2g}, worst {worst:.2g} of {tolerance:g}; "
              f"from float64 at worst Burin {max(mine[name]):.2g}, torch {max(own[name]):.2g}")


def pipeline(family, folder, tiny=True):
    cls = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    tokenizers = {"tokenizer": None, "tokenizer_2": None} if family == "sdxl" else {"tokenizer": None}  # tiny vocabularies have none
    if not tiny:
        tokenizers = {}
    return cls.from_pretrained(folder, torch_dtype=torch.float32, **tokenizers)


def quiet(label):
    lines = [line for line in WARNINGS.lines if "key" in line.lower() or "missing" in line.lower() or "not used" in line.lower()]
    check(not lines, f"{label}: no unexpected or missing key" + "".join("\n        " + line[:300] for line in lines))
    WARNINGS.lines.clear()


def adapter_layers(pipe):
    return sum(n.endswith(".lora_A.default_0.weight") or ".lora_A." in n and n.endswith(".weight")
               for part in ("unet", "text_encoder", "text_encoder_2") if getattr(pipe, part, None) is not None
               for n, _ in getattr(pipe, part).named_parameters())


def random_lora(family, path, base):
    """A LoRA whose both factors are random, from the recorded one's names and shapes, so that every layer matters."""
    source = load_file(f"tests/golden/tiny_{family}/lora_after_step3.safetensors")
    g = torch.Generator().manual_seed(3)
    out = {}
    for k, v in sorted(source.items()):
        out[k] = torch.tensor(2.0) if k.endswith(".alpha") else 0.3 * torch.randn(v.shape, generator=g)
    meta = {"sd1": "sd_v1", "sd2": "sd_v2_v", "sdxl": "sdxl_base_v1-0"}[family]
    save_file(out, path, {"ss_base_model_version": meta, "ss_v2": str(family == "sd2")})
    return sum(k.endswith("lora_down.weight") for k in out)


def exported(family):
    model = f"tests/golden/tiny_{family}/model_ldm.safetensors"
    folder = scratch(family)
    burin("convert", model, folder)
    data = inputs_of(family)
    pipe = pipeline(family, folder)
    quiet(f"{family} folder")
    compare(f"{family} folder", ours(model, data), theirs(pipe, family, data), 1e-4)
    compare(f"{family} folder read by both", ours(folder, data), theirs(pipe, family, data), 1e-4)
    kohya = scratch(family + "_kohya.safetensors")
    layers = random_lora(family, scratch("raw.safetensors"), model)
    burin("convert", scratch("raw.safetensors"), kohya, "--base", model)  # through Burin's writer
    mine = ours(model, data, [(kohya, 1.0)])
    plain = ours(model, data)
    check(((mine["noise"] - plain["noise"]).norm() / plain["noise"].norm()).item() > 0.05, f"{family} LoRA changes the output")
    burin("convert", kohya, scratch(family + "_diffusers.safetensors"), "--to", "diffusers", "--base", model)
    burin("convert", kohya, scratch(family + "_peft"), "--to", "peft", "--base", model)
    for spelling in ("kohya", "diffusers"):
        WARNINGS.lines.clear()
        pipe.load_lora_weights(scratch(f"{family}_{spelling}.safetensors"))
        quiet(f"{family} {spelling} LoRA in diffusers")
        check(adapter_layers(pipe) == layers, f"{family} {spelling} LoRA: {adapter_layers(pipe)} of {layers} layers")
        compare(f"{family} {spelling} LoRA in diffusers", mine, theirs(pipe, family, data), 1e-3)
        pipe.unload_lora_weights()
    WARNINGS.lines.clear()
    pipe = pipeline(family, folder)
    for part in os.listdir(scratch(family + "_peft")):
        setattr(pipe, part, PeftModel.from_pretrained(getattr(pipe, part), scratch(f"{family}_peft/{part}")))
    quiet(f"{family} PEFT folder")
    compare(f"{family} PEFT folder in peft", mine, theirs(pipe, family, data), 1e-3)
    compare(f"{family} PEFT folder in Burin", ours(model, data, [(scratch(family + "_peft"), 1.0)]), mine, 1e-5)


TARGETS = {"attention": ["to_q", "to_k", "to_v", "to_out.0"], "convolutions": ["conv1", "conv2", "conv_shortcut", "to_q", "proj_in"]}


def foreign(family):
    """Adapters that peft and diffusers write, with random factors."""
    model = f"tests/golden/tiny_{family}/model_ldm.safetensors"
    data = inputs_of(family)
    for label, options in (("attention", dict(target_modules=TARGETS["attention"])),
                           ("convolutions", dict(target_modules=TARGETS["convolutions"])),
                           ("dora", dict(target_modules=TARGETS["attention"], use_dora=True)),
                           ("rslora", dict(target_modules=TARGETS["attention"], use_rslora=True))):
        pipe = pipeline(family, scratch(family))
        name = f"{family}_{label}"
        g = torch.Generator().manual_seed(5)

        def randomise(net):
            for n, p in net.named_parameters():
                if "lora_A" in n or "lora_B" in n:
                    p.copy_(0.3 * torch.randn(p.shape, generator=g))
                elif "lora_magnitude" in n:
                    p.mul_(1 + 0.3 * torch.randn(p.shape, generator=g))

        config = LoraConfig(r=2, lora_alpha=3, rank_pattern={"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 3},
                            alpha_pattern={"mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 5}, **options)
        unet = get_peft_model(pipe.unet, config)
        randomise(unet)
        texts = {}
        for part in ("text_encoder", "text_encoder_2") if family == "sdxl" else ("text_encoder",):
            text = LoraConfig(r=2, lora_alpha=1, target_modules=["q_proj", "v_proj", "out_proj", "fc1"],
                              **{k: v for k, v in options.items() if k.startswith("use_")})
            texts[part] = get_peft_model(getattr(pipe, part), text)
            randomise(texts[part])
        out = scratch(name)
        unet.save_pretrained(out + "/unet")
        for part, net in texts.items():
            net.save_pretrained(f"{out}/{part}")
        pipe.unet = unet
        for part, net in texts.items():
            setattr(pipe, part, net)
        if label == "rslora":
            typical(f"{name} from peft", pipe, family, model, [(out, 1.0)], 1e-3)
            continue
        expected = theirs(pipe, family, data)
        exact = exactly(pipe, family, data)
        compare(f"{name} from peft", ours(model, data, [(out, 1.0)]), expected, 1e-3, exact)
        if GOLDEN and family == "sd1" and label in ("attention", "dora"):
            keep_golden("peft_" + label, out, data, expected)
        # diffusers' own file, with the configuration in its metadata
        layers = dict(unet_lora_layers=get_peft_model_state_dict(unet), unet_lora_adapter_metadata=config_dict(unet))
        for part, net in texts.items():
            layers[part + "_lora_layers"] = get_peft_model_state_dict(net)
            layers[part + "_lora_adapter_metadata"] = config_dict(net)
        strip = {k: ({n.removeprefix("base_model.model."): v for n, v in t.items()} if k.endswith("layers") else t)
                 for k, t in layers.items()}
        type(pipe).save_lora_weights(out + "_file", **strip)
        compare(f"{name} from diffusers", ours(model, data, [(out + "_file", 1.0)]), expected, 1e-3, exact)
        if GOLDEN and family == "sd1" and label == "attention":
            keep_golden("diffusers_" + label, out + "_file", data, expected)


def full(family):
    """A checkpoint of the published size with random weights, as it is and as the folder that Burin makes of it."""
    one, folder = scratch(f"{family}_full.safetensors"), scratch(f"{family}_full")
    name = {"sd1": "sd15", "sd2": "sd21", "sdxl": "sdxl_base"}[family]
    subprocess.run(["lua5.4", "scripts/dev/random_checkpoint.lua", name, one], check=True, stdout=subprocess.DEVNULL)
    burin("convert", one, folder)
    data = inputs_of(family, FULL_SIZES)
    WARNINGS.lines.clear()
    pipe = pipeline(family, folder, tiny=False)
    quiet(f"{family} full size folder")
    expected = theirs(pipe, family, data)
    del pipe  # both at once are more than the memory
    gc.collect()
    compare(f"{family} full size file, f32", ours(one, data, dtype="f32"), expected, 1e-4)
    compare(f"{family} full size folder, f32", ours(folder, data, dtype="f32"), expected, 1e-4)
    compare(f"{family} full size file, f16", ours(one, data, dtype="f16"), expected, 1e-2)
    os.remove(one)
    shutil.rmtree(folder)


def config_dict(net):
    d = net.peft_config["default"].to_dict()
    return {k: (sorted(v) if isinstance(v, set) else v) for k, v in d.items() if v is not None and k != "base_model_name_or_path"}


def keep_golden(name, path, data, expected):
    target = f"tests/golden/foreign/{name}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(path, target, ignore=shutil.ignore_patterns("README.md"))
    save_file({**{"in." + k: v for k, v in data.items() if k not in ("latents",)},
               **{"out." + k: v.contiguous() for k, v in expected.items() if k != "image"}}, target + "/io.safetensors")


def hashes():
    """sshs_model_hash and sshs_legacy_hash, recomputed from their definition with safetensors' own writer."""
    import hashlib
    from safetensors.torch import save
    g = torch.Generator().manual_seed(8)
    big = {}
    for i in range(8):
        base = f"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_{'qkv'[i % 3]}" if i < 3 else \
            f"lora_unet_down_blocks_1_attentions_{i % 2}_transformer_blocks_0_attn{i // 6 + 1}_to_{'qkv'[i % 3]}"
        width = 320 if i < 3 else 640
        big[base + ".lora_down.weight"] = torch.randn(256, width, generator=g)
        big[base + ".lora_up.weight"] = torch.randn(width, 256, generator=g)
        big[base + ".alpha"] = torch.tensor(128.0)
    save_file(big, scratch("big.safetensors"), {"ss_base_model_version": "sd_v1", "ss_v2": "False", "ss_training_comment": 'naïve "quoted" \\ text'})
    burin("convert", scratch("big.safetensors"), scratch("hashed.safetensors"))
    with safe_open(scratch("hashed.safetensors"), "pt") as f:
        meta, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    blob = save(tensors, {k: v for k, v in meta.items() if k.startswith("ss_")})
    start = 8 + int.from_bytes(blob[:8], "little")
    check(hashlib.sha256(blob[start:]).hexdigest() == meta["sshs_model_hash"], "sshs_model_hash")
    check(hashlib.sha256(blob[0x100000:0x110000]).hexdigest()[:8] == meta["sshs_legacy_hash"], "sshs_legacy_hash")


families = [f for f in SIZES if f in sys.argv] or list(SIZES)
if "--full" in sys.argv:
    for family in families:
        full(family)
else:
    hashes()
    for family in families:
        exported(family)
        foreign(family)
shutil.rmtree(SCRATCH)
print(f"{len(FAILED)} failed")
sys.exit(bool(FAILED))
