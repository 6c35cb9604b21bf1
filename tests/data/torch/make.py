# SPDX-License-Identifier: MIT
# make.py - wrote the files of this folder; no test runs it. Each PyTorch writes the files that carry its name:
#   python make.py 1.13   with torch 1.13.1:  lightning-1.13.ckpt
#   python make.py 2.15   with torch 2.15.0:  flat-2.15.pt protocol4-2.15.pt nocrc-2.15.pt expanded-2.15.pt whole-2.15.pt
# and, from 2.15, *.safetensors with the values that a reader must find.
import collections, sys, types
import numpy, torch

torch.manual_seed(5)
version = sys.argv[1]
assert torch.__version__.startswith(version), torch.__version__


def views():
    """Tensors of many types and layouts; several share a storage."""
    base = torch.randn(6, 4)
    d = collections.OrderedDict()
    d["model.base"] = base
    d["model.rows"] = base[2:5]                     # contiguous, with an offset
    d["model.columns"] = base[:, 1:3]               # strided, with an offset
    d["model.transposed"] = base.t()
    d["model.conv"] = torch.randn(2, 3, 3, 3).to(memory_format=torch.channels_last)
    d["model.scalar"] = torch.tensor(0.18215)
    d["model.empty"] = torch.zeros(0, 3)
    d["model.parameter"] = torch.nn.Parameter(torch.randn(3, 2))
    d["model.half"] = torch.randn(5).half()
    d["model.bfloat16"] = torch.randn(5).bfloat16()
    d["model.double"] = torch.randn(3, dtype=torch.float64)
    d["cond_stage_model.position_ids"] = torch.arange(77).expand((1, -1))
    d["int32"] = torch.tensor([[-2147483648, 2147483647]], dtype=torch.int32)
    d["int16"] = torch.tensor([-32768, 5], dtype=torch.int16)
    d["int8"] = torch.tensor([-128, 127], dtype=torch.int8)
    d["uint8"] = torch.tensor([0, 255], dtype=torch.uint8)
    d["bool"] = torch.tensor([True, False, True])
    return d


def expect(name, tensors):
    from safetensors.torch import save_file
    save_file({k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}, name)


# The class as PyTorch Lightning has it, as far as a pickle can tell.
parts = "pytorch_lightning.callbacks.model_checkpoint".split(".")
for i in range(len(parts)):
    sys.modules[".".join(parts[:i + 1])] = types.ModuleType(".".join(parts[:i + 1]))
ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": ".".join(parts)})
sys.modules[".".join(parts)].ModelCheckpoint = ModelCheckpoint

if version == "1.13":
    # What Lightning writes around a state_dict, a class as a key included.
    weights = views()
    weights._metadata = {"": {"version": 1}}
    step = {"step": 1000, "exp_avg": torch.ones(3, 2)}
    torch.save({
        "epoch": 3, "global_step": 470000, "pytorch-lightning_version": "1.4.2", "state_dict": weights,
        "callbacks": {ModelCheckpoint: {"monitor": None, "best_model_score": numpy.float64(0.25),
                                        "current_score": torch.tensor(0.5), "dirpath": "/runs/1"}},
        "optimizer_states": [{"state": {0: step}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0]}]}],
        "lr_schedulers": [{"base_lrs": [1e-4], "_step_count": 2 ** 40, "verbose": False}],
    }, "lightning-1.13.ckpt")
else:
    flat = views()
    flat["float8_e4m3"] = torch.randn(7).to(torch.float8_e4m3fn)
    flat["float8_e5m2"] = torch.randn(7).to(torch.float8_e5m2)
    for name in "uint16", "uint32", "uint64":
        flat[name] = torch.tensor([1, 65535], dtype=getattr(torch, name))
    torch.save(dict(flat), "flat-2.15.pt")
    expect("flat-2.15.safetensors", flat)
    nested = {"*": torch.randn(2, 8), "+": torch.ones(2, dtype=torch.half)}
    torch.save({"string_to_param": nested, "name": "sks", "step": 500, "loss": 0.125, "frozen": True},
               "protocol4-2.15.pt", pickle_protocol=4)
    expect("protocol4-2.15.safetensors", {"string_to_param." + k: v for k, v in nested.items()})
    torch.save({"a": torch.arange(3.).expand(2, 3)}, "expanded-2.15.pt")
    torch.save(torch.nn.Linear(2, 2), "whole-2.15.pt")
    torch.serialization.set_crc32_options(False)
    torch.save({"a": torch.arange(3.)}, "nocrc-2.15.pt")
    expect("nocrc-2.15.safetensors", {"a": torch.arange(3.)})
    expect("lightning-1.13.safetensors", torch.load("lightning-1.13.ckpt", weights_only=False)["state_dict"])
