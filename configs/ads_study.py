"""State space models with and without Adaptive Scaling (AdS), trained by five objectives: the adversarial-training study.

Qi et al., "Exploring Adversarial Robustness of Deep State Space Models" (NeurIPS 2024, arXiv 2406.05532); see docs/ads.md.

    python -m experiments.ads --config configs/ads_study.py --workdir runs/ads
    python -m experiments.ads --config configs/ads_study.py:data=cifar10,size=released --workdir runs/ads_cifar10 --config.base.data.root=DIR

A sweep of groups <model>-<ads>-<objective>, see configs/sweeps.py. Cost of the default: see docs/ads.md. `size=released` has the released models and
epochs, for a GPU; no result of it is committed, and the paper's tables are not quoted here.
"""
import itertools

from configs import base, sweeps

MODELS = ("s4", "dss", "s5", "mega", "mamba", "transformer", "vmamba")
OBJECTIVES = ("standard", "pgd_at", "trades", "free", "yopo")
ADS = ("none", "relu", "sigmoid", "tanh", "attention")
# images: test images under AutoAttack, the first ones; 0: all. train_images: training images of the generalization gap, the first ones. ramp: share of the
# steps over which the radius grows. The small study of MNIST trains on 2,560 images: 57,440 are held out, of which 180 validate.
SETS = {
    "digits": {"eps": 0.05, "step_size": 0.0125, "beta": 6.0, "options": {}, "patch": 2, "side": 8, "epochs": 24, "batch_size": 64, "limit": 0,
               "images": 360, "train_images": 360, "ramp": 0.3, "learning_rate": 1e-2, "every_epochs": 3},
    "mnist": {"eps": 0.3, "step_size": 0.04, "beta": 1.0, "options": {"validation": 57_440}, "patch": 4, "side": 28, "epochs": 16, "batch_size": 64,
              "limit": 512, "images": 128, "train_images": 512, "ramp": 0.7, "learning_rate": 2e-2, "every_epochs": 4},
    "cifar10": {"eps": 0.031, "step_size": 0.007, "beta": 6.0, "options": {"validation": 1000}, "patch": 4, "side": 32, "epochs": 20, "batch_size": 128,
                "limit": 512, "images": 128, "train_images": 512, "ramp": 0.3, "learning_rate": 1e-2, "every_epochs": 2},
    "tiny_imagenet": {"eps": 0.031, "step_size": 0.007, "beta": 6.0, "options": {"validation": 1000, "classes": 50}, "patch": 8, "side": 64,
                      "epochs": 20, "batch_size": 128, "limit": 512, "images": 128, "train_images": 512, "ramp": 0.3, "learning_rate": 1e-2,
                      "every_epochs": 2}}
RELEASED = {"mnist": {"epochs": 100, "options": {"validation": 5000}}, "cifar10": {"epochs": 180, "augment": {"name": "crop_flip", "pad": 4}},
            "tiny_imagenet": {"epochs": 180, "augment": {"name": "crop_flip", "pad": 4}}}
CONTROL = "gelu"  # in place of AdS: the layer's output through a GELU, as the S4, DSS and S5 layers are linear without AdS
CHOSEN = (  # of the grid "chosen": models, AdS, objectives
    (("s4",), (*ADS, CONTROL), ("pgd_at",)), (("vmamba",), ("none", "relu"), ("pgd_at",)), (("s4",), ("none",), ("free", "yopo", "standard")),
    (("mamba",), ("none",), ("pgd_at", "standard")))
WIDE = (*CHOSEN, (("dss", "mamba"), ("none", "relu"), ("pgd_at",)), (("s5", "mega", "transformer"), ("none",), ("pgd_at",)),
        (("s4",), ("none", "relu"), ("trades",)), (("dss", "s5", "mega", "transformer"), ("none",), ("standard",)))
SMALL = {"mamba": {"d_state": 4}, "mega": {"hidden": 64, "z_dim": 16, "ema_states": 4}, "transformer": {"hidden": 64, "num_heads": 2}}
GRIDS = {
    "chosen": CHOSEN, "wide": WIDE,
    "at": ((("s4",), ("none", "relu"), ("pgd_at",)), (("mamba", "transformer"), ("none",), ("pgd_at",))),
    "vmamba": ((("vmamba",), ("none", "relu"), ("pgd_at",)),),
    "full": ((MODELS, ADS, OBJECTIVES),)}


