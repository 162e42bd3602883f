"""Every key of a config with its neutral value, and the sections that several configs share.

Each config file starts from `run()` (training and evaluation), `study()` or `benchmark()` and sets what its experiment needs, so the programs
read every key without a default of their own. "" and 0 switch a feature off. Sections with a `name` are the arguments of the factory that their
comment names; further keys are that factory's other arguments.
"""
import math

import ml_collections
from ml_collections import config_dict


def run():
    """The config of `experiments.train` and `experiments.evaluate`: every key, with the value that changes nothing."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.epochs = 0         # required, but for a training in phases
    config.batch_size = 0     # required; over all devices together
    config.log_every = 50     # steps between two lines of metrics.jsonl
    config.wandb = ""         # Weights & Biases project; "": local files only
    config.weights = ""       # evaluation only: weights of another place, see `checkpoints.open_weights`; "": the run's own checkpoint

    config.data = {"name": "", "root": "", "options": {}}                        # data.load; required
    config.extra = {"name": "npz", "root": "", "fraction": 0.0, "options": {}}   # data.Mixed: fraction of a batch that comes from a second set
    config.repeats = 1                                                           # data.Repeated: copies of each image in an epoch
    config.transform = {"name": "none"}                                          # data.transforms.create: one training image, on the host
    config.loader = {"workers": 0, "threads": 0, "max_bad": 10}                  # data.Pipeline, used with a transform; threads 0: one per core
    config.augment = {"name": "none"}                                            # data.augment.create: a batch, on the device
    config.mix = {"mixup": 0.0, "cutmix": 0.0, "probability": 1.0, "switch_probability": 0.5, "mode": "batch", "correct_lam": True,
                  "label_smoothing": 0.0}                                        # data.mix.create

    config.model = {"name": "", "overrides": {}}                                 # vmamba_jax.create_model; required
    config.preprocessing = {"mean": (0.0,), "std": (1.0,)}                       # per channel, or one value for all
    # checkpoints.read_variables: the weights to start from. checkpoint: a run's folder, a converted folder or a released file; step: "best", "latest"
    # or a number, of a run; head: "keep", "new" or "slice"; weights: "ema", "raw" or the name of a set. freeze: "backbone" trains the head alone,
    # training.linear_probe
    config.init = {"checkpoint": "", "step": "best", "head": "keep", "weights": "", "freeze": ""}

    # training.objectives.create. ramp: share of the steps over which the attack's radius grows from 0, or ramp_epochs, of which one is 0; replays:
    # updates per step of "free"
    config.objective = {"name": "standard", "label_smoothing": 0.0, "accumulate": 1, "attack": {}, "ramp": 0.0, "ramp_epochs": 0.0, "replays": 1}
    config.optimizer = {"name": "adamw", "weight_decay": 0.0, "decay_rule": "released", "b1": 0.9, "b2": 0.999, "eps": 1e-8, "momentum": 0.9,
                        "nesterov": True, "clip_norm": config_dict.placeholder(float), "layer_decay": config_dict.placeholder(float),
                        "mu_dtype": config_dict.placeholder(str)}            # of the first moment or the momentum, such as "bfloat16"
    # training.schedules.create. warmup, cooldown, boundaries: shares of the updates, which follow `epochs`; warmup_epochs, cooldown_epochs: epochs,
    # which do not, in place of the share; cooldown and end: "cosine" only; the last two: "piecewise"
    config.schedule = {"name": "constant", "learning_rate": 0.0, "warmup": 0.0, "warmup_epochs": 0.0, "warmup_start": 0.0, "cooldown": 0.0,
                       "cooldown_epochs": 0.0, "end": 0.0, "boundaries": (), "factor": 0.1}
    config.ema_decay = 0.0                                                       # 0: no average of the weights
    config.phases = ()                                                           # dicts, see experiments/common/phases.py; (): one phase
    config.sharding = "replicated"                                               # of the state over the devices, or "fsdp": training.sharding
    config.reduce_dtype = ""                                                     # in which devices add gradients, such as "bfloat16"; "": their own
    config.skips = {"in_a_row": 10, "in_all": 100}                               # non-finite steps to skip before the run fails

    config.validation = {"every_epochs": 1, "limit": 0, "select": "accuracy", "attack": {}}
    config.checkpoints = {"keep": 1}
    config.profile = {"first": 10, "steps": 0}    # a profiler trace of `steps` steps from `first`, in the run's folder; 0: none
    config.watchdog = {"factor": 0.0, "least": 60.0}  # reports a step of `factor` times the median time, and of `least` seconds or more; 0: none
    # skip_attacks: neither attacks nor the curve; corruptions.names: "all", or names joined by +; calibration.bins: of the confidence, 0: not measured;
    # states.images: the first images, on which the hidden states of a model with scans are measured, 0: not
    config.evaluation = {"split": "test", "batch_size": 256, "seed": 0, "examples": 10, "limit": 0, "autoattack": "", "attacks": {},
                         "skip_attacks": False, "curve": {"attack": "", "radii": ()},
                         "corruptions": {"names": "", "severities": (1, 2, 3, 4, 5)}, "calibration": {"bins": 0}, "states": {"images": 0}}
    return config


def study():
    """The config of `experiments.study`: every key, with the value that changes nothing."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.models = ()        # run folders, converted folders, or NAME@FILE
    config.train = {}         # label: model section, trained by the recipe of configs/digits.py before the study
    config.data = {"name": "", "root": "", "split": "test", "options": {}, "limit": 0}  # limit: random subset, the same for every model; 0: all
    config.batch_size = 256
    config.margin = 0.03      # differences within it count as none
    config.example = 0        # index, in the subset, of the image that the page shows under every probe
    config.probes = {}        # name: kind and settings
    return config


