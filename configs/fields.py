"""One line about every key of a config, and the table of type, value and line that `--help` and `vmamba-jax configs NAME` print."""
import ml_collections

_ATTACK = "argument of vmamba_jax.attacks.create"
_MODEL = "{label: model section}"
SHARED = {
    "seed": "of weights, order, attacks and every other random number",
    "batch_size": "images of a step, over all devices together",
    "data.name": "data set, a name of vmamba_jax.data.load",
    "data.root": "folder of the data set",
    "data.split": "train, validation or test",
    "data.options": "further arguments of vmamba_jax.data.load",
    "data.limit": "random subset, the same for every model; 0: all",
    "model.name": "model, a name of the catalog (vmamba-jax models)",
    "model.overrides": "fields of the model that differ from the catalog's"}
RUN = {
    "epochs": "of training",
    "log_every": "steps between two lines of metrics.jsonl",
    "wandb": "Weights & Biases project; empty: local files only",
    "weights": "evaluation only: weights of another place, see checkpoints.open_weights; empty: the run's own",
    "extra.name": "second data set, of which a part of each batch comes",
    "extra.root": "folder of the second set",
    "extra.fraction": "share of a batch that comes from the second set; 0: none",
    "extra.options": "further arguments of vmamba_jax.data.load",
    "repeats": "copies of each image in an epoch",
    "transform": "of one training image, on the host: argument of vmamba_jax.data.transforms.create",
    "loader.workers": "processes that decode and transform; 0: this one",
    "loader.threads": "of a process; 0: one for each core",
    "loader.max_bad": "unreadable images after which a run fails",
    "augment": "of a batch, on the device: argument of vmamba_jax.data.augment.create",
    "mix.mixup": "alpha of mixup; 0: off",
    "mix.cutmix": "alpha of CutMix; 0: off",
    "mix.probability": "of mixing a batch",
    "mix.switch_probability": "of CutMix, where both are on",
    "mix.mode": "batch, pair or elem: what has a mixing coefficient of its own",
    "mix.correct_lam": "whether CutMix's coefficient is the share of pixels that the box has",
    "mix.label_smoothing": "of mixed labels, in [0, 1)",
    "preprocessing.mean": "of the channels in [0, 1], subtracted by the model; one value for all, or one each",
    "preprocessing.std": "of the channels in [0, 1], divided by",
    "init.checkpoint": "weights to start from: a run's folder, a converted folder or a released file; empty: random",
    "init.step": "of a run: best, latest or a step",
    "init.head": "keep, new, or slice (ImageNet's classes of a subset)",
    "init.weights": "set in a file: ema, raw, or its name",
    "init.freeze": "backbone: only the head is trained",
    "objective": "argument of the objective, see vmamba_jax.training.objectives.create",
    "objective.name": "objective of training, see vmamba_jax.training.objectives.create",
    "objective.label_smoothing": "in [0, 1)",
    "objective.accumulate": "microbatches of a step",
    "objective.attack": _ATTACK,
    "objective.ramp": "share of the steps over which the attack's radius grows from 0",
    "objective.ramp_epochs": "the same in epochs; one of both is 0",
    "objective.replays": "updates for each batch, of free",
    "optimizer.name": "see vmamba_jax.training.optimizer.create",
    "optimizer.weight_decay": "decoupled",
    "optimizer.decay_rule": "which parameters decay",
    "optimizer.b1": "decay of the first moment",
    "optimizer.b2": "decay of the second moment",
    "optimizer.eps": "of AdamW's denominator",
    "optimizer.momentum": "of SGD",
    "optimizer.nesterov": "of SGD",
    "optimizer.clip_norm": "largest global norm of the gradient; none: no limit",
    "optimizer.layer_decay": "factor of the learning rate from each layer to the one before; none: 1",
    "optimizer.mu_dtype": "of the first moment or the momentum, such as bfloat16; none: the parameters'",
    "reduce_dtype": "in which devices add gradients, such as bfloat16; empty: the gradients' own",
    "schedule.name": "of the learning rate: constant, cosine or piecewise",
    "schedule.learning_rate": "the highest",
    "schedule.warmup": "share of the updates",
    "schedule.warmup_epochs": "the same in epochs",
    "schedule.warmup_start": "learning rate at the first update",
    "schedule.cooldown": "share of the updates at the end that have the lowest rate, cosine only",
    "schedule.cooldown_epochs": "the same in epochs",
    "schedule.end": "lowest learning rate, cosine only",
    "schedule.boundaries": "shares of the updates at which the rate drops, piecewise only",
    "schedule.factor": "of each drop, piecewise only",
    "phases": "parts of the training with their own size, batch, attack and the like; empty: one",
    "sharding": "of the state over the devices: replicated or fsdp",
    "profile.first": "step at which a profiler trace begins",
    "profile.steps": "steps of the trace, in the run's folder; 0: none",
    "watchdog.factor": "a step of this many times the median time is reported; 0: none",
    "watchdog.least": "seconds below which no step is reported",
    "ema_decay": "of the average of the weights; 0: none",
    "skips.in_a_row": "non-finite steps to skip before a run fails",
    "skips.in_all": "the same, in the whole run",
    "validation.every_epochs": "epochs between two validations",
    "validation.limit": "images; 0: all",
    "validation.select": "metric that ranks the checkpoints: accuracy or robust_accuracy",
    "validation.attack": _ATTACK,
    "checkpoints.keep": "checkpoints besides the best; 0: all",
    "evaluation.split": "train, validation or test",
    "evaluation.batch_size": "over all devices together",
    "evaluation.seed": "of the attacks and corruptions",
    "evaluation.examples": "images that are saved, clean and attacked",
    "evaluation.limit": "random subset; 0: all",
    "evaluation.autoattack": "version of AutoAttack: standard, plus or rand; empty: none",
    "evaluation.attacks": "{name: attack, by arguments of vmamba_jax.attacks.create}",
    "evaluation.skip_attacks": "neither attacks nor the curve",
    "evaluation.curve.attack": "one of evaluation.attacks, at every radius; empty: no curve",
    "evaluation.curve.radii": "of the curve, in units of [0, 1] pixels",
    "evaluation.corruptions.names": "all, or names joined by +; empty: none",
    "evaluation.corruptions.severities": "1 to 5",
    "evaluation.calibration.bins": "of the confidence; 0: not measured",
    "evaluation.states.images": "images on which the hidden states of a model with scans are measured; 0: none"}
