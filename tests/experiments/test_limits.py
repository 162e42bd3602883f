"""Every key of configs/base.py with values of wrong types, zeros, negatives, NaN and huge numbers: one line that names the key, before anything is built."""
import copy
import math

import ml_collections
import pytest

from configs import base, benchmark, digits, robustness_study
from experiments.common import cli, limits
from experiments.robustness_study import probes
from experiments.sweeps import plan

TRIED = {
    "text": "nosuch", "empty": "", "none": None, "list": [], "dict": {}, "object": object(), "true": True, "zero": 0, "minus": -1, "half": 0.5, "two": 2,
    "minus_half": -0.5, "nan": math.nan, "inf": math.inf, "huge": 10 ** 20, "huge_float": 1e300, "nan_list": [math.nan], "text_list": ["nosuch"],
    "minus_list": [-1]}
COUNT, COUNT_0 = {"two"}, {"zero", "two"}
POSITIVE, FRACTION, BELOW_ONE = {"zero", "half", "two", "huge"}, {"zero", "half"}, {"zero", "half"}
TEXT, NAME, SECTION, NONE = {"text", "empty"}, {"text"}, {"dict"}, set()
RUN = {
    "seed": COUNT_0, "epochs": COUNT_0, "batch_size": COUNT_0, "log_every": COUNT, "wandb": TEXT, "weights": TEXT,
    "data.name": NAME, "data.root": TEXT, "data.options": SECTION, "extra.name": NAME, "extra.root": TEXT, "extra.fraction": BELOW_ONE,
    "extra.options": SECTION, "repeats": COUNT, "transform.name": NONE, "loader.workers": COUNT_0, "loader.threads": COUNT_0, "loader.max_bad": COUNT_0,
    "augment.name": NAME, "mix.mixup": POSITIVE, "mix.cutmix": POSITIVE, "mix.probability": FRACTION, "mix.switch_probability": FRACTION,
    "mix.mode": NONE, "mix.correct_lam": {"true"}, "mix.label_smoothing": BELOW_ONE, "model.name": NAME, "model.overrides": SECTION,
    "preprocessing.mean": {"minus_list"}, "preprocessing.std": NONE,
    "init.checkpoint": TEXT, "init.step": NONE, "init.head": NONE, "init.weights": TEXT, "init.freeze": {"empty"}, "objective.name": NONE, "objective.label_smoothing": BELOW_ONE,
    "objective.accumulate": COUNT, "objective.attack": SECTION, "objective.ramp": FRACTION, "objective.ramp_epochs": POSITIVE,
    "objective.replays": COUNT, "optimizer.name": NONE, "optimizer.weight_decay": POSITIVE, "optimizer.decay_rule": NONE,
    "optimizer.b1": BELOW_ONE, "optimizer.b2": BELOW_ONE, "optimizer.eps": {"half", "two", "huge"}, "optimizer.momentum": BELOW_ONE,
    "optimizer.nesterov": {"true"}, "optimizer.clip_norm": {"none", "half", "two", "huge"}, "optimizer.layer_decay": {"none", "half"}, "optimizer.mu_dtype": {"none"}, "phases": {"list"}, "sharding": NONE, "reduce_dtype": {"empty"},
    "schedule.name": NONE, "schedule.learning_rate": POSITIVE, "schedule.warmup": FRACTION, "schedule.warmup_epochs": POSITIVE, "schedule.warmup_start": POSITIVE,
    "schedule.cooldown": FRACTION, "schedule.cooldown_epochs": POSITIVE, "schedule.end": POSITIVE, "schedule.boundaries": {"list"}, "schedule.factor": POSITIVE, "ema_decay": BELOW_ONE,
    "skips.in_a_row": {"none", *COUNT_0}, "skips.in_all": {"none", *COUNT_0}, "validation.every_epochs": COUNT, "validation.limit": COUNT_0,
    "validation.select": NONE, "validation.attack": SECTION, "checkpoints.keep": COUNT, "profile.first": COUNT,
    "profile.steps": COUNT_0, "watchdog.factor": POSITIVE, "watchdog.least": {"half", "two", "huge"}, "evaluation.split": NAME, "evaluation.batch_size": COUNT,
    "evaluation.seed": COUNT_0, "evaluation.examples": COUNT_0, "evaluation.limit": COUNT_0, "evaluation.autoattack": {"empty"},
    "evaluation.attacks": SECTION, "evaluation.curve.attack": TEXT, "evaluation.skip_attacks": {"true"}, "evaluation.corruptions.names": {"empty"},
    "evaluation.corruptions.severities": NONE, "evaluation.calibration.bins": COUNT_0, "evaluation.states.images": COUNT_0, "evaluation.curve.radii": {"list"}}
STUDY = {"seed": COUNT_0, "models": {"list", "text_list"}, "train": SECTION, "data.name": NAME, "data.root": TEXT, "data.split": NAME,
         "data.options": SECTION, "data.limit": COUNT_0, "batch_size": COUNT, "margin": FRACTION, "example": COUNT_0, "probes": SECTION}
