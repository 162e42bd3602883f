"""What the families' files share: leaf names, renaming rules, checks of options."""
import re

import numpy as np

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def dotted(path):
    """The original's spelling where ours differs by the leaf's name and the `_` of numbered modules only: blocks_3/norm1/scale -> blocks.3.norm1.weight."""
    return ".".join(re.sub(r"_(\d+)$", r".\1", LEAVES.get(part, part)) for part in path)


def rename(state_dict, rules):
    """Every name put through the rules (pattern, replacement) in turn.

    Raises:
        ValueError: two names become one.
    """
    renamed = {}
    for name, x in state_dict.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = x
    if len(renamed) != len(state_dict):
        raise ValueError("state_dict has two spellings of the same weight; expected either the old names or the new ones")
    return renamed


def single(options, name):
    """An option that the original takes per side or stage too: its one number, or a ValueError where they differ."""
    numbers = np.ravel(options[name]).tolist()
    if len(set(numbers)) != 1:
        raise ValueError(f"{name}={options[name]!r}; expected one number for all sides and stages")
    return numbers[0]
