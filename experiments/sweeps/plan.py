"""The runs of a sweep: every group of changes to the base config, with every seed."""
import copy
import dataclasses
import itertools
import json
import re

import ml_collections

from configs import base
from experiments.common import limits
from experiments.common.cli import ConfigError, checking
from vmamba_jax.reports.sweep.claims import SIDES

NAME = re.compile(r"[\w.+=-]+")
FREE = ("overrides", "options", "attacks")  # sections that take any key: fields of a model's module, options of a dataset, named attacks


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run. name: its folder, relative to the sweep's; axes: {axis: value's name} of its group; config: for `train.run` and `evaluate.run`."""
    name: str
    group: str
    axes: dict
    seed: int
    config: ml_collections.ConfigDict


def expand(config):
    """The runs that a config of `configs.sweeps.sweep` describes, seed by seed, in each seed group by group.

    Returns:
        A list of `Planned`.

    Raises:
        ConfigError: no or several kinds of group, an unknown field, a value of another type, a name that is no folder's, repeated seeds.
    """
    for field in ("base", "runs", "axes", "seeds", "control", "margin"):
        if field not in config:
            raise ConfigError(f"config.{field} is missing: expected a sweep's config, see configs/sweeps.py")
    if bool(config.runs) == bool(config.axes):
        raise ConfigError("config.runs and config.axes: expected exactly one of them to name groups")
    groups = _product(config) if config.axes else {name: ({}, [(f"config.runs.{name}", changes)]) for name, changes in _ordered(config.runs).items()}
    with checking():
        limits.sequence("config.seeds", config.seeds, lambda *_: None)
        limits.number("config.margin", config.margin, low=0)
        for name in ("control", "title", "about"):
            limits.text(f"config.{name}", config.get(name, ""))
    seeds = tuple(config.seeds)
    if len(set(seeds)) < len(seeds) or not all(isinstance(seed, int) and 0 <= seed < limits.SEEDS for seed in seeds):
        raise ConfigError(f"config.seeds={seeds}: expected different whole numbers from 0 to {limits.SEEDS - 1}")
    if config.control and config.control not in groups:
        raise ConfigError(f"config.control={config.control!r}: expected one of {', '.join(groups)}")
    for i, claim in enumerate(config.get("claims", ())):
        if len(claim) != 4 or not set(claim[1:3]) <= set(groups) or claim[3] not in SIDES:
            raise ConfigError(f"config.claims[{i}]={tuple(claim)!r}: expected (sentence, group, other group, {' or '.join(SIDES)}), groups of the sweep")
    with checking("config.base"):
        full = base.complete(config.base)
    planned = []
    for seed in seeds or (None,):
        for name, (axes, layers) in groups.items():
            if not NAME.fullmatch(name) or set(name) == {"."}:
                raise ConfigError(f"config.runs: name {name!r}: expected letters, digits and any of _ . + = -")
            changed = copy.deepcopy(full)
            for where, changes in layers:
                apply(changed, changes, where)
            if seed is not None:
                changed.seed = seed
            with checking(f"config of group {name!r}"):
                changed = base.complete(changed)
            try:
                limits.check_run(changed)
            except ConfigError as error:
                raise ConfigError(f"config of group {name!r}: {error}") from error
            planned.append(Planned(name if seed is None else f"{name}/seed_{seed}", name, axes, changed.seed, changed))
    return planned


def apply(config, changes, where):
    """Change fields of a config in place.

    Args:
        config: ConfigDict.
        changes: nested dict. A section whose `name` differs from the config's is replaced as a whole, since its other fields belong to the method of
            that name; so is an empty section. Any other field must be one of the config's.
        where: how errors name the changes, e.g. "config.runs.wide".
    """
    if not isinstance(changes, dict):
        raise ConfigError(f"{where}={changes!r}: expected a dict of fields")
    for field, value in changes.items():
        if field not in config:
            raise ConfigError(f"{where}.{field}: unknown field, expected one of {', '.join(config)}")
        section = config[field]
        if isinstance(section, ml_collections.ConfigDict):
            if not isinstance(value, dict):
                raise ConfigError(f"{where}.{field}={value!r}: expected a dict of fields")
            if field in FREE:
                with section.unlocked():
                    section.update(value)
            elif section and value.get("name", section.get("name")) == section.get("name"):
                apply(section, value, f"{where}.{field}")
            else:
                config[field] = ml_collections.ConfigDict(value)
        else:
            with checking(f"{where}.{field}={value!r}"):
                config[field] = value


def _ordered(section):
    """The fields of a ConfigDict in the order in which they were set, one level deep; `to_dict` and iteration sort them."""
    return {name: section[name].to_dict() if isinstance(section[name], ml_collections.ConfigDict) else section[name] for name in json.loads(section.to_json())}


def _product(config):
    """{group: (its value on each axis, [(place, changes), ...])} of every combination of the axes' values."""
    axes = {axis: _values(f"config.axes.{axis}", config.axes[axis]) for axis in _ordered(config.axes)}
    groups = {}
    for chosen in itertools.product(*(values.items() for values in axes.values())):
        group = "-".join(name for name, _ in chosen)
        if group in groups:
            raise ConfigError(f"config.axes: two groups have the name {group!r}; expected value names whose combinations differ")
        groups[group] = ({axis: name for axis, (name, _) in zip(axes, chosen, strict=True)},
                         [(f"config.axes.{axis}.{name}", changes) for axis, (name, changes) in zip(axes, chosen, strict=True)])
    return groups


def _values(where, section):
    """{name: changes} of one axis, for either form."""
    if not isinstance(section, ml_collections.ConfigDict) or not section:
        raise ConfigError(f'{where}={section!r}: expected {{name: changes}}, or {{"field": name, "values": (...)}}')
    if set(section) != {"field", "values"} or not isinstance(section["field"], str):
        return _ordered(section)
    found = {}
    for value in section["values"]:
        changes = value
        for part in reversed(section["field"].split(".")):
            changes = {part: changes}
        name = re.sub(r"[^\w.+=-]+", "_", f"{section['field'].split('.')[-1]}={value}")
        if name in found:
            raise ConfigError(f"{where}.values: {value!r} is repeated")
        found[name] = changes
    if not found:
        raise ConfigError(f"{where}.values: expected at least one value")
    return found