def attack_quality():
    """The config of `experiments.attack_quality`: every key, with the value that changes nothing."""
    config = ml_collections.ConfigDict()
    config.models = {}        # label: model section: a net of experiments/small_nets.py, or trained by the recipe of configs/digits.py:objective=pgd_at
    config.epochs = 0         # of the training; 0: the recipe's
    config.seeds = ()         # of the training and of the attacks
    config.limit = 0          # random subset of the test images, the same for every model; 0: all
    config.eps = 0.0          # radius of the robust accuracies, one of the radii
    config.radii = ()         # ascending, linf; the optimality's limit is the largest
    config.budgets = ()       # gradient passes per image and radius
    config.margin = 0.01      # differences of optimality, or of accuracy, within it count as none
    return config


def analysis():
    """The config of `experiments.analyze`: every key, with the value that changes nothing."""
    config = ml_collections.ConfigDict()
    config.seed = 0           # of the random weights of a catalog name
    config.models = ()        # catalog names, run folders, converted folders, or NAME@FILE
    config.steps = ()         # of runs, besides the best: "initial" (before training), "all" (checkpoints), or numbers
    config.data = {"name": "", "root": "", "split": "validation", "options": {}, "limit": 0}  # limit: random subset, the same for every model; 0: all
    config.batch_size = 8
    config.parts = ("receptive_field", "attention", "statistics")
    config.receptive_field = {"images": 50, "shares": (0.2, 0.3, 0.5, 0.99)}
    # block: index over the network, -1: the second of the third stage, or the last without stages; queries: row and column as shares of the map
    config.attention = {"photos": 2, "block": -1, "queries": ((0.5, 0.5), (0.25, 0.25))}
    config.statistics = {"images": 50}
    return config


