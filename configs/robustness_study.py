"""Several models under every robustness probe: attacks, patches, corruptions, shifts, component gradients, information drops.

The questions of Du, Li, Xu, "Understanding Robustness of Visual State Space Models for Image Classification" (arXiv 2403.10935), with the
protocol of Malik et al. (arXiv 2406.09407) where theirs is unpublished; docs/study.md lists every probe with the source of its settings.

    python -m experiments.study --workdir runs/study --config configs/robustness_study.py
    python -m experiments.study --workdir runs/imagenet_study --config.data.root=/data/imagenet --config \\
        configs/robustness_study.py:data=imagenet,size=full,models=vmamba_tiny@vssm1_tiny_0230s_ckpt_epoch_264.pth+swin_tiny@swin_tiny.safetensors

    python -m experiments.study --workdir runs/own_study --config configs/robustness_study.py:data=folder,models=runs/own+runs/own_robust

A model is the folder of a trained run, a folder that `checkpoints convert` wrote, or NAME@FILE with a released file; + separates models.
`data=folder` uses the photos, the split "test" and the image size of the runs themselves (configs/folder.py); `pixels=` is that size if it is not 224.
`probes=clean+attack+corruption_fog` computes only these, by name or kind.
Without models, the study of digits trains and probes five small ones: two sizes of VMamba, a Swin, a ResNet and a MambaOut, the larger VMamba's
control without a scan. Expected for the smaller VMamba: 97 % clean accuracy; under PGD-20 about 94 % at radius 0.025, 46 % at 0.1 and 0 % at 0.2. No
published figures exist to compare with. Cost: about 20 minutes of CPU time with four models, most of it compilation; with MambaOut it was not timed.
`size=full` uses 5,000 images, AutoAttack as published, all corruptions and every grid; a model of 30 million parameters needs an accelerator for it
(not measured).
"""
from configs import base
from vmamba_jax.core.scan_orders import DIRECTIONS
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.evaluation import corruptions
from vmamba_jax.reports.study import tables

# unit: of the radii (1/255 in the paper). patch: side in pixels of a Patch-Fool patch. grid: finest patch grid. window: side and stride in pixels
# of the center-sensitivity window. options: of data.load. scale: mean and std that set Patch-Fool's step size, if not ImageNet's. through: radius
# in units of the attack behind `components`, which must break many of the images but not all.
SETS = {
    "digits": {"unit": 0.025, "patch": 2, "grid": 4, "window": (2, 1), "classes": None, "options": {},
               "scale": {"mean": 0.5, "std": 0.5}, "through": 4},
    "cifar10": {"unit": 1 / 255, "patch": 4, "grid": 8, "window": (8, 4), "classes": None, "options": {}, "scale": {},
                "through": 1},
    "imagenet": {"unit": 1 / 255, "patch": 16, "grid": 14, "window": (32, 16), "classes": 1000, "options": {"exif": False}, "scale": {},
                 "through": 1},
    "folder": {"unit": 1 / 255, "classes": None, "options": {"exif": True, "validation": 0.2, "test": 0.2}, "scale": {}, "through": 1},
}
CORRUPTIONS = {"few": ("gaussian_noise", "defocus_blur", "contrast", "pixelate"),
               "all": corruptions.CORRUPTIONS}
ORDERS = ("reversed", "columns", "snake", "blocks", "random")


def get_config(arg=None):
    """Axes: `models=`, `probes=` and `pixels=` (see above), `data=` digits, cifar10, imagenet or folder, `size=` small or full."""
    arg = base.parse_arg(arg, models="", data="digits", size="small", probes="", pixels=224)
    about, full = base.choose("data", arg["data"], SETS), base.choose("size", arg["size"], {"small": False, "full": True})
    if arg["data"] == "folder":
        about = about | _scaled(arg["pixels"])
    config = base.study()
    config.models = tuple(filter(None, arg["models"].split("+")))
    config.data.update(name=arg["data"], split="validation" if about["classes"] else "test", options=about["options"],
                       limit=5000 if full else 360)
    if about["classes"]:  # class folders, with each release's own resize and crop
        config.data.name = "folder"
        config.data.options["classes"] = tuple(identifier for identifier, _ in imagenet.classes())
    config.train = {} if config.models or arg["data"] != "digits" else _small_models()
    config.batch_size = 64 if about["classes"] or arg["data"] == "folder" else 360
    config.probes = _chosen(_probes(about, full, CORRUPTIONS["few" if arg["data"] == "digits" and not full else "all"]), arg["probes"])
    return config


def _scaled(pixels):
    """Patch, grid and window for images of so many pixels a side, in ImageNet's proportion."""
    if pixels < 28:
        raise ValueError(f"config argument pixels={pixels}: expected at least 28")
    patch = pixels // 14
    return {"patch": patch, "grid": next((n for n in (14, 8) if pixels % n == 0), 4), "window": (2 * patch, patch)}


