"""A small VMamba on MNIST by PGD adversarial training, Linf radius 0.3.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (arXiv 1706.06083), section 5: 98.8 % clean and 89.3 % under
their strongest white-box PGD for a convolutional network.

    python -m experiments.train --config configs/mnist_at.py --workdir runs/mnist --config.data.root=/data/mnist
    python -m experiments.evaluate --workdir runs/mnist

Needs MNIST's four IDX files in the root. Measured after one epoch (`--config.epochs=1`, 5 minutes on two busy CPU cores): 92 % clean and 80 %
robust accuracy under PGD-40 with 5 restarts on 500 test digits. The ten epochs of this config were not run; they take 40 minutes there
(330 images/s).
"""
from configs import base

MODELS = {
    "tiny100k": {"dims": (32, 64), "depths": (1, 1), "patch_size": 4},
    "tiny500k": {"dims": (64, 128), "depths": (2, 2), "patch_size": 2},
}


def get_config(arg=None):
    """Axes: `objective=pgd_at|standard`, `model=tiny100k|tiny500k`."""
    arg = base.parse_arg(arg, objective="pgd_at", model="tiny100k")
    config = base.run()
    config.epochs = 10
    config.batch_size = 128

    config.data = {"name": "mnist", "root": "", "options": {"validation": 5000}}
    config.preprocessing = {"mean": (0.1307,), "std": (0.3081,)}
    config.model = {"name": "vmamba_tiny", "overrides": {
        **base.choose("model", arg["model"], MODELS), "drop_path_rate": 0.0}}

    config.objective.update(base.objective(arg["objective"], eps=0.3, steps=10, step_size=0.075, ramp=0.1))
    config.optimizer.update(weight_decay=0.05, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=4e-3, warmup=0.05)

    config.validation.update(base.validation(arg["objective"], eps=0.3, every_epochs=1, limit=1000))
    config.evaluation.update(base.evaluation(0.3, (0.0, 0.1, 0.2, 0.25, 0.3, 0.35), steps=40))
    return config
