"""Released weights of any model of the catalog under attack: clean accuracy, FGSM and PGD-20 at Linf radius 4/255 (RobustBench's).

    python -m vmamba_jax.checkpoints convert weights.pth --model vmamba_tiny --out weights/vmamba_tiny
    python -m experiments.evaluate --workdir runs/vmamba_tiny --config configs/evaluate_weights.py:model=vmamba_tiny \\
        --config.weights=weights/vmamba_tiny --config.data.root=/data/imagenet

The root holds val/<class folder>/<images>; resize, crop, mean and std are those that the release was measured with, and images lie as they
are stored, whatever their EXIF orientation says, as in the released pipelines. Expected clean accuracy over all 50,000 images: that of
`python -m vmamba_jax models`, 82.6 % for vmamba_tiny. Cost: `--config.evaluation.limit=1000` takes a random thousand of them.
"""
import ml_collections

from configs import common
from vmamba_jax import models


def get_config(arg=None):
    """The axis: `model=`, any of `vmamba_jax.list_models()`, with a release's tag after a dot where it has several ("resnet50.tv2_in1k")."""
    arg = common.parse_arg(arg, model="vmamba_tiny")
    p = models.entry(arg["model"]).preprocessing
    config = ml_collections.ConfigDict()
    config.weights = ""  # folder that `python -m vmamba_jax.checkpoints convert` wrote
    config.data = {"name": "folder", "root": "", "options": {"size": p.size, "resize": p.resize, "interpolation": p.interpolation, "exif": False}}
    config.preprocessing = {"mean": p.mean, "std": p.std}
    config.model = {"name": arg["model"], "overrides": {"num_classes": 1000}}
    config.evaluation = common.evaluation(4 / 255, (0.0, 1 / 255, 2 / 255, 4 / 255, 8 / 255), restarts=1, batch_size=64)
    config.evaluation.split = "validation"
    return config