def benchmark():
    """The config of `experiments.benchmark` with nothing to measure: `parts` is empty and every section has its settings but no candidates."""
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.parts = ()
    config.devices = 0        # 0: all; a batch that they do not divide uses fewer
    config.repeats = 11       # rounds over the candidates of a group
    config.seconds = 120.0    # no further round begins after this time, but at least three are timed
    config.copy_mib = 256
    config.operations = 5     # named for each program of a model, those of most time; 0: none
    config.scan = {"operations": (), "backends": (), "passes": (), "shapes": (), "states": (1,), "batches": (), "dtype": "float32"}
    config.models = {"names": (), "overrides": {}, "variants": ("ours",), "passes": (), "batches": (), "size": 224, "dtypes": ("float32",),
                     "attack": {}, "optimizer": {"name": "adamw", "learning_rate": 0.0, "weight_decay": 0.0}}
    config.memory = {"names": (), "variants": ("ours",), "batch": 1, "size": 224, "dtype": "float32"}
    config.ladder = {"names": (), "models": {}, "passes": (), "batch": 1, "size": 224, "dtype": "float32"}
    config.growth = {"names": (), "passes": (), "sizes": (), "batch": 1, "dtype": "float32"}
    config.attacks = {"models": (), "attacks": (), "images": 1, "batch": 1, "size": 224, "eps": 0.0}
    config.scaling = {"models": {}, "devices": (1,), "batch": 1, "size": 224, "attack": {}}
    config.training = {"models": {}, "attack": {}}
    config.corruptions = {"names": (), "severity": 1, "batch": 1, "size": 224, "package_images": 1}
    config.compile = {"models": (), "backends": (), "platforms": (), "size": 224, "first_steps": (), "batch": 1, "repeats": 3}
    config.sequences = {"layers": (), "lengths": (), "passes": (), "batch": 1, "width": 128, "states": 64}
    config.against = {"models": (), "passes": ()}
    return config


def complete(config):
    """A copy of a run's config in which every key of `run()` is present.

    A config.json of an earlier version lacks the keys that are newer than it; their neutral values are what that version did.

    Args:
        config: ConfigDict, or dict as JSON gives it, with any of the keys of `run()`; its lists become tuples.

    Raises:
        ValueError: a key at the top level that `run()` does not have.
        TypeError: a value of another type than the neutral one.
    """
    if not isinstance(config, (dict, ml_collections.ConfigDict)):
        raise TypeError(f"config={config!r}: expected a ConfigDict or a dict")
    given, full = _tuples(ml_collections.ConfigDict(config).to_dict()), run()
    if unknown := sorted(set(given) - set(full)):
        raise ValueError(f"config.{unknown[0]}: unknown field; expected some of {', '.join(full)}")
    _merge(full, given, "config.")
    return full


