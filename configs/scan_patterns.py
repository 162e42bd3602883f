"""Which scan pattern, initialization, state size and width serve a VMamba, clean and under attack: the paper's ablations in small.

Liu et al., "VMamba: Visual State Space Model" (arXiv 2401.10166), sections on scan patterns, initialization, state size, ratio, layers and activation.

    python -m experiments.sweep --config configs/scan_patterns.py --workdir runs/scan_patterns
    python -m experiments.sweep --config configs/scan_patterns.py:data=cifar10,seeds=3 --workdir runs/scan_patterns_cifar10 \\
        --config.base.data.root=data/cifar10

One VMamba block reads a digit as 4 x 4 patches of 2 pixels, without positions or further convolutions: context comes from its scans and its depth-wise
convolution alone; without the latter (`*_noconv`) from the scans alone. The page compares each group with `cross`, and judges the paper's statements, clean
and under PGD. Results on digits: docs/results/scan_patterns_digits. Cost: 60 runs, about 20 minutes of two CPU cores, mostly compilation.
`data=cifar10` trains 0.9 million parameters on patches of 2 pixels, for a GPU.
"""
from configs import base, sweeps

PATTERNS = ("cross", "unidi", "bidi", "cascade", "snake", "random")
# eps: radius of PGD, at which standard training has neither all nor none of its accuracy. ratios: {d_state: ssm_ratio at which the model has as many
# multiply-adds as with one state and ratio 2, to 2 %}
SETS = {
    "digits": {"model": {"dims": (32,), "depths": (1,), "patch_size": 2, "patch_embed": "v1"}, "epochs": 20, "batch": 96, "rate": 1e-2, "eps": 0.1,
               "mean": (0.5,), "std": (0.5,), "ratios": {1: 2.0, 4: 1.04, 16: 0.35}},
    "cifar10": {"model": {"dims": (64, 128), "depths": (2, 4), "patch_size": 2, "patch_embed": "v1"}, "epochs": 30, "batch": 128, "rate": 2e-3, "eps": 1 / 255,
                "mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616), "ratios": {1: 2.0, 4: 1.4, 16: 0.64}}}


def groups(ratios, depths):
    """{group: fields of the model that differ from the base's, which is VMamba-T's block}."""
    found = {name: {"scan_pattern": name} for name in PATTERNS}
    found |= {f"{name}_noconv": {"scan_pattern": name, "conv_size": -1} for name in PATTERNS}
    found |= {"init_random": {"ssm_init": "v1"}, "init_zero": {"ssm_init": "v2"}}
    found |= {f"states_{n}": {"d_state": n, "ssm_ratio": ratio} for n, ratio in ratios.items()}
    found["deep"] = {"depths": tuple(2 * depth for depth in depths)}
    return found | {"act_gelu": {"ssm_act": "gelu"}, "act_relu": {"ssm_act": "relu"}}


def claims():
    """The paper's statements as (sentence, group, other group, "above" or "alike"), and what it does not ask."""
    found = [("Four directions are more accurate than one", "cross", "unidi", "above"),
             ("Two directions are more accurate than one", "bidi", "unidi", "above"),
             ("Four directions are more accurate than two", "cross", "bidi", "above"),
             ("The cross scan is more accurate than the cascade", "cross", "cascade", "above")]
    found += [(f"{sentence}, without depth-wise convolution", f"{group}_noconv", f"{other}_noconv", side) for sentence, group, other, side in found]
    found += [(f"The depth-wise convolution helps: {name}", name, f"{name}_noconv", "above") for name in PATTERNS[:4]]
    found += [("Random initialization is as accurate as Mamba's", "init_random", "cross", "alike"),
              ("Zero initialization is as accurate as Mamba's", "init_zero", "cross", "alike")]
    found += [(f"{n} states are as accurate as one at equal FLOPs", f"states_{n}", "states_1", "alike") for n in (4, 16)]
    found += [("Ratio 2 is more accurate than ratio 1 at the same depth", "states_1", "cross", "above"),
              ("More layers at ratio 1 are more accurate than fewer", "deep", "cross", "above"),
              ("GELU is as accurate as SiLU", "act_gelu", "cross", "alike"), ("ReLU is as accurate as SiLU", "act_relu", "cross", "alike")]
    return found + [("New: a snake order is more accurate than the cross scan", "snake", "cross", "above"),
                    ("New: a random order is less accurate than the cross scan", "cross", "random", "above"),
                    ("New: the same without depth-wise convolution", "cross_noconv", "random_noconv", "above"),
                    ("New: snake above cross, without depth-wise convolution", "snake_noconv", "cross_noconv", "above")]


def get_config(arg=None):
    """Axes: `data=digits` or `cifar10`, `seeds` (a number)."""
    arg = base.parse_arg(arg, data="digits", seeds=3)
    about = base.choose("data", arg["data"], SETS)
    config = base.run()
    config.epochs, config.batch_size, config.data.name = about["epochs"], about["batch"], arg["data"]
    config.preprocessing = {"mean": about["mean"], "std": about["std"]}
    config.model = {"name": "vmamba_tiny", "overrides": {"drop_path_rate": 0.0, **about["model"]}}
    config.optimizer.update(weight_decay=0.05, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=about["rate"], warmup=0.1)
    config.validation.update(base.validation("standard", eps=about["eps"], steps=20, every_epochs=config.epochs))
    config.evaluation.update(base.evaluation(about["eps"], (0.0, about["eps"]), restarts=1, batch_size=180))
    config.evaluation.examples = 0
    config.evaluation.attacks = {"pgd": config.evaluation.attacks.pgd.to_dict()}
    runs = {name: {"model": {"overrides": fields}} for name, fields in groups(about["ratios"], about["model"]["depths"]).items()}
    return sweeps.sweep(config, runs=runs, seeds=tuple(range(arg["seeds"])), control="cross",
                        title=f"VMamba's scan patterns and ablations in small, on {arg['data']}",
                        about="One small VMamba with one field changed at a time, by standard training; attacked by PGD.", claims=claims())
