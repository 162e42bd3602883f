"""The error for weights that do not fit a model: the differences in short, all of them as attributes."""
import re
from typing import NamedTuple

HEADS = re.compile(r"(^|\.)(?<!pre_logits\.)_?(head|fc|head\.fc2)\.(weight|bias)$")  # of every family
SHOWN = 5  # names of each kind in the message


class Misfit(NamedTuple):
    """How weights differ from those of a model, by original name.

    Attributes:
        missing: {name: expected shape}.
        unexpected: {name: shape}.
        misshapen: {name: (shape, expected shape)}.
        of_another_type: {name: (dtype, accepted dtypes in words)}.
    """
    missing: dict
    unexpected: dict
    misshapen: dict
    of_another_type: dict

    def lines(self, shown=None):
        """One line per kind that is not empty: the count, and at most `shown` names; None: all."""
        texts = {"missing": [f"{name} {shape}" for name, shape in self.missing.items()],
                 "unexpected": [f"{name} {shape}" for name, shape in self.unexpected.items()],
                 "misshapen": [f"{name} is {shape}, expected {wanted}" for name, (shape, wanted) in self.misshapen.items()],
                 "of another type": [f"{name} is {dtype}, expected one of {wanted}" for name, (dtype, wanted) in self.of_another_type.items()]}
        return [f"{len(entries)} {kind}: {'; '.join(entries[:shown])}{'; ...' if len(entries[:shown]) < len(entries) else ''}"
                for kind, entries in texts.items() if entries]


class MisfitError(ValueError):
    """Weights that do not fit a model; the message has at most a few names of each kind.

    Attributes:
        misfit: `Misfit` with every entry.
        details: every entry, one line per kind.
    """

    def __init__(self, model, misfit, told=(), shapes=""):
        self.misfit, self.details = misfit, misfit.lines()
        found = f" (found: {'; '.join(told)})" if told else ""
        first = f"the checkpoint does not fit {type(model).__name__}{found}" + f": {shapes}" * bool(shapes)
        if misfit.misshapen and all(HEADS.search(name) for name in misfit.misshapen) and not (misfit.missing or misfit.unexpected):
            first += '; head="new" or "slice" (config.init.head) gives it another head'
        super().__init__("\n  ".join([f"{first}:", *misfit.lines(SHOWN)]))
