"""Published ImageNet-1k recipes for any catalog model: standard training, or adversarial training at Linf radius 4/255.

    python -m experiments.train --config configs/imagenet.py:recipe=vmamba,model=vmamba_tiny --workdir runs/vmamba_tiny \\
        --config.data.root=/data/imagenet
    python -m experiments.train --config configs/imagenet.py:recipe=singh,model=vmamba_tiny --workdir runs/vmamba_tiny_robust \\
        --config.data.root=/data/imagenet --config.init.checkpoint=vssm1_tiny_0230s_ckpt_epoch_264.pth

The root holds train/ and val/ with one folder per class; the head gets their number of classes. No recipe was run here: the figures are the
papers', for their own models.

| recipe | paper and program | expected top-1, or clean / AutoAttack | cost: forward-backward passes per image, epochs |
|---|---|---|---|
| vmamba | arXiv 2401.10166, its repository | VMamba-T/S/B 82.6, 83.6, 83.9 % | 1, 300; T: 571 images/s on an A100 |
| vim | 2401.09417, its scripts | Vim-Ti/S/B 76.1, 80.5, 81.9 % | 1, 300; in float32 |
| deit | 2012.12877, table 9 | DeiT-Ti/S/B 72.2, 79.9, 81.8 % | 1, 300 |
| swin | 2103.14030, appendix A2.1 | Swin-T/S/B 81.3, 83.0, 83.5 % | 1, 300 |
| convnext | 2201.03545, table 5 | ConvNeXt-T/S/B 82.1, 83.1, 83.8 % | 1, 300 |
| ares | 2302.14301, its train_configs | Swin-B 76.16 / 56.16 % | 4 (PGD-3), 300 |
| singh | 2303.01870, its run_train.sh | ConvNeXt-T 72.4 / 48.6 % | 4 (APGD-2), 300; 50 for larger models |
| light | 2209.07399, xcit-adv-training.yaml | XCiT-S12 72.34 / 41.78, ConvNeXt-T 71.64 / 44.44 % | 2 (PGD-1), 110 |

`ares` and `singh` start from a standard-trained model, `config.init.checkpoint`: a run's folder, a released file or the output of `checkpoints convert`;
"" starts from random weights. Sections that only these configs set:

    transform  `data.transforms.create`, on the host, for training images; config.data.options are the evaluation's resize and crop
    augment    `data.augment.create`, on the device before the attack: random erasing
    mix        `data.mix.create`, after augment: mixup, CutMix and label smoothing; mixup=0 and cutmix=0 leave label smoothing
    repeats    differently transformed copies of an image per epoch; the epoch's length stays (Hoffer et al., arXiv 1901.09335)
    loader     decoding: worker processes (0: none), threads (0: one per core), max_bad: images that may fail to decode
    schedule   warmup_epochs, cooldown_epochs: they stay as they are if config.epochs changes; the cosine is between them. To take a share of the
               training instead: --config.schedule.warmup_epochs=0 --config.schedule.warmup=0.1. `batch=` scales learning rates as the recipe says
    optimizer  clip_norm, layer_decay: None disables them; ConvNeXt's fine-tuning uses layer_decay=0.7
    objective  scheduled: fields of the attack that grow over the first ramp_epochs epochs

The cosine starts after the warm-up and changes with every update, as in VMamba's and Swin's programs; DeiT's and Vim's changes once per epoch and
starts at the first. `size=` sets another resolution: crops of that size, and evaluation's resize in proportion.
"""
import dataclasses
from collections.abc import Callable

from configs import base
from vmamba_jax import models

