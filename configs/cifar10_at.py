"""A small VMamba, or a ResNet beside it, on CIFAR-10 by PGD adversarial training, Linf radius 8/255.

Madry et al. (arXiv 1706.06083), with the weight averaging of Gowal et al. (arXiv 2010.03593). For comparison, an adversarially trained
ResNet-18 of ten times the parameters reaches 52.7 % under PGD-10 (MAIR's reference figures).

    python -m experiments.train --config configs/cifar10_at.py:model=tiny1m --workdir runs/cifar10 --config.data.root=/data/cifar10
    python -m experiments.evaluate --workdir runs/cifar10

Needs CIFAR-10's binary or python batches in the root, and a GPU or TPU: two CPU cores train 29 images/s of `tiny1m` (1.5 million parameters),
half an hour an epoch. Tried on an excerpt only, so no figure of its own is given.
"""
import ml_collections

from configs import common

VMAMBA = {"patch_size": 2, "drop_path_rate": 0.0}
RESNET = {"stem": "cifar"}
MODELS = {  # catalog name, fields
    "tiny1m": ("vmamba_tiny", {**VMAMBA, "dims": (64, 128, 256), "depths": (1, 2, 1)}),
    "small5m": ("vmamba_tiny", {**VMAMBA, "dims": (96, 192, 384), "depths": (2, 4, 2)}),
    "resnet18": ("resnet18", RESNET),
    "resnet_small": ("resnet18", {**RESNET, "layers": (1, 1, 1), "channels": (16, 32, 64), "stem_width": 16}),  # 78,042 parameters: minutes on a CPU
}


def get_config(arg=None):
    """Axes: `objective=pgd_at|standard`, `model=tiny1m|small5m|resnet18|resnet_small`."""
    arg = common.parse_arg(arg, objective="pgd_at", model="tiny1m")
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.epochs = 60
    config.batch_size = 256

    config.data = {"name": "cifar10", "root": "", "options": {"validation": 1000}}
    config.augment = {"name": "crop_flip", "pad": 4}
    config.preprocessing = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
    name, overrides = common.choose("model", arg["model"], MODELS)
    config.model = {"name": name, "overrides": overrides}

    config.objective = common.objective(arg["objective"], eps=8 / 255, steps=7, step_size=2 / 255, ramp=0.1)
    config.optimizer = {"name": "adamw", "weight_decay": 0.05, "clip_norm": 1.0}
    config.schedule = {"name": "cosine", "learning_rate": 1e-3, "warmup": 0.1}
    config.ema_decay = 0.995

    config.validation = common.validation(arg["objective"], eps=8 / 255, every_epochs=2)
    config.checkpoints = {"keep": 1}
    config.log_every = 50
    config.skips, config.wandb = common.SKIPS, ""
    config.evaluation = common.evaluation(8 / 255, (0.0, 2 / 255, 4 / 255, 6 / 255, 8 / 255, 12 / 255, 16 / 255))
    return config
