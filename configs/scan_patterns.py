"""Which scan pattern, initialization, state size and width serve a VMamba, clean and under attack: the paper's ablations in small.

Liu et al., "VMamba: Visual State Space Model" (arXiv 2401.10166), sections on scan patterns, initialization, state size, ratio, layers and activation.

    python -m experiments.sweep --config configs/scan_patterns.py --workdir runs/scan_patterns
    python -m experiments.sweep --config configs/scan_patterns.py:study=blocks --workdir runs/scan_blocks
    python -m experiments.sweep --config configs/scan_patterns.py:data=cifar10 --workdir runs/scan_patterns_cifar10 \\
        --config.base.data.root=data/cifar10

One VMamba block reads a digit as 4 x 4 patches of 2 pixels, without positions or further convolutions: context comes from its scans and its depth-wise
convolution alone; without the latter (`*_noconv`) from the scans alone. `study=patterns` has the patterns and initializations, `study=blocks` state
sizes at equal FLOPs, ratio, layers and activations. The page compares each group with `cross`, and judges the paper's statements, clean and under PGD.
Results on digits: docs/results/scan_patterns_digits. Cost: 42 and 21 runs, about 30 s for each group's compilation and 10 s for each run on a CPU core.
`data=cifar10` trains 0.9 million parameters on patches of 2 pixels, for a GPU; `data=cifar10_small` two blocks on patches of 4 pixels and 6,000 images,
about a minute for each run on a CPU core.
"""
from configs import base, sweeps

PATTERNS = ("cross", "unidi", "bidi", "cascade", "snake", "random")
# eps: radius of PGD, at which standard training has neither all nor none of its accuracy. ratios: {d_state: ssm_ratio at which the model has as many
# multiply-adds as with one state and ratio 2, to 2 %}
SETS = {
    "digits": {"model": {"dims": (32,), "depths": (1,), "patch_size": 2, "patch_embed": "v1"}, "epochs": 20, "batch": 96, "rate": 1e-2, "eps": 0.1,
               "mean": (0.5,), "std": (0.5,), "ratios": {1: 2.0, 4: 1.04, 16: 0.35}},
    # 6,000 of the training images, the rest is held out
    "cifar10_small": {"data": "cifar10", "options": {"validation": 44_000}, "limit": 1000, "model": {"dims": (48,), "depths": (2,), "patch_size": 4,
                      "patch_embed": "v1"}, "epochs": 16, "batch": 100, "rate": 5e-3, "eps": 1 / 255, "mean": (0.4914, 0.4822, 0.4465),
                      "std": (0.247, 0.2435, 0.2616), "ratios": {1: 2.0, 4: 1.2, 16: 0.45}},
    "cifar10": {"model": {"dims": (64, 128), "depths": (2, 4), "patch_size": 2, "patch_embed": "v1"}, "epochs": 30, "batch": 128, "rate": 2e-3, "eps": 1 / 255,
                "mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616), "ratios": {1: 2.0, 4: 1.4, 16: 0.64}}}


def groups(study, ratios, depths):
    """{group: fields of the model that differ from the base's, which is VMamba-T's block} of a study."""
    if study == "blocks":
        return ({"cross": {}} | {f"states_{n}": {"d_state": n, "ssm_ratio": ratio} for n, ratio in ratios.items()} |
                {"deep": {"depths": tuple(2 * depth for depth in depths)}, "act_gelu": {"ssm_act": "gelu"}, "act_relu": {"ssm_act": "relu"}})
    return ({name: {"scan_pattern": name} for name in PATTERNS} |
            {f"{name}_noconv": {"scan_pattern": name, "conv_size": -1} for name in PATTERNS} |
            {"init_random": {"ssm_init": "v1"}, "init_zero": {"ssm_init": "v2"}})


# The paper's statements as (sentence, group, other group, "above" or "alike"); the first of `patterns` are made with and without convolution.
ORDERS = (("Four directions are more accurate than one", "cross", "unidi"), ("Two directions are more accurate than one", "bidi", "unidi"),
          ("Four directions are more accurate than two", "cross", "bidi"), ("The cross scan is more accurate than the cascade", "cross", "cascade"),
          ("New: a snake order is more accurate than the cross scan", "snake", "cross"),
          ("New: the cross scan is more accurate than a random order", "cross", "random"))
CLAIMS = {
    "patterns": (*((sentence, group, other, "above") for sentence, group, other in ORDERS),
                 *((f"{sentence}, without convolution", f"{group}_noconv", f"{other}_noconv", "above") for sentence, group, other in ORDERS),
                 *((f"The depth-wise convolution helps: {name}", name, f"{name}_noconv", "above") for name in PATTERNS),
                 ("Random initialization is as accurate as Mamba's", "init_random", "cross", "alike"),
                 ("Zero initialization is as accurate as Mamba's", "init_zero", "cross", "alike")),
    "blocks": (*((f"{n} states are as accurate as one at equal FLOPs", f"states_{n}", "states_1", "alike") for n in (4, 16)),
               ("Ratio 2 is more accurate than ratio 1 at the same depth", "states_1", "cross", "above"),
               ("More layers at ratio 1 are more accurate than fewer", "deep", "cross", "above"),
               ("GELU is as accurate as SiLU", "act_gelu", "cross", "alike"), ("ReLU is as accurate as SiLU", "act_relu", "cross", "alike"))}


def get_config(arg=None):
    """Axes: `study=patterns` or `blocks`, `data=digits`, `cifar10_small` or `cifar10`, `seeds` (a number), `groups=cross+snake`: only these."""
    arg = base.parse_arg(arg, study="patterns", data="digits", seeds=3, groups="")
    about = {"data": arg["data"], "options": {}, "limit": 0, **base.choose("data", arg["data"], SETS)}
    claims = base.choose("study", arg["study"], CLAIMS)
    config = base.run()
    config.epochs, config.batch_size, config.data.name = about["epochs"], about["batch"], about["data"]
    config.data.options = about["options"]
    config.preprocessing = {"mean": about["mean"], "std": about["std"]}
    config.model = {"name": "vmamba_tiny", "overrides": {"drop_path_rate": 0.0, **about["model"]}}
    config.optimizer.update(weight_decay=0.05, clip_norm=1.0)
    config.schedule.update(name="cosine", learning_rate=about["rate"], warmup=0.1)
    config.validation.update(base.validation("standard", eps=about["eps"], steps=20, every_epochs=config.epochs, limit=about["limit"]))
    config.evaluation.update(base.evaluation(about["eps"], (0.0, about["eps"]), restarts=1, batch_size=100 if about["limit"] else 180))
    config.evaluation.examples, config.evaluation.limit = 0, about["limit"]
    config.evaluation.attacks = {"pgd": config.evaluation.attacks.pgd.to_dict()}
    changes = groups(arg["study"], about["ratios"], about["model"]["depths"])
    if chosen := tuple(filter(None, arg["groups"].split("+"))):
        changes = {name: base.choose("groups", name, changes) for name in chosen}
        claims = tuple(claim for claim in claims if set(claim[1:3]) <= set(chosen))
    return sweeps.sweep(config, runs={name: {"model": {"overrides": fields}} for name, fields in changes.items()}, seeds=tuple(range(arg["seeds"])),
                        control="" if chosen and "cross" not in chosen else "cross", title=f"VMamba's {'scan patterns' if arg['study'] == 'patterns' else 'block'} in small, on {config.data.name}",
                        about="One small VMamba with one field changed at a time, by standard training; attacked by PGD.", claims=claims)