NAMES, LIST = {"list", "text_list"}, {"list"}
BENCHMARK = {
    "seed": COUNT_0, "parts": NONE, "devices": COUNT_0, "repeats": COUNT, "seconds": {"half", "two", "huge"}, "operations": COUNT_0, "copy_mib": COUNT,
    "scan.operations": LIST, "scan.backends": LIST, "scan.passes": LIST, "scan.shapes": LIST, "scan.states": LIST, "scan.batches": LIST,
    "scan.dtype": NONE, "models.names": NAMES, "models.overrides": SECTION, "models.variants": NAMES, "models.passes": LIST, "models.batches": LIST,
    "models.size": COUNT, "models.dtypes": LIST, "models.attack": SECTION, "models.optimizer.name": NONE, "models.optimizer.learning_rate": POSITIVE,
    "models.optimizer.weight_decay": POSITIVE, "memory.names": NAMES, "memory.variants": NAMES, "memory.batch": COUNT, "memory.size": COUNT,
    "memory.dtype": NONE, "growth.names": NAMES, "growth.passes": LIST, "growth.sizes": LIST, "growth.batch": COUNT, "growth.dtype": NONE,
    "ladder.names": NAMES, "ladder.models": SECTION, "ladder.passes": LIST, "ladder.batch": COUNT, "ladder.size": COUNT, "ladder.dtype": NONE,
    "attacks.models": NAMES, "attacks.attacks": NAMES, "attacks.images": COUNT, "attacks.batch": COUNT, "attacks.size": COUNT, "attacks.eps": POSITIVE,
    "scaling.models": SECTION, "scaling.devices": LIST, "scaling.batch": COUNT, "scaling.size": COUNT, "scaling.attack": SECTION,
    "training.models": SECTION, "training.attack": SECTION, "corruptions.names": NAMES, "corruptions.severity": COUNT, "corruptions.batch": COUNT, "corruptions.size": COUNT,
    "corruptions.package_images": COUNT, "compile.models": NAMES, "compile.backends": NAMES, "compile.platforms": LIST, "compile.size": COUNT,
    "compile.first_steps": NAMES, "compile.batch": COUNT, "compile.repeats": COUNT, "sequences.layers": NAMES, "sequences.lengths": LIST, "sequences.passes": LIST,
    "sequences.batch": COUNT, "sequences.width": COUNT, "sequences.states": COUNT, "against.models": NAMES, "against.passes": LIST}


def keys(section, free, prefix=""):
    """Dotted names of the values of a config; a section that accepts any key counts as one value."""
    for name, value in section.items():
        if isinstance(value, dict) and name not in free and value:
            yield from keys(value, free, f"{prefix}{name}.")
        else:
            yield prefix + name


def check_run(fields):
    with cli.checking():
        config = base.complete(fields)
    limits.check_run(config)


CONFIGS = {
    "run": (digits.get_config("objective=standard"), base.run(), RUN, check_run),
    "study": (robustness_study.get_config(), base.study(), STUDY, lambda fields: limits.check_study(ml_collections.ConfigDict(fields))),
    "benchmark": (benchmark.get_config(), base.benchmark(), BENCHMARK, lambda fields: limits.check_benchmark(ml_collections.ConfigDict(fields)))}


def changed(config, key, value):
    fields = copy.deepcopy(config.to_dict())
    section = fields
    *path, name = key.split(".")
    for part in path:
        section = section[part]
    section[name] = value
    return fields


@pytest.mark.parametrize("which", CONFIGS)
def test_every_key(which):
    config, neutral, expected, check = CONFIGS[which]
    check(config.to_dict())
    assert set(keys(neutral.to_dict(), ())) == set(expected), "a key of configs/base.py without its range here"
    for key, accepted in expected.items():
        for tried, value in TRIED.items():
            try:
                check(changed(config, key, value))
                got = True
            except cli.ConfigError as error:
                text, got = str(error), False
                assert "\n" not in text and text.startswith(f"config.{key}") and "expected" in text, (key, tried, text)
            assert got == (tried in accepted), (key, tried)


@pytest.mark.parametrize("which", CONFIGS)
def test_sections_and_unknown_keys(which):
    config, neutral, _, check = CONFIGS[which]
    for section, fields in neutral.to_dict().items():
        if not isinstance(fields, dict):
            continue
        for value in (3, "text", None, [1]):
            with pytest.raises(cli.ConfigError, match=f"config.{section}"):
                check(changed(config, section, value))
        closed = {"run": limits.RUN_CLOSED, "study": ("data",), "benchmark": limits.BENCHMARK_CLOSED}[which]
        if section in closed:
            with pytest.raises(cli.ConfigError, match=f"config.{section}.nosuch: unknown field; expected some of "):
                check(changed(config, f"{section}.nosuch", 1))
    with pytest.raises(cli.ConfigError, match="config.nosuch: unknown field"):
        check(changed(config, "nosuch", 1))


def test_attacks_that_are_no_sections():
    with pytest.raises(cli.ConfigError, match="config.evaluation.attacks.pgd=3: expected a section"):
        check_run(changed(digits.get_config(), "evaluation.attacks.pgd", 3))
    with pytest.raises(cli.ConfigError, match="config.probes.clean=3: expected a section"):
        limits.check_study(ml_collections.ConfigDict(changed(robustness_study.get_config(), "probes.clean", 3)))
    with pytest.raises(cli.ConfigError, match="config.probes.clean: kind='nosuch': expected one of 'clean', 'attack'"):
        limits.check_study(ml_collections.ConfigDict(changed(robustness_study.get_config(), "probes.clean.kind", "nosuch")))
    assert tuple(probes.KINDS) == limits.KINDS


def test_every_group_of_a_sweep():
    config = ml_collections.ConfigDict({"base": digits.get_config(), "runs": {"a": {}, "b": {"log_every": 0}}, "axes": {}, "seeds": (0,), "control": "",
                                        "margin": 0.01, "title": "", "about": ""})
    with pytest.raises(cli.ConfigError, match="config of group 'b'.*config.log_every=0: expected at least 1"):
        plan.expand(config)
    config.runs = {"a": {}}
    for seeds in ((-1,), (10 ** 20,), (0.5,)):
        config.seeds = seeds
        with pytest.raises(cli.ConfigError, match="config.seeds="):
            plan.expand(config)
