"""What test-time adaptation does for a small VMamba on corrupted digits, and what an attacker who knows it can do.

TENT (arXiv 2006.10726), ETA and EATA (2204.02610), SAR (2302.12400), SHOT (2002.08546), LAME (2201.05718), TRUST (2509.22813), and no adaptation.

    python -m experiments.adapt --config configs/adaptation.py --workdir runs/adaptation

One VMamba block with batch norms (group `layer_norm`: with layer norms, `groups=batch_norm+layer_norm`) reads a digit as 4 x 4 patches of 2 pixels; it is
trained on clean digits, then adapts to the 360 test digits in batches of 60 under each corruption of severity 5. Attacks are PGD on clean digits: on the
model before it adapts, through the adaptation, and by a quarter of a batch against the rest (poisoned). Results: docs/results/adaptation_digits. Cost:
3 runs, about 8 minutes for the first and 2 for each further one on a CPU core.
"""
from configs import base, sweeps

CORRUPTIONS = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "fog", "brightness", "contrast", "pixelate")
METHODS = {"none": {"name": "none"}, "lame": {"name": "lame"}, "tent": {"name": "tent", "learning_rate": 1e-3},
           "eta": {"name": "eata", "learning_rate": 5e-3, "margin": 0.4}, "eata": {"name": "eata", "learning_rate": 5e-3, "margin": 0.4, "fisher_weight": 1.0},
           "sar": {"name": "sar", "learning_rate": 5e-3}, "shot": {"name": "shot", "learning_rate": 1e-3}, "trust": {"name": "trust", "learning_rate": 1e-3}}


def get_config(arg=None):
    """Axes: `seeds` (a number), `groups=batch_norm`, `layer_norm` or both joined by +."""
    arg = base.parse_arg(arg, seeds=3, groups="batch_norm")
    config = base.run()
    config.epochs, config.batch_size, config.data.name = 20, 96, "digits"
    config.preprocessing = {"mean": (0.5,), "std": (0.5,)}
    config.model = {"name": "vmamba_tiny", "overrides": {"dims": (32,), "depths": (1,), "patch_size": 2, "patch_embed": "v1", "mlp_ratio": 2.0,
                                                         "drop_path_rate": 0.0, "norm": "batch_norm"}}
    config.optimizer.update(weight_decay=0.05, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=1e-2, warmup=0.1)
    config.validation.update(base.validation("standard", eps=0.05, steps=10, every_epochs=config.epochs))
    config.evaluation.update(base.evaluation(0.05, (0.0, 0.05), restarts=1, batch_size=180))
    config.evaluation.examples = 0
    config.evaluation.attacks = {"pgd": config.evaluation.attacks.pgd.to_dict()}
    runs = {name: {"model": {"overrides": {"norm": base.choose("groups", name, {"batch_norm": "batch_norm", "layer_norm": "layer_norm"})}}}
            for name in arg["groups"].split("+")}
    made = sweeps.sweep(config, runs=runs, seeds=tuple(range(arg["seeds"])), title="Test-time adaptation of a small VMamba on corrupted digits")
    made.study = {"methods": METHODS, "corruptions": CORRUPTIONS, "severity": 5, "batch_size": 60, "settings": ("continual", "reset"),
                  "attacked": ("none", "tent", "eta", "shot"), "eps": 0.05, "steps": 10, "poisoned": 15, "poison_eps": 0.2, "fisher_images": 120}
    return made
