"""Semantic segmentation and detection of rendered shapes by small UperNets and Mask R-CNNs, under attacks, corruptions and occlusions.

    python -m experiments.dense --config configs/dense.py --workdir runs/dense
    python -m experiments.dense --config configs/dense.py:tasks=segmentation,models=all,objectives=both,seeds=3 --workdir runs/dense_all

A sweep of groups <model>-<objective>, see configs/sweeps.py: UperNets over VMamba, Swin and ConvNeXt of equal size (0.19 million parameters with
their heads), groups mask_rcnn_<model>-<objective> of Mask R-CNNs over the same backbones, each trained by the task's loss and by PGD-AT. Background
everywhere has an mIoU of 0.21.
"""
from configs import base, sweeps

EPS = 4 / 255
HEADS = {"channels": 32, "aux_channels": 16}
BACKBONES = {
    "vmamba": {"dims": (16, 24, 32, 48), "depths": (1, 1, 1, 1), "ssm_ratio": 1.0, "mlp_ratio": 2.0, "drop_path_rate": 0.0},
    "swin": {"embed_dim": 7, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "window_size": 4, "drop_path_rate": 0.0},
    "convnext": {"dims": (16, 24, 32, 48), "depths": (1, 1, 2, 1), "layer_scale_init": 1.0, "drop_path_rate": 0.0}}
DETECTOR = {  # of images of 64 pixels: anchors of 16 pixels and more, few proposals
    "channels": 24, "rpn_channels": 24, "fc_channels": 64, "mask_channels": 24, "mask_depth": 2, "anchor_scale": 4, "finest": 14, "ratio": 2,
    "proposals": {"per_level": 100, "count": 50}, "training_proposals": {"per_level": 100, "count": 50}, "detections": {"count": 20},
    "rpn_sampling": {"positive": 0.6, "count": 64}, "box_sampling": {"count": 32}}
MODELS = {name: {"name": f"upernet_{name}_tiny", "overrides": HEADS | {"backbone": fields}} for name, fields in BACKBONES.items()}
DETECTORS = {name: {"name": f"mask_rcnn_{name}_tiny", "overrides": DETECTOR | {"backbone": fields}} for name, fields in BACKBONES.items()}
TASKS = ("segmentation", "detection")
PGD = {"eps": EPS, "steps": 2, "step_size": 0.75 * EPS}         # of the training
OBJECTIVES = {
    "standard": {"name": "segmentation", "auxiliary": 0.4},
    "pgd_at": {"name": "segmentation", "auxiliary": 0.4, "ramp": 0.3, "attack": {"name": "dense_pgd", **PGD}}}
DETECTION = {"standard": {"name": "detection"}, "pgd_at": {"name": "detection", "ramp": 0.3, "attack": {"name": "detection_pgd", **PGD}}}


def run(size=64, epochs=40):
    """The training config of a small UperNet on the shapes; `configs.dense.get_config` makes a sweep of it."""
    config = base.run()
    config.epochs, config.batch_size = epochs, 16
    config.data.update(name="dense_shapes", options={"size": size, "examples": (384, 48, 64)})
    config.model = MODELS["vmamba"]
    config.preprocessing = {"mean": (0.45,), "std": (0.22,)}
    config.objective.update(OBJECTIVES["standard"])
    config.optimizer.update(weight_decay=0.01, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=4e-3, warmup=0.1)
    config.validation.update(every_epochs=8, select="mIoU", attack={"name": "dense_pgd", "eps": EPS, "steps": 3, "step_size": 0.75 * EPS})
    config.evaluation.update(batch_size=64, examples=6)
    return config


def get_config(arg=None):
    """Axes: `tasks=` segmentation, detection or both; `models=` vmamba, swin, convnext or all; `objectives=` standard, pgd_at or both; `seeds` (a
    number); `probes=` some or all; `epochs` of segmenters, 0: 40, or 24 with models=all, whose 18 runs take hours else."""
    arg = base.parse_arg(arg, tasks="both", models="vmamba", objectives="standard", seeds=1, probes="some", epochs=0)
    several = lambda key, known, word: tuple(known) if arg[key] == word else (base.choose(key, arg[key], {name: name for name in known}),)
    tasks, models, chosen = several("tasks", TASKS, "both"), several("models", MODELS, "all"), several("objectives", OBJECTIVES, "both")
    runs = {}
    if "segmentation" in tasks:
        runs |= {f"{model}-{name}": {"model": MODELS[model], "objective": base.run().objective.to_dict() | OBJECTIVES[name],
                                     "validation": {"select": "mIoU" if name == "standard" else "robust_mIoU"}} for model in models for name in chosen}
    if "detection" in tasks:
        runs |= {f"mask_rcnn_{model}-{name}": detection(DETECTORS[model], name) for model in models for name in chosen}
    made = sweeps.sweep(run(epochs=arg["epochs"] or (24 if arg["models"] == "all" else 40)), runs=runs, seeds=tuple(range(arg["seeds"])), title="Segmentation and detection of rendered shapes: accuracy and robustness")
    made.study = base.choose("probes", arg["probes"], {"some": probes(), "all": probes(steps=30, more=True)})
    return made


def detection(model, objective):
    """What a group of detectors changes in `run`."""
    attack = {"name": "detection_pgd", "eps": EPS, "steps": 3, "step_size": 0.75 * EPS}
    return {"epochs": 16, "batch_size": 8, "model": model, "objective": base.run().objective.to_dict() | DETECTION[objective],
            "optimizer": {"clip_norm": 5.0}, "schedule": {"learning_rate": 3e-3},
            "validation": {"attack": attack, "select": "mask_AP" if objective == "standard" else "robust_mask_AP"},
            "evaluation": {"batch_size": 48}}       # the validation's number of images: one program detects on both sets


def probes(eps=EPS, steps=10, more=False):
    """What `experiments.dense` measures of each run.

    Args:
        eps: radius of the attacks, in units of [0, 1] pixels.
        steps: of PGD and of each part of SEA.
        more: of detectors also PGD with fixed proposals; of segmenters SegPGD, CosPGD and TsallisPGD, and the fifteen corruptions at five severities.
    """
    pgd = {"eps": eps, "steps": steps, "step_size": 2.5 * eps / steps}
    attacks = {"pgd": {"name": "dense_pgd", **pgd}}
    if more:
        attacks |= {"segpgd": {"name": "segpgd", **pgd}, "cospgd": {"name": "cospgd", **pgd}, "tsallis_pgd": {"name": "tsallis_pgd", "eps": eps, "steps": 3 * steps}}
    names = "all" if more else "gaussian_noise+defocus_blur+fog+contrast+jpeg_compression"
    detection = {"pgd": {"name": "detection_pgd", **pgd}} | ({"pgd, fixed proposals": {"name": "detection_pgd", "proposals": "fixed", **pgd}} if more else {})
    return {"attacks": attacks, "detection_attacks": detection, "sea": {"eps": eps, "steps": steps}, "corruptions": {"names": names, "severities": (1, 2, 3, 4, 5) if more else (1, 3, 5)},
            "disturbances": {"random, 25 %": {"name": "random_drop", "grid": 8, "area": 0.25}, "block, 25 %": {"name": "dense_drop", "grid": 8, "area": 0.25},
                             "scan, rows": {"name": "information_drop", "rate": 0.25, "grid": 8, "direction": "rows"},
                             "scan, columns": {"name": "information_drop", "rate": 0.25, "grid": 8, "direction": "columns"}}, "worst": 4}