def model(name, data, size, ads):
    """The model section of a group.

    Small models have two layers of 32 channels, and a token for each patch of 2 x 2, 4 x 4 or 8 x 8 pixels, as VMamba has. Released ones have the
    catalog's sizes and a token for each pixel, in the released layout.
    """
    about = SETS[data]
    if name == "vmamba":
        fields = {"dims": (32,), "depths": (2,), "patch_embed": "v1", "mlp_ratio": 0.0} if size == "small" else {"dims": (64, 128), "depths": (2, 2)}
        return {"name": "vmamba_tiny", "overrides": {"patch_size": about["patch"] if size == "small" else 2, "drop_path_rate": 0.0, "ads": ads, **fields}}
    fields = {"ads": "none", "activation": CONTROL} if ads == CONTROL else {"ads": ads}
    found = f"{name}_{'mnist' if data == 'digits' else data}"
    if size == "released":
        return {"name": found, "overrides": {"pixel_layout": "released_view", **fields}}
    return {"name": found, "overrides": {"d_model": 32, "depth": 2, "patch_size": about["patch"], "max_length": (about["side"] // about["patch"])**2,
                                         **fields, **SMALL.get(name, {"d_state": 8})}}


def objective(name, about, size):
    """The objective section of a group: radius, steps and step size of the paper's programs on each set, and ours on digits.

    Small models reach the radius over a share of the steps (pgd_at, trades): at a constant one they may stay at chance.
    """
    steps = 10 if size == "released" else 5
    step_size = about["step_size"] if size == "released" else 2 * about["step_size"]
    section = base.objective(name, eps=about["eps"], steps=steps, step_size=step_size, ramp=0.0 if size == "released" else about["ramp"])
    return section | ({"beta": about["beta"]} if name == "trades" else {})


def get_config(arg=None):
    """Axes: `data=` digits, mnist, cifar10 or tiny_imagenet; `size=` small or released; `grid=` chosen, wide, at, vmamba or full; `seeds` (a number)."""
    arg = base.parse_arg(arg, data="digits", size="small", grid="chosen", seeds=3)
    about = dict(base.choose("data", arg["data"], SETS))
    small = base.choose("size", arg["size"], {"small": True, "released": False})
    grid = base.choose("grid", arg["grid"], GRIDS)
    if not small:
        base.choose("data", arg["data"], RELEASED)
        about |= {"batch_size": 256, "limit": 0, "images": 2000, "train_images": 10_000, **RELEASED[arg["data"]]}
    config = base.run()
    config.epochs, config.batch_size = about["epochs"], about["batch_size"]
    config.data.update(name=arg["data"], options=about["options"])
    if "augment" in about:
        config.augment = about["augment"]
    config.optimizer.update(weight_decay=2e-4, clip_norm=1.0 if small else None)
    config.schedule.update(name="cosine", learning_rate=about["learning_rate"] if small else 1e-3, warmup=0.05 if small else 0.0)
    attack = {"name": "pgd", "eps": about["eps"], "steps": 10, "step_size": about["step_size"]}
    config.validation.update(every_epochs=about["every_epochs"] if small else 1, limit=180 if small else 1000, select="robust_accuracy", attack=attack)
    config.evaluation.update(batch_size=180 if small else 200, limit=about["limit"], examples=0 if small else 10, attacks={"pgd": attack},
                             curve={"attack": "pgd", "radii": (0.0, about["eps"])}, states={"images": 50})

    groups = dict.fromkeys(each for part in grid for each in itertools.product(*part))
    runs = {f"{name}-{ads}-{method}": {
        "model": model(name, arg["data"], arg["size"], ads), "objective": objective(method, about, arg["size"]),
        "validation": {"select": "accuracy" if method == "standard" else "robust_accuracy"}} for name, ads, method in groups}
    first = next(iter(runs))
    config.model = runs[first]["model"]
    made = sweeps.sweep(config, runs=runs, seeds=tuple(range(arg["seeds"])), control=first,
                        title=f"Adversarial training of state space models with and without Adaptive Scaling, on {arg['data']}")
    made.study = {"images": about["images"], "train_images": about["train_images"], "batch_size": 32 if small else 200,
                  "autoattack": {"name": "autoattack", "eps": about["eps"], **({"steps": 20, "queries": 200} if small else {})}}
    return made