def parse_arg(arg, **defaults):
    """The axes in `key=value,flag,...`, the part of `--config file.py:ARG` after the colon.

    Args:
        arg: the string, or None. A value is read as the type of its default; a key alone sets a boolean to True.
        defaults: every accepted key with its default.

    Returns:
        A dict of all keys.

    Raises:
        ValueError: a key that is not among the defaults, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        key, given, text = item.partition("=")
        if key not in defaults:
            raise ValueError(f"config argument {key!r}: expected some of {', '.join(sorted(defaults))}")
        values[key] = _read(key, text if given else "true", defaults[key])
    return values


def choose(key, value, table):
    """`table[value]`; a ValueError that lists the keys of `table` for any other value of the config argument `key`."""
    if value not in table:
        raise ValueError(f"config argument {key}={value!r}: expected one of {', '.join(table)}")
    return table[value]


def objective(name, *, eps, steps, step_size, ramp, norm="linf", label_smoothing=0.0):
    """The objective section of a method, with an attack of `steps` steps for the methods that use one.

    trades_awp, mart_awp and pgd_awp also perturb the weights. free, fast and yopo have published settings of their own for everything but the
    radius; an epoch of free makes `replays` updates per batch.

    Args:
        name: "standard", "pgd_at", "trades", "mart", "free", "fast", "yopo", "pgd_awp", "trades_awp" or "mart_awp".
        eps: radius, in units of [0, 1] pixels.
        steps: attack steps.
        step_size: of the attack.
        ramp: fraction of the training over which the radius grows from 0 to `eps`.
        norm: "linf", "l2" or "l1".
        label_smoothing: in [0, 1).
    """
    attack = {"name": "pgd", "eps": eps, "steps": steps, "step_size": step_size, "norm": norm}
    ramped, near = {"ramp": ramp}, {"attack": {**attack, "start": "gaussian"}, "beta": 6.0, "ramp": ramp}
    sections = {
        "standard": {}, "pgd_at": {"attack": attack, **ramped}, "trades": near, "mart": near,
        "free": {"eps": eps, "replays": 4}, "fast": {"eps": eps, "watch_every": 100, **ramped},
        "yopo": {"eps": eps, "step_size": 0.25 * eps, "passes": 5, "inner_steps": 3},
        "pgd_awp": {"name": "awp", "objective": "pgd_at", "gamma": 0.01, "attack": attack, **ramped},
        "trades_awp": {"name": "awp", "objective": "trades", "gamma": 0.005, **near},
        "mart_awp": {"name": "awp", "objective": "mart", "gamma": 0.005, **near}}
    return {"name": name, "label_smoothing": label_smoothing, **choose("objective", name, sections)}


def validation(objective, *, eps, every_epochs, steps=10, norm="linf", limit=0):
    """The validation section: PGD of `steps` steps, and the metric that ranks the checkpoints.

    Clean accuracy ranks them for objective="standard", robust accuracy for every other one.

    Args:
        objective: name of the objective.
        eps: radius of the attack, in units of [0, 1] pixels.
        every_epochs: epochs between two validations.
        steps: attack steps, of 2.5 * eps / steps each.
        norm: of the attack.
        limit: validation images to use; 0: all.
    """
    return {
        "every_epochs": every_epochs, "limit": limit, "select": "accuracy" if objective == "standard" else "robust_accuracy",
        "attack": {"name": "pgd", "eps": eps, "steps": steps, "step_size": 2.5 * eps / steps, "norm": norm},
    }


def evaluation(eps, radii, *, steps=20, restarts=5, norm="linf", batch_size=256):
    """The evaluation section: clean accuracy, FGSM and PGD at radius `eps`, PGD at every radius of a curve, and the hidden states of 50 images.

    Each attack is one entry, `--config.evaluation.attacks.pgd.restarts=10` changes it. The curve scales the step size with the radius.
    `--config.evaluation.autoattack=standard` (or plus, rand) adds AutoAttack at the curve's radius and norm.

    Args:
        eps: radius, in units of [0, 1] pixels.
        radii: of the curve, in the same units.
        steps: PGD steps, of 2.5 * eps / steps each.
        restarts: PGD restarts.
        norm: of all attacks.
        batch_size: over all devices together.
    """
    return {
        "batch_size": batch_size,
        "attacks": {
            "fgsm": {"name": "fgsm", "eps": eps, "norm": norm},
            "pgd": {"name": "pgd", "eps": eps, "steps": steps, "step_size": 2.5 * eps / steps, "norm": norm, "restarts": restarts},
        },
        "curve": {"attack": "pgd", "radii": tuple(radii)},
        "states": {"images": 50},
    }


def _merge(full, given, where):
    """Set the given fields in a ConfigDict; a TypeError names the field whose value has another type."""
    for name, value in given.items():
        old = full.get(name)
        if isinstance(old, ml_collections.ConfigDict):
            if not isinstance(value, dict):
                raise TypeError(f"{where}{name}={value!r}: expected a section")
            _merge(old, value, f"{where}{name}.")
            continue
        expected = "" if old is None else f" of type {type(old).__name__}"
        number = (isinstance(old, (int, float)) and not isinstance(old, bool)) or (name in full and old is None)  # None: a float that may be absent
        if isinstance(value, bool) and number:
            raise TypeError(f"{where}{name}={value!r}: expected a value{expected}")
        try:
            full[name] = value
        except (TypeError, ValueError) as error:
            raise TypeError(f"{where}{name}={value!r}: expected a value{expected}") from error


def _tuples(value):
    """Nested dicts with tuples for lists."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _read(key, text, default):
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError(f"config argument {key}={text!r}: expected true or false")
        return text.lower() == "true"
    try:
        value = type(default)(text)
    except ValueError:
        raise ValueError(f"config argument {key}={text!r}: expected a value of type {type(default).__name__}, such as {default!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"config argument {key}={text!r}: expected a finite number")
    return value
