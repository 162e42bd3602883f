"""Shared by the families: leaf names, renaming rules, checks of options."""
import re

import numpy as np

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def dotted(path):
    """Original name of a path that differs only in the leaf's name and the `_` of numbered modules: blocks_3/norm1/scale -> blocks.3.norm1.weight."""
    return ".".join(re.sub(r"_(\d+)$", r".\1", LEAVES.get(part, part)) for part in path)


def rename(state_dict, rules):
    """The state dict with every name rewritten by the rules (pattern, replacement) in turn.

    Raises:
        ValueError: two names become equal.
    """
    renamed = {}
    for name, x in state_dict.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = x
    if len(renamed) != len(state_dict):
        raise ValueError(f"state_dict=dict of {len(state_dict)} names: expected one spelling of every weight, not {len(state_dict) - len(renamed)} in two")
    return renamed


def complete(name, family, options, part=""):
    """Every option of a family: those given, and the defaults of the others.

    Args:
        name: the family's name, for the message.
        family: the family's file.
        options: {option: value}.
        part: what the options are of inside a larger model, for the message; "": of the model itself.

    Raises:
        ValueError: an unknown option, or a value other than the only supported one.
    """
    unknown = [option for option in options if option not in family.DEFAULTS]
    if unknown:
        given = ", ".join(f"{option}={options[option]!r}" for option in unknown)
        raise ValueError(f"{f'{part}: ' if part else ''}{given}: expected options of {name}: {', '.join(family.DEFAULTS)}")
    options = {**family.DEFAULTS, **options}
    for option in family.FIXED:
        if options[option] != family.DEFAULTS[option]:
            raise ValueError(f"{f'{part}.' if part else ''}{option}={options[option]!r}: expected {family.DEFAULTS[option]!r}, the only supported value")
    return options


def single(options, name):
    """The one number of an option that the original also accepts per side or stage; a ValueError if its numbers differ."""
    numbers = np.ravel(options[name]).tolist()
    if len(set(numbers)) != 1:
        raise ValueError(f"{name}={options[name]!r}: expected one number for all sides and stages")
    return numbers[0]


def at_most_four(options, *names):
    """Raise a ValueError if one of the options has more than four stages; timm ignores the others."""
    for name in names:
        if len(options[name]) > 4:
            raise ValueError(f"{name}={options[name]!r}: expected at most four stages, as in timm")