SWEEP = {
    "base": "config of every run, with the keys of a run",
    "runs": "{group: fields of the base that it changes}",
    "axes": "{axis: values}, of which every combination is a group",
    "seeds": "each group is run once with each",
    "control": "group that the others are compared with; empty: the first",
    "margin": "two groups count as equal within it",
    "title": "of the page; empty: from model and data set",
    "about": "first paragraph of the page",
    "claims": "statements that the page judges: (sentence, group, other, above or alike)",
    "study": "settings of what the study measures besides"}
STUDY = {
    "models": "run folders, converted folders, NAME@FILE, or {label: model section}",
    "train": "{label: model section}, trained before the study by the recipe of configs/digits.py",
    "margin": "differences within it count as none",
    "example": "index, in the subset, of the image that the page shows under every probe",
    "probes": "{name: kind and settings}",
    "limit": "random subset of the test images; 0: all",
    "epochs": "of training; 0: the recipe's",
    "eps": "radius of the robust accuracies",
    "radii": "ascending, linf",
    "budgets": "gradient passes for each image and radius",
    "steps": "of runs, besides the best: initial, all, or numbers",
    "parts": "what is measured",
    "receptive_field.images": "photos",
    "receptive_field.shares": "of the field, whose squares are measured",
    "attention.photos": "photos",
    "attention.block": "index over the network; -1: the second of the third stage",
    "attention.queries": "row and column as shares of the map",
    "statistics.images": "photos"}
BENCHMARK = {
    "devices": "0: all",
    "repeats": "rounds over the candidates of a group",
    "seconds": "no further round begins after this time, but at least three are timed",
    "copy_mib": "size of the timed copy",
    "operations": "named for each program of a model, those of most time; 0: none",
    **{part: f"candidates and settings of the part `{part}`" for part in (
        "scan", "models", "memory", "ladder", "growth", "attacks", "scaling", "training", "corruptions", "compile", "sequences", "against")}}
LINES = BENCHMARK | STUDY | SWEEP | SHARED | RUN  # of a name in several of them the last
INSIDE = LINES | {  # section: the line about any key within it that has none of its own
    "evaluation.attacks": _ATTACK, "validation.attack": _ATTACK, "objective.attack": _ATTACK, "model.overrides": "field of the model",
    "data.options": "argument of vmamba_jax.data.load", "extra.options": "argument of vmamba_jax.data.load"}


def what(key):
    """The line about a key, such as "base.optimizer.b1" or "evaluation.attacks.pgd.eps"; "" if none is known."""
    key = key.removeprefix("base.")
    if key in LINES:
        return LINES[key]
    while key := key.rpartition(".")[0]:
        if key in INSIDE:
            return INSIDE[key]
    return ""


def rows(config, prefix=""):
    """(key, type, value, line) of every leaf of a config, sections in their order; an empty section is a leaf."""
    for name, value in config.items():
        key = f"{prefix}{name}"
        if isinstance(value, (dict, ml_collections.ConfigDict)) and len(value):
            yield from rows(value, f"{key}.")
        else:
            value = {} if isinstance(value, ml_collections.ConfigDict) else value
            kind = config.get_type(name) if isinstance(config, ml_collections.ConfigDict) else type(value)
            yield key, kind.__name__.replace("ConfigDict", "dict"), repr(value), what(key)


def table(config):
    """The text of a config: a line for each key with its type, its value and what it is."""
    found = list(rows(config))
    wide = [min(max(len(row[i]) for row in found), most) for i, most in ((0, 44), (1, 8), (2, 24))]
    lines = [f"{key:<{wide[0]}}  {kind:<{wide[1]}}  {value:<{wide[2]}}  {line}".rstrip() for key, kind, value, line in found]
    return "\n".join(lines)


def unknown(config, key):
    """The message about a key that a config lacks, which lists what its section has; "" if it has the key.

    Args:
        config: ConfigDict.
        key: such as "optimizer.lr".
    """
    section, where = config, "config"
    for name in key.split("."):
        if not isinstance(section, ml_collections.ConfigDict):
            return f"--config.{key}: unknown field {name!r}; {where} has no fields"
        if name not in section:
            return f"--config.{key}: unknown field {name!r}; expected one of {where}: {', '.join(section) or 'no fields'}"
        section, where = section[name], f"{where}.{name}"
    return ""