EPS = 4 / 255
ERASE = {"name": "erase", "probability": 0.25, "mode": "pixel", "area": (0.02, 1 / 3), "aspect": (0.3, 1 / 0.3)}
MIX = {"mixup": 0.8, "cutmix": 1.0, "probability": 1.0, "switch_probability": 0.5, "mode": "batch", "correct_lam": True, "label_smoothing": 0.1}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Settings of a published recipe.

    Attributes:
        rates: function of the batch size that returns the learning rates of the schedule.
        warmup: in epochs, as are cooldown and ramp.
        drop_path: rate; None: the catalog's.
    """

    model: str
    rates: Callable
    optimizer: dict
    batch: int = 1024
    epochs: int = 300
    warmup: int = 20
    cooldown: int = 0
    ema_decay: float = 0.0
    repeats: int = 1
    drop_path: float | None = None
    rand_augment: str = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.0
    augment: dict = dataclasses.field(default_factory=lambda: ERASE)
    mix: dict = dataclasses.field(default_factory=lambda: MIX)
    attack: dict | None = None
    ramp: int = 0
    scheduled: tuple = ("eps", "step_size")


def _rates(rate, start, end, *, per=512, scaled=False):
    """Learning rates proportional to the batch size: `rate` for `per` images; `start` and `end` scale too if `scaled`."""
    def at(batch):
        scale = batch / per
        return {"learning_rate": rate * scale, "warmup_start": start * (scale if scaled else 1), "end": end * (scale if scaled else 1)}
    return at


def _adamw(weight_decay, clip_norm=None, b2=0.999):
    return {"weight_decay": weight_decay, "clip_norm": clip_norm, "b2": b2}


def _attack(name, **options):
    return {"name": name, "eps": EPS, "norm": "linf", **options}


SWIN = Recipe("swin_tiny", _rates(5e-4, 5e-7, 5e-6, scaled=True), _adamw(0.05, clip_norm=5.0))
DEIT = Recipe("deit_small", _rates(5e-4, 1e-6, 1e-5), _adamw(0.05), warmup=5, ema_decay=0.99996, repeats=3)
RECIPES = {
    "vmamba": dataclasses.replace(SWIN, model="vmamba_tiny", ema_decay=0.9999),
    "vim": dataclasses.replace(DEIT, model="vim_tiny"),
    "deit": DEIT,
    "swin": SWIN,
    "convnext": Recipe("convnext_tiny", _rates(4e-3, 0.0, 1e-6, per=4096), _adamw(0.05), batch=4096, ema_decay=0.9999),
    "ares": Recipe("vmamba_tiny", _rates(5e-4, 1e-6, 1e-5), _adamw(0.05), batch=512, warmup=5, ema_decay=0.9998, drop_path=0.0,
                   attack=_attack("pgd", steps=3, step_size=2 * EPS / 3, random_start=False), ramp=5, scheduled=("step_size",)),
    # 80 images per GPU in its script, taken as eight GPUs; the rate does not depend on the batch. Erased pixels are N(0, 1) before preprocessing
    "singh": Recipe("vmamba_tiny", lambda batch: {"learning_rate": 1e-3, "warmup_start": 1e-7, "end": 1e-10}, _adamw(0.05, b2=0.95), batch=640,
                    ema_decay=0.9999, drop_path=0.0, augment={**ERASE, "mean": (0.0,), "std": (1.0,)},
                    attack=_attack("apgd", steps=2, random_start=False, keep="highest_loss")),
    "light": Recipe("vmamba_tiny", _rates(5e-4, 1e-6, 1e-5), _adamw(0.5), batch=512, epochs=110, warmup=10, cooldown=10, drop_path=0.05,
                    rand_augment="", color_jitter=0.4, augment={"name": "none"}, mix={**MIX, "mixup": 0.0, "cutmix": 0.0},
                    attack=_attack("pgd", steps=1, step_size=1.5 * EPS), ramp=10, scheduled=("eps",)),
}
BY_MODEL = {  # Vim's scripts differ by size
    ("vim", "vim_tiny"): {"optimizer": _adamw(0.1)},
    ("vim", "vim_small"): {"rates": _rates(1e-3, 1e-6, 1e-5), "batch": 512},
}


def get_config(arg=None):
    """Axes: `recipe=`, one of the table; `model=`, any of `vmamba_jax.list_models()` ("": the recipe's); `batch=` (0: the recipe's); `size=`."""
    arg = base.parse_arg(arg, recipe="vmamba", model="", batch=0, size=224)
    recipe = base.choose("recipe", arg["recipe"], RECIPES)
    name, size = arg["model"] or recipe.model, arg["size"]
    recipe = dataclasses.replace(recipe, **BY_MODEL.get((arg["recipe"], name), {}))
    p = models.entry(name).preprocessing
    config = base.run()
    config.epochs = recipe.epochs
    config.batch_size = arg["batch"] or recipe.batch

    config.data = {"name": "folder", "root": "", "options": {
        "size": size, "resize": size * p.resize // p.size, "interpolation": p.interpolation, "exif": False}}
    config.transform = {
        "name": "train", "size": size, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "interpolation": "bicubic", "flip": 0.5,
        "rand_augment": recipe.rand_augment, "color_jitter": recipe.color_jitter, "fill": tuple(round(255 * x) for x in p.mean)}
    seen = {"mean": p.mean, "std": p.std, "clip": recipe.attack is not None} if recipe.augment["name"] == "erase" else {}
    config.augment = {**seen, **recipe.augment}
    config.mix = recipe.mix
    config.repeats = recipe.repeats
    config.preprocessing = {"mean": p.mean, "std": p.std}
    config.model = {"name": name, "overrides": {} if recipe.drop_path is None else {"drop_path_rate": recipe.drop_path}}

    if recipe.attack:
        config.objective.update(name="pgd_at", attack=recipe.attack, ramp_epochs=recipe.ramp, scheduled=recipe.scheduled)
    config.optimizer.update(recipe.optimizer)
    config.schedule.update(name="cosine", warmup_epochs=recipe.warmup, cooldown_epochs=recipe.cooldown, **recipe.rates(config.batch_size))
    config.ema_decay = recipe.ema_decay

    config.validation.update(base.validation(config.objective.name, eps=EPS if recipe.attack else 1 / 255, every_epochs=5, limit=5000))
    config.log_every = 100
    config.evaluation.update(base.evaluation(EPS, (0.0, 1 / 255, 2 / 255, EPS, 8 / 255), restarts=1, batch_size=64), split="validation")
    return config
