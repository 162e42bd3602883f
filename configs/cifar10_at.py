"""A small VMamba, Swin or ResNet on CIFAR-10 by adversarial training, Linf radius 8/255.

Madry et al. (arXiv 1706.06083), TRADES (1901.08573), MART (ICLR 2020), Free (1904.12843), Fast (2001.03994), YOPO (1905.00877), AWP (2004.05884),
with the weight averaging of Gowal et al. (2010.03593). For comparison, MAIR's robust accuracy of ResNet-18 under PGD-10 / AutoAttack: PGD training
52.7 / 48.7 %, TRADES 53.5 / 49.5 %, MART 54.7 / 47.5 %, TRADES with AWP 55.9 / 51.6 %.

    python -m experiments.train --config configs/cifar10_at.py:model=vmamba_1m --workdir runs/cifar10 --config.data.root=/data/cifar10
    python -m experiments.evaluate --workdir runs/cifar10 --config.evaluation.autoattack=standard

`--config.extra.root=FOLDER --config.extra.fraction=0.7` adds generated images (Wang et al., 2302.04638: their 1m.npz, with `image` and `label`).
`free` makes four updates per batch and needs a quarter of the epochs. Needs CIFAR-10's binary or python batches in the root, and a GPU or TPU for
the full sixty epochs; only short runs on two CPU cores were made, so there is no expected figure.
"""
from configs import base

VMAMBA = {"patch_size": 2, "drop_path_rate": 0.0}
RESNET = {"stem": "cifar"}
SWIN = {"patch_size": 2, "image_size": 32, "window_size": 4, "drop_path_rate": 0.0}
MODELS = {  # catalog name, fields
    "vmamba_1m": ("vmamba_tiny", {**VMAMBA, "dims": (48, 96, 192), "depths": (2, 2, 2)}),
    "vmamba_4m": ("vmamba_tiny", {**VMAMBA, "dims": (80, 160, 320), "depths": (2, 3, 2)}),
    "vmamba_12m": ("vmamba_tiny", {**VMAMBA, "dims": (128, 256, 512), "depths": (2, 6, 2)}),
    "swin_1m": ("swin_tiny", {**SWIN, "embed_dim": 48, "depths": (2, 2, 2), "num_heads": (3, 6, 12)}),
    "resnet_1m": ("resnet18", {**RESNET, "channels": (16, 32, 64, 160), "stem_width": 16}),
    "resnet18": ("resnet18", RESNET),  # 11.2 million
    "resnet_small": ("resnet18", {**RESNET, "layers": (1, 1, 1), "channels": (16, 32, 64), "stem_width": 16}),  # 78,042 parameters; minutes on a CPU
}


def get_config(arg=None):
    """Axes: `objective=` standard, pgd_at, trades, mart, free, fast, yopo, pgd_awp, trades_awp or mart_awp; `model=` one of MODELS."""
    arg = base.parse_arg(arg, objective="pgd_at", model="vmamba_1m")
    config = base.run()
    config.epochs = 60
    config.batch_size = 256

    config.data = {"name": "cifar10", "root": "", "options": {"validation": 1000}}
    config.extra.options = {"file": "1m.npz"}
    config.augment = {"name": "crop_flip", "pad": 4}
    config.preprocessing = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
    name, overrides = base.choose("model", arg["model"], MODELS)
    config.model = {"name": name, "overrides": overrides}

    config.objective.update(base.objective(arg["objective"], eps=8 / 255, steps=10, step_size=2 / 255, ramp=0.1))
    config.optimizer.update(weight_decay=0.05, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=1e-3, warmup=0.1)
    config.ema_decay = 0.995

    config.validation.update(base.validation(arg["objective"], eps=8 / 255, every_epochs=2))
    config.evaluation.update(base.evaluation(8 / 255, (0.0, 2 / 255, 4 / 255, 6 / 255, 8 / 255, 12 / 255, 16 / 255)))
    return config
