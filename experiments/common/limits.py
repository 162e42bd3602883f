"""The range of every key of configs/base.py, checked before anything is built: a value outside it is a ConfigError of one line.

Options of a named method (an attack, a transform, a dataset) are checked by its factory.
"""
import functools

import ml_collections

from configs import base
from experiments.common import corrupted, phases
from experiments.common.cli import ConfigError, checking
from vmamba_jax import data
from vmamba_jax.attacks.autoattack.autoattack import VERSIONS
from vmamba_jax.checkpoints.fine_tuning import HEADS
from vmamba_jax.core import checks
from vmamba_jax.data.augment import mix
from vmamba_jax.training.objectives import OBJECTIVES
from vmamba_jax.training.optimization import schedules, weight_decay
from vmamba_jax.training.sharding import SHARDINGS

LARGEST = 2 ** 31 - 1    # counts are int32 on the device
SEEDS = 2 ** 32          # jax.random.key keeps 32 bits
LARGEST_NUMBER = 3.4e38  # of float32
OPTIMIZERS = ("adamw", "sgd")
VALIDATION = ("accuracy", "robust_accuracy")
DENSE_VALIDATION = ("mIoU", "robust_mIoU")  # of segmenters, besides those of `VALIDATION`, which are then accuracies of pixels
DETECTION_VALIDATION = ("box_AP", "mask_AP", "robust_box_AP", "robust_mask_AP")  # of detectors
PARTS = ("scan", "models", "memory", "growth", "ladder", "attacks", "scaling", "corruptions", "compile", "sequences", "training")  # of a benchmark
PASSES = ("forward", "gradient", "training", "pgd")
DTYPES = ("float32", "bfloat16", "float16")


def check_run(config):
    """Check a config of `configs.base.run`, with every key. ConfigError for the first value out of range, or an unknown field of a closed section."""
    _check(config, RUN, base.run(), RUN_CLOSED)
    if config.init.freeze and not config.init.checkpoint:
        raise ConfigError(f"config.init.freeze={config.init.freeze!r}: expected '' without config.init.checkpoint, as random weights are worth no probe")
    for where, section in (("config.validation.attack", config.validation.attack), ("config.objective.attack", config.objective.attack)):
        _options(where, section)
    for name, section in config.evaluation.attacks.items():
        _options(f"config.evaluation.attacks.{name}", section)


def check_study(config):
    """Check a config of `configs.base.study`."""
    _check(config, STUDY, base.study(), ("data",))
    for name, section in config.probes.items():
        _options(f"config.probes.{name}", section)
        with checking(f"config.probes.{name}"):
            checks.choice("kind", section.get("kind"), KINDS)


def check_analysis(config):
    """Check a config of `configs.base.analysis`."""
    _check(config, ANALYSIS, base.analysis(), ("data", "receptive_field", "attention", "statistics"))


def check_benchmark(config):
    """Check a config of `configs.base.benchmark`."""
    _check(config, BENCHMARK, base.benchmark(), BENCHMARK_CLOSED)


def count(name, value, low=1, high=LARGEST, optional=False):
    """Check a whole number."""
    n = checks.count(name, value, None, optional=optional)
    if n is not None and not low <= n <= high:
        expected = f"an integer from {low} to {high}" if n > high or high != LARGEST else f"None or an integer >= {low}" if optional else f"at least {low}"
        raise ValueError(f"{name}={n}: expected {expected}")


def number(name, value, **bounds):
    """Check a number that float32 can hold."""
    x = checks.number(name, value, **bounds)
    if x is not None and abs(x) > LARGEST_NUMBER:
        raise ValueError(f"{name}={x:g}: expected at most {LARGEST_NUMBER:g} in size, as in float32")


def text(name, value, required=False):
    """Check a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r}: expected text")
    if required and not value:
        raise ValueError(f"{name}='': expected a name")


def sequence(name, value, rule, least=0):
    """Check each entry of a list or tuple with `rule`."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}={value!r}: expected a tuple")
    if len(value) < least:
        raise ValueError(f"{name}={value!r}: expected at least {least} entr{'y' if least == 1 else 'ies'}")
    for i, entry in enumerate(value):
        rule(f"{name}[{i}]", entry)


def _options(where, section):
    if not isinstance(section, (dict, ml_collections.ConfigDict)):
        raise ConfigError(f"{where}={section!r}: expected a section, such as {{'name': ...}}")


def _shape(name, value):
    sequence(name, value, count)
    if len(value) != 2:
        raise ValueError(f"{name}={value!r}: expected (length, channels)")


def _saved_step(name, value):
    if value not in ("initial", "all"):
        checks.choice(name, value, ("initial", "all")) if isinstance(value, str) else count(name, value, low=0)


def _query(name, value):
    sequence(name, value, functools.partial(number, low=0, below=1))
    if len(value) != 2:
        raise ValueError(f"{name}={value!r}: expected (row, column) as shares of the map")


