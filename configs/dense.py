"""Semantic segmentation of rendered shapes by small UperNets, standard and adversarial, under attacks, corruptions and occlusions.

    python -m experiments.dense --config configs/dense.py --workdir runs/dense
    python -m experiments.dense --config configs/dense.py:models=all,objectives=both,seeds=3 --workdir runs/dense_all

A sweep of groups <model>-<objective>, see configs/sweeps.py: VMamba, Swin and ConvNeXt of equal size (0.19 million parameters with their heads), each
trained by cross-entropy and by PGD-AT. Background everywhere has an mIoU of 0.21.
"""
from configs import base, sweeps

EPS = 4 / 255
HEADS = {"channels": 32, "aux_channels": 16}
MODELS = {
    "vmamba": {"name": "upernet_vmamba_tiny", "overrides": HEADS | {"backbone": {"dims": (16, 24, 32, 48), "depths": (1, 1, 1, 1), "ssm_ratio": 1.0, "mlp_ratio": 2.0,
                                                                                   "drop_path_rate": 0.0}}},
    "swin": {"name": "upernet_swin_tiny", "overrides": HEADS | {"backbone": {"embed_dim": 7, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 4,
                                                                               "drop_path_rate": 0.0}}},
    "convnext": {"name": "upernet_convnext_tiny", "overrides": HEADS | {"backbone": {"dims": (16, 24, 32, 48), "depths": (1, 1, 2, 1), "layer_scale_init": 1.0,
                                                                                       "drop_path_rate": 0.0}}}}
OBJECTIVES = {
    "standard": {"name": "segmentation", "auxiliary": 0.4},
    "pgd_at": {"name": "segmentation", "auxiliary": 0.4, "ramp": 0.3, "attack": {"name": "dense_pgd", "eps": EPS, "steps": 2, "step_size": 0.75 * EPS}}}


def run(size=64, epochs=16):
    """The training config of a small UperNet on the shapes; `configs.dense.get_config` makes a sweep of it."""
    config = base.run()
    config.epochs, config.batch_size = epochs, 16
    config.data.update(name="dense_shapes", options={"size": size, "examples": (384, 48, 64)})
    config.model = MODELS["vmamba"]
    config.preprocessing = {"mean": (0.45,), "std": (0.22,)}
    config.objective.update(OBJECTIVES["standard"])
    config.optimizer.update(weight_decay=0.01, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=4e-3, warmup=0.1)
    config.validation.update(every_epochs=4, select="mIoU", attack={"name": "dense_pgd", "eps": EPS, "steps": 3, "step_size": 0.75 * EPS})
    config.evaluation.update(batch_size=64, examples=6)
    return config


def get_config(arg=None):
    """Axes: `models=` vmamba, swin, convnext or all; `objectives=` standard, pgd_at or both; `seeds` (a number); `probes=` some or all."""
    arg = base.parse_arg(arg, models="vmamba", objectives="standard", seeds=1, probes="some")
    models = tuple(MODELS) if arg["models"] == "all" else (base.choose("models", arg["models"], {name: name for name in MODELS}),)
    chosen = tuple(OBJECTIVES) if arg["objectives"] == "both" else (base.choose("objectives", arg["objectives"], {name: name for name in OBJECTIVES}),)
    runs = {f"{model}-{name}": {"model": MODELS[model], "objective": base.run().objective.to_dict() | OBJECTIVES[name],
                                "validation": {"select": "mIoU" if name == "standard" else "robust_mIoU"}} for model in models for name in chosen}
    made = sweeps.sweep(run(), runs=runs, seeds=tuple(range(arg["seeds"])), title="Semantic segmentation of rendered shapes: accuracy and robustness")
    made.study = base.choose("probes", arg["probes"], {"some": probes(), "all": probes(steps=30, more=True)})
    return made


def probes(eps=EPS, steps=10, more=False):
    """What `experiments.dense` measures of each run.

    Args:
        eps: radius of the attacks, in units of [0, 1] pixels.
        steps: of PGD and of each part of SEA.
        more: also SegPGD, CosPGD and TsallisPGD, and the fifteen corruptions at five severities.
    """
    pgd = {"eps": eps, "steps": steps, "step_size": 2.5 * eps / steps}
    attacks = {"pgd": {"name": "dense_pgd", **pgd}}
    if more:
        attacks |= {"segpgd": {"name": "segpgd", **pgd}, "cospgd": {"name": "cospgd", **pgd}, "tsallis_pgd": {"name": "tsallis_pgd", "eps": eps, "steps": 3 * steps}}
    names = "all" if more else "gaussian_noise+defocus_blur+fog+contrast+jpeg_compression"
    return {"attacks": attacks, "sea": {"eps": eps, "steps": steps}, "corruptions": {"names": names, "severities": (1, 2, 3, 4, 5) if more else (1, 3, 5)},
            "disturbances": {"random, 25 %": {"name": "random_drop", "grid": 8, "area": 0.25}, "block, 25 %": {"name": "dense_drop", "grid": 8, "area": 0.25},
                             "scan, rows": {"name": "information_drop", "rate": 0.25, "grid": 8, "direction": "rows"},
                             "scan, columns": {"name": "information_drop", "rate": 0.25, "grid": 8, "direction": "columns"}}, "worst": 4}
