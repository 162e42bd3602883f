"""How much of a small VMamba's accuracy on digits can be certified: l2 radii by randomized smoothing, linf radii by interval bounds.

Cohen, Rosenfeld and Kolter 2019 (arXiv 1902.02918); Gowal et al. 2018 (arXiv 1810.12715).

    python -m experiments.certify --config configs/certify.py --workdir runs/certify

One VMamba block reads a digit as 4 x 4 patches of 2 pixels, without the norms of the patch embedding and of the scan's output, each of which widens the
bounds about tenfold. Groups: standard training, training on images with Gaussian noise of 0.25 and 0.5, and on interval bounds of radius 0.002. The page
gives certified accuracy against radius, the same images under AutoAttack, and how loose the bounds are. Results: docs/results/certify_digits. Cost: 12
runs, about 2 minutes each on a CPU core.
"""
from configs import base, sweeps

NOISES, EPS = (0.25, 0.5), 0.002
OBJECTIVES = {"interval": {"name": "interval", "eps": EPS, "share": 0.5, "ramp": 0.5}, "standard": {"name": "standard"},
              **{f"noise_{100 * sigma:03.0f}": {"name": "noise", "sigma": sigma} for sigma in NOISES}}


def get_config(arg=None):
    """Axes: `seeds` (a number), `groups=standard+interval`: only these."""
    arg = base.parse_arg(arg, seeds=3, groups="")
    config = base.run()
    config.epochs, config.batch_size, config.data.name = 30, 96, "digits"
    config.preprocessing = {"mean": (0.5,), "std": (0.5,)}
    config.model = {"name": "vmamba_tiny", "overrides": {"dims": (32,), "depths": (1,), "patch_size": 2, "patch_embed": "v1", "patch_norm": False,
                                                         "out_norm": "none", "mlp_ratio": 2.0, "drop_path_rate": 0.0}}
    config.optimizer.update(weight_decay=0.05, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=0.015, warmup=0.1)
    config.validation.update(base.validation("standard", eps=EPS, steps=10, every_epochs=config.epochs))
    config.evaluation.update(base.evaluation(EPS, (0.0, EPS), restarts=1, batch_size=180))
    config.evaluation.examples = 0
    config.evaluation.attacks = {"pgd": config.evaluation.attacks.pgd.to_dict()}
    chosen = tuple(filter(None, arg["groups"].split("+"))) or tuple(OBJECTIVES)
    runs = {name: {"objective": base.choose("groups", name, OBJECTIVES)} for name in chosen}
    made = sweeps.sweep(config, runs=runs, seeds=tuple(range(arg["seeds"])), control="standard" if "standard" in chosen else chosen[0], title="Certified accuracy of a small VMamba on digits")
    made.study = {"images": 180, "sigmas": NOISES, "n0": 50, "n": 1000, "alpha": 0.001, "l2_radii": (0.0, 0.125, 0.25, 0.5, 0.75, 1.0),
                  "eps": (0.00025, 0.0005, 0.001, 0.002, 0.004), "attacked": (0.001, 0.004), "attacked_images": 90,
                  "autoattack": {"name": "autoattack", "steps": 20, "queries": 100}, "looseness_images": 32, "samples": 500}
    return made