def _check(config, rules, neutral, closed):
    with checking():
        for section in ("", *closed):
            known, given = _field(neutral, section), _field(config, section)
            _options(f"config.{section}", given)
            if unknown := sorted(set(given) - set(known)):
                raise ValueError(f"config.{section + '.' if section else ''}{unknown[0]}: unknown field; expected some of {', '.join(known)}")
        for key, rule in rules.items():
            value = _field(config, key)
            rule(f"config.{key}", value.to_dict() if isinstance(value, ml_collections.ConfigDict) else value)


def _field(config, key):
    for part in filter(None, key.split(".")):
        if not isinstance(config, ml_collections.ConfigDict):
            raise TypeError(f"config.{key.rpartition('.')[0]}={config!r}: expected a section with {part!r}")
        if part not in config:
            raise KeyError(f"config.{key} is missing: expected every key of configs/base.py")
        config = config[part]
    return config


def _of(choices):
    return lambda name, value: checks.choice(name, value, choices)


def _all_of(choices, least=0):
    return lambda name, value: sequence(name, value, _of(choices), least)


_any_count = functools.partial(count, low=0)
_optional_count = functools.partial(count, low=0, optional=True)
_seed = functools.partial(count, low=0, high=SEEDS - 1)


def _decay(name, value):
    if not 0 <= checks.number(name, value) < 1:
        raise ValueError(f"{name}={value}: expected 0 (no average) or a decay below 1")


def _corruptions(name, value):
    text(name, value)
    try:
        corrupted.names(value)
    except ValueError as error:
        raise ValueError(f"{name}={value!r}: {error}") from error


def _step(name, value):
    text(name, value)
    if value not in ("best", "latest") and not value.isdecimal():
        raise ValueError(f"{name}={value!r}: expected 'best', 'latest' or the number of a step")


_positive = functools.partial(number, low=0)
_above_zero = functools.partial(number, above=0)
_fraction = functools.partial(number, low=0, high=1)
_below_one = functools.partial(number, low=0, below=1)
_name = functools.partial(text, required=True)
_names = functools.partial(sequence, rule=_name)
_counts = functools.partial(sequence, rule=count)

RUN_CLOSED = ("extra", "loader", "mix", "preprocessing", "init", "optimizer", "schedule", "skips", "validation", "checkpoints", "profile",
              "watchdog", "evaluation", "evaluation.curve", "evaluation.corruptions", "evaluation.calibration", "evaluation.states", "data", "model")
RUN = {
    "seed": _seed, "epochs": _any_count, "batch_size": _any_count, "log_every": count, "wandb": text, "weights": text,
    "data.name": _name, "data.root": text, "data.options": _options,
    "extra.name": _name, "extra.root": text, "extra.fraction": _below_one, "extra.options": _options,
    "repeats": count, "transform.name": _of(("none", *data.transforms.names(), *data.transforms.joint.names())),
    "loader.workers": functools.partial(count, low=0, high=1024), "loader.threads": functools.partial(count, low=0, high=1024),
    "loader.max_bad": _any_count, "augment.name": _name,
    "mix.mixup": _positive, "mix.cutmix": _positive, "mix.probability": _fraction, "mix.switch_probability": _fraction, "mix.mode": _of(mix.MODES),
    "mix.correct_lam": checks.flag, "mix.label_smoothing": _below_one,
    "model.name": _name, "model.overrides": _options,
    "preprocessing.mean": functools.partial(sequence, rule=number, least=1), "preprocessing.std": functools.partial(sequence, rule=_above_zero, least=1),
    "init.checkpoint": text, "init.step": _step, "init.head": _of(HEADS), "init.weights": text, "init.freeze": _of(("", "backbone")),
    "objective.name": _of((*OBJECTIVES, "repair")), "objective.label_smoothing": _below_one, "objective.accumulate": count, "objective.ramp": _fraction,
    "objective.ramp_epochs": _positive, "objective.replays": count,
    "optimizer.name": _of(OPTIMIZERS), "optimizer.weight_decay": _positive, "optimizer.decay_rule": _of(weight_decay.RULES),
    "optimizer.b1": _below_one, "optimizer.b2": _below_one, "optimizer.eps": _above_zero, "optimizer.momentum": _below_one,
    "optimizer.nesterov": checks.flag, "optimizer.clip_norm": functools.partial(number, above=0, optional=True),
    "optimizer.layer_decay": functools.partial(number, above=0, below=1, optional=True), "optimizer.mu_dtype": _of((None, *DTYPES)),
    "schedule.name": _of(schedules.SCHEDULES), "schedule.learning_rate": _positive, "schedule.warmup": _fraction, "schedule.warmup_epochs": _positive,
    "schedule.warmup_start": _positive, "schedule.cooldown": _fraction, "schedule.cooldown_epochs": _positive, "schedule.end": _positive,
    "schedule.boundaries": functools.partial(sequence, rule=_fraction), "schedule.factor": _positive,
    "ema_decay": _decay, "phases": phases.check, "sharding": _of(SHARDINGS), "reduce_dtype": _of(("", *DTYPES)), "skips.in_a_row": _optional_count, "skips.in_all": _optional_count,
    "validation.every_epochs": count, "validation.limit": _any_count, "validation.select": _of((*VALIDATION, *DENSE_VALIDATION, *DETECTION_VALIDATION)), "validation.attack": _options,
    "checkpoints.keep": count, "profile.first": count, "profile.steps": _any_count, "watchdog.factor": _positive, "watchdog.least": _above_zero,
    "evaluation.split": _name, "evaluation.batch_size": count, "evaluation.seed": _seed, "evaluation.examples": _any_count,
    "evaluation.limit": _any_count, "evaluation.autoattack": _of(("", *VERSIONS)), "evaluation.attacks": _options,
    "evaluation.skip_attacks": checks.flag, "evaluation.corruptions.names": _corruptions,
    "evaluation.corruptions.severities": functools.partial(sequence, rule=functools.partial(count, high=5), least=1), "evaluation.calibration.bins": _any_count,
    "evaluation.states.images": _any_count,
    "evaluation.curve.attack": text, "evaluation.curve.radii": functools.partial(sequence, rule=_positive)}

