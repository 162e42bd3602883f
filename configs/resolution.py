"""Accuracy of a trained model on images of other sizes, as it is and with a re-fitted linear head.

Liu et al., "VMamba: Visual State Space Model" (arXiv 2401.10166), section on resolution: trained at 224 pixels, evaluated at up to 768.

    python -m experiments.train --config configs/resolution.py --workdir runs/shapes_32
    python -m experiments.sweep --config configs/resolution.py:weights=runs/shapes_32 --workdir runs/resolution
    python -m experiments.sweep --config configs/resolution.py:data=imagenet,weights=vssm1_tiny_0230s_ckpt_epoch_264.pth --workdir runs/imagenet_resolution \\
        --config.base.data.root=/data/imagenet

Without weights, the config of the small VMamba that the sweep needs, on rendered shapes of 32 pixels. Groups `size_N` are the model as it is (a run of
one epoch with learning rate 0), `size_N_refit` those with a new head on the frozen backbone, trained at that size by the released settings: SGD with
momentum, cosine, 30 epochs, learning rate 0.05, 0.2 from 2.2 and 0.5 from 2.8 times the trained size; batch 4096 on ImageNet. Expected of VMamba-T
(published): 82.6 % at 224, 81.2 % at 512 and 74.7 % at 768 pixels, refitted 82.6, 81.9 and 79.2 %. No ImageNet run was made here; of the small model: docs/results/resolution_shapes.
"""
from configs import base, sweeps
from vmamba_jax import models

SCALES = (1, 9 / 7, 12 / 7, 16 / 7, 20 / 7, 24 / 7)  # 224 to 768 pixels, of 224
EPS = 8 / 255  # of the validation's attack, which selects nothing here


def rate(scale):
    """Released learning rate of the head at a size that is `scale` times the trained one."""
    return 0.05 if scale < 2.2 else 0.2 if scale < 2.8 else 0.5


def get_config(arg=None):
    """Axes: `weights=`, `data=shapes` or `imagenet`, `model=` of the catalog (imagenet), `seeds` (a number)."""
    arg = base.parse_arg(arg, weights="", data="shapes", model="vmamba_tiny", seeds=1)
    config, side = {"shapes": _shapes, "imagenet": _imagenet}[base.choose("data", arg["data"], {"shapes": "shapes", "imagenet": "imagenet"})](arg["model"])
    config.validation.update(base.validation("standard", eps=EPS, steps=1, every_epochs=config.epochs, limit=64))
    config.evaluation.update(base.evaluation(EPS, (0.0,), steps=1, restarts=1, batch_size=64), skip_attacks=True, examples=0)
    if not arg["weights"]:
        return config
    config.init.update(checkpoint=arg["weights"], freeze="backbone")
    config.epochs = config.validation.every_epochs = 1
    config.optimizer = {**config.optimizer.to_dict(), "name": "sgd", "weight_decay": 0.0, "momentum": 0.9, "nesterov": False, "clip_norm": None}
    config.schedule.update(name="cosine", learning_rate=0.0, warmup=0.0)
    runs = {}
    for scale in SCALES:
        size = round(side * scale)
        pixels = {"data": {"options": {"size": size, **({"resize": int(size * 256 / 224)} if "resize" in config.data.options else {})}}}
        runs[f"size_{size}"] = pixels
        runs[f"size_{size}_refit"] = pixels | {"init": {"head": "new"}, "epochs": 30, "validation": {"every_epochs": 30}, "schedule": {"learning_rate": rate(scale)}}
    claims = [(f"A new head is more accurate at {name.split('_')[1]} pixels", name, name.removesuffix("_refit"), "above") for name in runs if "refit" in name]
    return sweeps.sweep(config, runs=runs, seeds=tuple(range(arg["seeds"])), claims=claims, title=f"Accuracy against resolution: {config.model.name}",
                        about=f"Weights trained on images of {side} pixels, evaluated at other sizes, with their own head and with one trained at that size.")


def _shapes(model):
    """(config of the small model's training, its side in pixels)."""
    del model
    config = base.run()
    config.epochs, config.batch_size = 16, 64
    config.data.update(name="cued_shapes", options={"size": 32, "examples": (1536, 192, 384), "cue": False})
    config.preprocessing = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    config.model = {"name": "vmamba_tiny", "overrides": {"dims": (32, 64), "depths": (1, 2), "patch_size": 4, "mlp_ratio": 0.0, "drop_path_rate": 0.0}}
    config.optimizer.update(weight_decay=0.05, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=3e-3, warmup=0.1)
    return config, 32


def _imagenet(model):
    """(config with a released model's preprocessing, its side in pixels)."""
    p = models.entry(model).preprocessing
    config = base.run()
    config.epochs, config.batch_size = 1, 4096
    config.data = {"name": "folder", "root": "", "options": {"size": p.size, "resize": p.resize, "interpolation": p.interpolation, "exif": False}}
    config.preprocessing = {"mean": p.mean, "std": p.std}
    config.model = {"name": model, "overrides": {"num_classes": 1000}}
    config.evaluation.split = "validation"
    return config, p.size
