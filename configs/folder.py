"""Your own photos, in one folder per class: a catalog model by standard or by adversarial training, Linf radius 4/255.

The root holds train/, val/ and test/ with one folder per class each, or the class folders alone. A fifth of the training images becomes the
validation split if there is no val/, and another fifth the test split if there is no test/; the draw is the same at every start. The classes, and
their number in the head, are those of the folders. docs/own_data.md explains each step:

    python -m experiments.train --config configs/folder.py:model=vmamba_tiny --workdir runs/own --config.data.root=photos
    python -m experiments.train --config configs/folder.py:model=vmamba_tiny --workdir runs/tuned --config.data.root=photos \\
        --config.init.checkpoint=vssm1_tiny_0230s_ckpt_epoch_264.pth --config.init.head=new
    python -m experiments.train --config configs/folder.py:model=vmamba_tiny,objective=pgd_at --workdir runs/robust \\
        --config.data.root=photos --config.init.checkpoint=runs/tuned
    python -m experiments.evaluate --workdir runs/robust --config.evaluation.corruptions.names=all --config.evaluation.calibration.bins=15
    python -m experiments.study --workdir runs/own_study --config configs/robustness_study.py:data=folder,models=runs/tuned+runs/robust
    python -m vmamba_jax predict photos --weights runs/robust --top-k 1

`size=` sets the image size in pixels (0: the catalog model's), `batch=` the batch size. Settings are for fine-tuning; no figure is expected, since it
depends on the photos. Cost on two CPU cores at 224 pixels: minutes of compilation, then a few images/s for vmamba_tiny.
"""
import dataclasses

from configs import base
from vmamba_jax import models

EPS = 4 / 255


def get_config(arg=None):
    """Axes: `model=`, any of `vmamba_jax.list_models()`; `objective=` standard, pgd_at, trades, mart, ...; `size=`; `batch=`."""
    arg = base.parse_arg(arg, model="vmamba_tiny", objective="standard", size=0, batch=16)
    entry = models.entry(arg["model"])
    p = entry.preprocessing
    size = arg["size"] or p.size
    config = base.run()
    config.epochs = 30
    config.batch_size = arg["batch"]
    config.log_every = 10

    # validation, test: share of the training images, used only if that split has no folder; subdir: see data.load("folder", ...)
    config.data = {"name": "folder", "root": "", "options": {
        "size": size, "resize": size * p.resize // p.size, "interpolation": p.interpolation, "exif": True, "validation": 0.2, "test": 0.2}}
    config.transform = {"name": "train", "size": size, "scale": (0.35, 1.0), "ratio": (3 / 4, 4 / 3), "interpolation": "bicubic", "flip": 0.5,
                        "color_jitter": 0.2, "fill": tuple(round(255 * x) for x in p.mean)}
    config.preprocessing = {"mean": p.mean, "std": p.std}
    sized = size != p.size and "image_size" in {field.name for field in dataclasses.fields(entry.family)}
    config.model = {"name": arg["model"], "overrides": {"image_size": size} if sized else {}}

    config.objective.update(base.objective(arg["objective"], eps=EPS, steps=3, step_size=2 * EPS / 3, ramp=0.2))
    config.optimizer.update(weight_decay=0.05, clip_norm=5.0)
    config.schedule.update(name="cosine", learning_rate=3e-4, warmup=0.1)

    config.validation.update(base.validation(arg["objective"], eps=EPS, every_epochs=1, limit=1000))
    config.evaluation.update(base.evaluation(EPS, (0.0, 1 / 255, 2 / 255, EPS, 8 / 255), restarts=1, batch_size=64))
    return config
