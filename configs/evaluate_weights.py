"""Released weights under attack: converted ImageNet weights, clean accuracy, FGSM and PGD-20 at Linf radius 4/255 (RobustBench's).

    python -m vmamba_jax.checkpoints convert weights.pth --model vmamba_tiny --out weights/vmamba_tiny
    python -m experiments.evaluate --workdir runs/vmamba_tiny --config configs/evaluate_weights.py:model=vmamba_tiny \\
        --config.weights=weights/vmamba_tiny --config.data.root=/data/imagenet

The root holds val/<class folder>/<images>. Expected clean accuracy over all 50,000 images: 82.6 % (tiny), 83.6 % (small), 83.9 % (base), the
authors' figures. Cost: `--config.evaluation.limit=1000` takes a random thousand of them.
"""
import ml_collections

from configs import common


def get_config(arg=None):
    """The axis: `model=`, any of `vmamba_jax.list_models()`."""
    arg = common.parse_arg(arg, model="vmamba_tiny")
    config = ml_collections.ConfigDict()
    config.weights = ""  # folder that `python -m vmamba_jax.checkpoints convert` wrote
    config.data = {"name": "folder", "root": "", "options": {"size": 224, "resize": 256}}
    config.preprocessing = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    config.model = {"name": arg["model"], "overrides": {"num_classes": 1000}}
    config.evaluation = common.evaluation(4 / 255, (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), restarts=1, batch_size=64)
    config.evaluation.split = "validation"
    return config