def _chosen(probes, text):
    """The probes whose name or kind is among those in `text`, joined by +; all for ""."""
    wanted = set(filter(None, text.split("+")))
    if unknown := sorted(wanted - set(probes) - {probe["kind"] for probe in probes.values()}):
        raise ValueError(f"config argument probes={text!r}: expected names or kinds of probes, not {', '.join(unknown)}; names: {', '.join(probes)}")
    return {name: probe for name, probe in probes.items() if not wanted or {name, probe["kind"]} & wanted}


def _small_models():
    """Model sections that the study trains on digits by the recipe of configs/digits.py."""
    vmamba = {"patch_size": 2, "patch_embed": "v1", "drop_path_rate": 0.0, "depths": (1, 1)}
    return {
        "vmamba_s": {"name": "vmamba_tiny", "overrides": {"dims": (16, 32), **vmamba}},
        "vmamba_l": {"name": "vmamba_tiny", "overrides": {"dims": (32, 64), **vmamba}},
        "swin": {"name": "swin_tiny", "overrides": {"embed_dim": 32, "depths": (2, 1), "num_heads": (2, 4), "window_size": 2, "patch_size": 2,
                                                    "image_size": 8, "drop_path_rate": 0.0}},
        "mambaout": {"name": "mambaout_tiny", "overrides": {"dims": (32, 64), "patch_size": 2, "drop_path_rate": 0.0, "depths": (1, 1)}},
        "resnet": {"name": "resnet18", "overrides": {"layers": (1, 1), "channels": (24, 48), "stem": "cifar", "stem_width": 24}}}


def _probes(about, full, names):
    """Every probe by name: its kind, one of `experiments.robustness_study.probes.KINDS`, its settings, and its heading on the page."""
    unit, grid = about["unit"], about["grid"]
    pgd = lambda steps, units, step: {"name": "pgd", "eps": units * unit, "steps": steps, "step_size": step * unit}
    patch_fool = {"name": "patch_fool", "patch_size": about["patch"], "steps": 250 if full else 50, **about["scale"]}
    whole = {
        "clean": {"kind": "clean"},
        "fgsm": {"kind": "attack", "attack": {"name": "fgsm", "eps": unit}},
        "pgd5": {"kind": "attack", "attack": pgd(5, 1, 0.5)},
        "pgd20": {"kind": "attack", "attack": pgd(20, 8, 2)},
        "autoattack": {"kind": "attack", "attack": {"name": "autoattack", "eps": 4 * unit} | ({} if full else {"steps": 20, "queries": 200})},
        "budget": {"kind": "curve", "attack": pgd(20, 8, 2), "radii": tuple(units * unit for units in (0.5, 1, 2, 3, 4, 6, 8))}}
    patches = {f"patch_fool_{n}": {"kind": "attack", "attack": {**patch_fool, "patches": n}} for n in (1, 2, 4)}
    corrupted = {f"corruption_{name}": {"kind": "corruption", "corruption": name, "severities": (1, 2, 3, 4, 5)} for name in names}
    shifts = {name: {"kind": "shift", "shift": name, "root": ""} for name in tables.SHIFTS} if about["classes"] else {}
    through = pgd(5, about["through"], about["through"] / 2)
    components = {
        "components": {"kind": "components", "attack": through, "components": ("B", "C", "delta", "A_bar"), "blocks": ""},
        "components_by_stage": {"kind": "components", "attack": through, "components": ("B", "C", "delta"), "blocks": "stages"}}
    window, stride = about["window"]
    space = {"trajectory": {"kind": "trajectory", "grid": grid, "orders": ORDERS}, "centre": {"kind": "centre", "window": window, "stride": stride}}
    return whole | patches | corrupted | shifts | components | _disturbances(grid, full) | space


def _disturbances(grid, full):
    """Occlusions and shuffles, each at several strengths."""
    rates, areas = ((0.2, 0.4, 0.6, 0.8, 1.0), (0.1, 0.25, 0.5, 0.75, 0.9)) if full else ((0.25, 0.5, 0.75), (0.25, 0.5, 0.75))
    profiles = ("linear", "peak", "trough", "sequential") if full else ("sequential",)
    layouts = ("random", "contiguous", "dispersed", "dense", "center", "border", *(("salient", "non_salient") if full else ()))
    probe = lambda group, title, over, steps, **disturbance: {
        "kind": "disturbance", "group": group, "title": title, "over": over, "steps": steps, "disturbance": disturbance}
    drops = {f"drop_{profile}_{direction}": probe("information_drop", f"{profile}, {direction.replace('_', ' ')}", "rate", rates,
                                                  name="information_drop", profile=profile, direction=direction, grid=grid)
             for profile in profiles for direction in DIRECTIONS}
    patches = {f"patch_drop_{layout}": probe("patch_drop", layout.replace("_", "-"), "area", areas, name=f"{layout}_drop", grid=grid)
               for layout in layouts}
    grids = {4: ((2, 2), (2, 4), (4, 4)), 8: ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8)),
             14: ((2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (14, 14), (16, 16))}[grid]
    return drops | patches | {"shuffle": probe("shuffle", "patches shuffled", "grid", grids, name="patch_shuffle")}