KINDS = ("clean", "attack", "curve", "components", "disturbance", "corruption", "shift", "trajectory", "centre")  # of a study's probes
STUDY = {
    "seed": _seed, "models": _names, "train": _options, "data.name": _name, "data.root": text, "data.split": _name, "data.options": _options,
    "data.limit": _any_count, "batch_size": count, "margin": _fraction, "example": _any_count, "probes": _options}

ANALYSIS_PARTS = ("receptive_field", "attention", "statistics")
ANALYSIS = {
    "seed": _seed, "models": _names, "steps": functools.partial(sequence, rule=_saved_step), "data.name": _name, "data.root": text, "data.split": _name,
    "data.options": _options, "data.limit": _any_count, "batch_size": count, "parts": _all_of(ANALYSIS_PARTS, least=1),
    "receptive_field.images": count, "receptive_field.shares": functools.partial(sequence, rule=functools.partial(number, above=0, high=1), least=1),
    "attention.photos": count, "attention.block": functools.partial(count, low=-1), "attention.queries": functools.partial(sequence, rule=_query, least=1),
    "statistics.images": count}

BENCHMARK_CLOSED = (*PARTS, "against")
BENCHMARK = {
    "seed": _seed, "parts": _all_of(PARTS, least=1), "devices": _any_count, "repeats": count, "seconds": _above_zero, "operations": _any_count,
    "copy_mib": functools.partial(count, high=2 ** 20),
    "scan.operations": _all_of(("selective_scan", "cross_selective_scan")), "scan.backends": _all_of(("pallas", "xla", "reference", "associative")),
    "scan.passes": _all_of(("forward", "gradient")), "scan.shapes": functools.partial(sequence, rule=_shape), "scan.states": _counts,
    "scan.batches": _counts, "scan.dtype": _of(DTYPES),
    "models.names": _names, "models.overrides": _options, "models.variants": _names,
    "models.passes": _all_of(PASSES), "models.batches": _counts, "models.size": count,
    "models.dtypes": _all_of(DTYPES), "models.attack": _options, "models.optimizer.name": _of(OPTIMIZERS),
    "models.optimizer.learning_rate": _positive, "models.optimizer.weight_decay": _positive,
    "memory.names": _names, "memory.variants": _names, "memory.batch": count, "memory.size": count, "memory.dtype": _of(DTYPES),
    "growth.names": _names, "growth.passes": _all_of(PASSES), "growth.sizes": _counts, "growth.batch": count,
    "growth.dtype": _of(DTYPES),
    "ladder.names": _names, "ladder.models": _options, "ladder.passes": _all_of(PASSES), "ladder.batch": count, "ladder.size": count,
    "ladder.dtype": _of(DTYPES),
    "attacks.models": _names, "attacks.attacks": _names, "attacks.images": count, "attacks.batch": count, "attacks.size": count,
    "attacks.eps": _positive,
    "scaling.models": _options, "scaling.devices": _counts, "scaling.batch": count, "scaling.size": count, "scaling.attack": _options,
    "training.models": _options, "training.attack": _options,
    "corruptions.names": _names, "corruptions.severity": functools.partial(count, high=5), "corruptions.batch": count, "corruptions.size": count,
    "corruptions.package_images": count,
    "compile.models": _names, "compile.backends": _names, "compile.platforms": _all_of(("cpu", "tpu", "cuda")), "compile.size": count,
    "compile.first_steps": _names, "compile.batch": count, "compile.repeats": count,
    "sequences.layers": _names, "sequences.lengths": _counts, "sequences.passes": _all_of(("forward", "gradient", "kernel", "convolution")), "sequences.batch": count,
    "sequences.width": count, "sequences.states": count,
    "against.models": _names, "against.passes": _all_of(PASSES)}
