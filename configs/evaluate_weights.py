"""Released weights of any catalog model under attack: clean accuracy, FGSM and PGD-20 at Linf radius 4/255 (RobustBench's).

    python -m vmamba_jax.checkpoints convert weights.pth --model vmamba_tiny --out weights/vmamba_tiny
    python -m experiments.evaluate --workdir runs/vmamba_tiny --config configs/evaluate_weights.py:model=vmamba_tiny \\
        --config.weights=weights/vmamba_tiny --config.data.root=/data/imagenet

config.weights is also a released file, or the folder of a run. The root holds val/<class folder>/<images>. Resize, crop, mean and std are those of
the release, and EXIF orientation is ignored as in the released pipelines. Expected clean accuracy on all 50,000 images: that of `python -m vmamba_jax models`, 82.6 % for vmamba_tiny. Cost:
`--config.evaluation.limit=1000` uses a random thousand of them.
"""
from configs import base
from vmamba_jax import models


def get_config(arg=None):
    """Axis: `model=`, any of `vmamba_jax.list_models()`, followed by a dot and the tag if the model has several releases ("resnet50.tv2_in1k")."""
    arg = base.parse_arg(arg, model="vmamba_tiny")
    p = models.entry(arg["model"]).preprocessing
    config = base.run()
    config.data = {"name": "folder", "root": "", "options": {"size": p.size, "resize": p.resize, "interpolation": p.interpolation, "exif": False}}
    config.preprocessing = {"mean": p.mean, "std": p.std}
    config.model = {"name": arg["model"], "overrides": {"num_classes": 1000}}
    config.evaluation.update(base.evaluation(4 / 255, (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), restarts=1, batch_size=64), split="validation")
    return config
