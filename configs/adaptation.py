"""What test-time adaptation does for a small VMamba on corrupted digits, and what an attacker who knows it can do.

TENT (arXiv 2006.10726), ETA and EATA (2204.02610), SAR (2302.12400), SHOT (2002.08546), LAME (2201.05718), TRUST (2509.22813), and no adaptation.

    python -m experiments.adapt --config configs/adaptation.py --workdir runs/adaptation
    python -m experiments.adapt --config configs/adaptation.py:tune=yes --workdir runs/adaptation_rates
    python -m experiments.adapt --config configs/adaptation.py:methods=none+trust,attacked=none+trust --workdir runs/adaptation_trust

One VMamba block with batch norms (group `layer_norm`: with layer norms, `groups=batch_norm+layer_norm`) reads a digit as 4 x 4 patches of 2 pixels; it is
trained on clean digits, then adapts to the 360 test digits in batches of 60 under each corruption of severity 5. `statistics` is prediction with the
statistics of the batch and no update. SAR does not return to its start: its released limit, an entropy of 0.2, is above that of a digits model. Attacks are PGD on clean digits: on the model before it adapts, through the adaptation, and by a quarter of a
batch against the rest (poisoned).

`tune=yes` measures every method with several learning rates instead, on the 180 validation digits under four other corruptions, with another seed.
"""
from configs import base, sweeps

CORRUPTIONS = ("gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "fog", "brightness", "contrast", "pixelate")
TUNED_ON = ("speckle_noise", "gaussian_blur", "spatter", "jpeg_compression")
METHODS = {"none": {"name": "none"}, "statistics": {"name": "none", "statistics": "batch"}, "lame": {"name": "lame"},
           "tent": {"name": "tent", "learning_rate": 3e-3},
           "eta": {"name": "eata", "learning_rate": 3e-1, "margin": 0.4}, "eata": {"name": "eata", "learning_rate": 3e-1, "margin": 0.4, "fisher_weight": 1.0},
           "sar": {"name": "sar", "learning_rate": 1.0, "recovery": 0.0}, "shot": {"name": "shot", "learning_rate": 1e-2},
           "trust": {"name": "trust", "learning_rate": 1e-3}}
RATES = {"tent": (1e-3, 3e-3, 1e-2, 3e-2), "eta": (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), "sar": (1e-1, 3e-1, 1.0), "shot": (1e-3, 3e-3, 1e-2, 3e-2),
         "trust": (1e-4, 3e-4, 1e-3, 3e-3)}  # EATA has ETA's
ATTACKED = ("none", "statistics", "tent", "shot")
TUNING_SEED = 100  # of the model that the learning rates are chosen on


def get_config(arg=None):
    """Axes: `seeds` (a number), `groups=batch_norm`, `layer_norm` or both joined by +, `methods=none+tent`: only these, `attacked=none+trust`: attacked
    through the adaptation, `tune=no` or yes.
    """
    arg = base.parse_arg(arg, seeds=3, groups="batch_norm", methods="+".join(METHODS), attacked="", tune="no")
    methods = {name: base.choose("methods", name, METHODS) for name in arg["methods"].split("+")}
    attacked = tuple(filter(None, arg["attacked"].split("+"))) or tuple(name for name in ATTACKED if name in methods)
    for name in attacked:
        base.choose("attacked", name, methods)
    tune = base.choose("tune", arg["tune"], {"no": False, "yes": True})
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
    seeds = (TUNING_SEED,) if tune else tuple(range(arg["seeds"]))
    made = sweeps.sweep(config, runs=runs, seeds=seeds, title="Test-time adaptation of a small VMamba on corrupted digits" + ": learning rates" * tune)
    study = {"methods": methods, "corruptions": CORRUPTIONS, "severity": 5, "batch_size": 60, "settings": ("continual", "reset"), "split": "test",
             "attacked": attacked, "eps": 0.05, "steps": 10, "poisoned": 15, "poison_eps": 0.2,
             "fisher_images": 120}
    rated = {f"{name}_{rate:.0e}": METHODS[name] | {"learning_rate": rate} for name, rates in RATES.items() for rate in rates}
    frozen = {name: METHODS[name] for name in ("none", "statistics", "lame")}
    made.study = study | {"methods": frozen | rated, "corruptions": TUNED_ON, "split": "validation", "attacked": ()} if tune else study
    return made
