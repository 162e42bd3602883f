"""Large adversarial training at Linf 4/255 in three phases, 84, 224 and 336 pixels: the recipe of AdvXL, on a data set with class labels.

Wang et al., "Revisiting adversarial training at scale" (arXiv 2401.04727; its training code was not released). It trains on 5.12 billion image-text samples
at 84 pixels against PGD-2, then on 38.4 million at 224 and 6.4 million at 336 against PGD-3, which are 30 and 5 epochs of ImageNet-1k. This config replaces
the text classifier by class labels and the first phase by `epochs` epochs of the same set; `--config.data.root` names another one.

    python -m experiments.train --config configs/scale_at.py:model=vmamba_base --workdir runs/scale --config.data.root=/data/imagenet --cluster
    python -m experiments.train --config configs/scale_at.py:model=vit_huge,stage=all --workdir runs/huge --config.data.root=/data/imagenet --cluster

`stage=pretrain` is the first phase alone, `stage=finetune` the last two, from `--config.init.checkpoint`. State and gradients: `config.sharding="fsdp"`, the
first moment in bfloat16, computation in bfloat16, activations recomputed per block. ViT of patch 14 trains at 84, 224 and 336 pixels, of patch 16 at 96, 224
and 336; their position embeddings are resized at each change. Not run at this size: only small runs were made (configs/phases_digits.py), so there is no
expected figure.
"""
from configs import base
from vmamba_jax import models

EPS = 4 / 255
BATCH = {"pretrain": 8192, "finetune": 1024}
RATE = {"pretrain": 2e-3, "224": 2e-4, "336": 5e-5}  # peak, at these batches
MODELS = {  # catalog name: side of the first phase, drop path
    "vmamba_base": (84, 0.2), "vit_large": (96, 0.1), "vit_large_patch14": (84, 0.1), "vit_huge": (84, 0.2)}
STAGES = {"all": (0, 1, 2), "pretrain": (0,), "finetune": (1, 2)}


def get_config(arg=None):
    """Axes: `model=`, one of MODELS; `stage=` all, pretrain or finetune; `epochs=` of the first phase; `ema_attack`: attack the averaged weights."""
    arg = base.parse_arg(arg, model="vmamba_base", stage="all", epochs=300, ema_attack=False)
    side, drop_path = base.choose("model", arg["model"], MODELS)
    phases = ({"epochs": arg["epochs"], "size": side, "batch_size": BATCH["pretrain"], "learning_rate": RATE["pretrain"],
               "attack": {"steps": 2, "step_size": EPS / 2}},
              {"epochs": 30, "size": 224, "learning_rate": RATE["224"]}, {"epochs": 5, "size": 336, "learning_rate": RATE["336"]})
    config = base.run()
    config.phases = tuple(phases[i] for i in base.choose("stage", arg["stage"], STAGES))
    config.batch_size = BATCH["finetune"]
    last = config.phases[-1]["size"]

    p = models.entry(arg["model"]).preprocessing
    config.data = {"name": "folder", "root": "", "options": {"size": last, "resize": last * 256 // 224, "interpolation": "bicubic", "exif": False}}
    config.transform = {"name": "train", "size": last, "scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "interpolation": "bicubic", "flip": 0.5,
                        "rand_augment": "", "color_jitter": 0.0, "fill": tuple(round(255 * x) for x in p.mean)}
    config.preprocessing = {"mean": p.mean, "std": p.std}
    config.model = {"name": arg["model"], "overrides": {"image_size": last, "drop_path_rate": drop_path, "dtype": "bfloat16", "remat": "blocks"}}

    config.objective.update(name="pgd_at", label_smoothing=0.1, attack={"name": "pgd", "eps": EPS, "steps": 3, "step_size": EPS / 3, "norm": "linf"},
                            attack_weights="ema" if arg["ema_attack"] else "current")
    config.optimizer.update(weight_decay=0.2, b2=0.95, clip_norm=1.0, mu_dtype="bfloat16")
    config.schedule.update(name="cosine", learning_rate=RATE["pretrain"], warmup=0.05, end=1e-6)
    config.ema_decay = 0.9999
    config.sharding = "fsdp"

    config.validation.update(base.validation("pgd_at", eps=EPS, every_epochs=1, limit=5000))
    config.log_every = 100
    config.evaluation.update(base.evaluation(EPS, (0.0, 1 / 255, 2 / 255, EPS, 8 / 255), restarts=1, batch_size=256), split="validation")
    return config
