"""A result as plain JSON, with how far its figures are to be trusted."""
import math

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson_interval(successes, examples, z=Z95):
    """[low, high] of a share, Wilson's score interval (Wilson 1927); 95 % by default."""
    if examples < 1 or not 0 <= successes <= examples:
        raise ValueError(f"successes={successes}, examples={examples}: expected 0 <= successes <= examples, examples >= 1")
    p, w = successes / examples, z * z / examples
    centre, half = (p + w / 2) / (1 + w), math.sqrt(p * (1 - p) * w + w * w / 4) / (1 + w)
    return [max(0.0, centre - half), min(1.0, centre + half)]


def summary(result):
    """A result of `accuracy` or `robust_accuracy` without its arrays, with a 95 % interval beside each accuracy: ready for JSON."""
    row = {}
    for name, value in result.items():
        if isinstance(value, np.ndarray):
            continue
        row[name] = value
        if name in ("accuracy", "robust_accuracy"):
            row[f"{name}_interval"] = wilson_interval(round(value * result["examples"]), result["examples"])
    return row
