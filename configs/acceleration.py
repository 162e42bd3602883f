"""VMamba-T's way from the vanilla network to the released one: parameters, multiply-adds, and images per second of every rung on this machine.

Liu et al., "VMamba: Visual State Space Model" (arXiv 2401.10166), table "accelerating VMamba", rungs (a) to (g).

    python -m experiments.benchmark --config configs/acceleration.py --workdir runs/acceleration
    python -m experiments.benchmark --config configs/acceleration.py:machine=accelerator --workdir runs/acceleration_gpu

Rungs (a), (b) and (c) change the program and not the network: a fused cross scan, a scan of 16-bit inputs, linear layers on a channels-first map. Here
`vanilla` is the scan as a plain loop with JAX's own gradient, and `c` the scan as it is, so (a) and (b) have the network of both and no time of their
own. Expected parameters and multiply-adds: those of the paper, see `RUNGS`. Cost: about half an hour on two CPU cores, mostly compilation.
"""
from configs import base

MACHINES = {"cpu": {"batch": 2, "dtype": "float32"}, "accelerator": {"batch": 128, "dtype": "bfloat16"}}
_V0 = {"model": "vmamba_tiny_v0"}
_V2 = {"model": "vmamba_tiny", "depths": (2, 2, 2, 2), "d_state": 16, "ssm_ratio": 2.0, "gate": True, "conv_size": -1}
# rung: what changes; the network; the paper's millions of parameters, GFLOPs, images/s forward and training (A100, batch 128, 16 bits), top-1 in %
RUNGS = {
    "vanilla": ("", _V0 | {"scan_implementation": "reference"}, (22.9, 5.63, 426, 138, 82.17)),
    "a": ("fused cross scan and merge", _V0, (22.9, 5.63, 467, 165, 82.17)),
    "b": ("16-bit inputs of the scan", _V0, (22.9, 5.63, 464, 184, 82.17)),
    "c": ("linear layers on a channels-first map", _V0, (22.9, 5.63, 638, 195, 82.17)),
    "d": ("+ MLP, - depth-wise convolution, layers 2, 2, 2, 2", _V2, (29.0, 5.63, 813, 248, 81.65)),
    "d1": ("ratio 1", _V2 | {"ssm_ratio": 1.0}, (22.9, 4.02, 1336, 405, 81.05)),
    "d2": ("layers 2, 2, 5, 2", _V2 | {"ssm_ratio": 1.0, "depths": (2, 2, 5, 2)}, (28.2, 5.18, 1137, 348, 82.24)),
    "e": ("- gate", _V2 | {"ssm_ratio": 1.0, "depths": (2, 2, 5, 2), "gate": False}, (26.2, 4.86, 1179, 360, 82.17)),
    "e1": ("+ depth-wise convolution", _V2 | {"ssm_ratio": 1.0, "depths": (2, 2, 5, 2), "gate": False, "conv_size": 3}, (26.3, 4.87, 1164, 358, 82.31)),
    "e2": ("one state", {"model": "vmamba_tiny", "depths": (2, 2, 5, 2)}, (25.6, 3.98, 1942, 647, 81.87)),
    "f": ("ratio 2", {"model": "vmamba_tiny_s2l5"}, (30.7, 4.86, 1340, 464, 82.49)),
    "g": ("ratio 1, layers 2, 2, 8, 2", {"model": "vmamba_tiny"}, (30.2, 4.91, 1686, 571, 82.60))}
TIMED = tuple(name for name in RUNGS if name not in ("a", "b"))


def get_config(arg=None):
    """Axis: `machine=cpu` or `machine=accelerator`, which sets batch size and dtype."""
    arg = base.parse_arg(arg, machine="cpu")
    machine = base.choose("machine", arg["machine"], MACHINES)
    config = base.benchmark()
    config.parts, config.repeats = ("ladder",), 5
    config.models.optimizer = {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05}
    models = {name: {"change": change, "published": published, "fields": {key: value for key, value in fields.items() if key != "model"},
                     "model": fields["model"]} for name, (change, fields, published) in RUNGS.items()}
    config.ladder.update(names=TIMED, models=models, passes=("forward", "training"), batch=machine["batch"], size=224, dtype=machine["dtype"])
    return config
