"""Scan trajectories: accuracy with another scan order, in the model with the image unchanged, or in the image with the model unchanged."""
import dataclasses

import jax

from vmamba_jax.core import scan_orders
from vmamba_jax.core.results import Rows
from vmamba_jax.evaluation.accuracy import accuracy
from vmamba_jax.evaluation.disturbances import PatchReorder
from vmamba_jax.evaluation.disturbances.accuracy import compared, disturbed_accuracy
from vmamba_jax.evaluation.loop import Loop
from vmamba_jax.models.classifier import as_classifier, logits_fn

CHANGES = ("scan", "image")
ORDERS = ("reversed", "columns", "snake", "blocks", "random")
TRAINED = ("cross", "rows")  # scan patterns of VMamba and Vim that an order can replace


def trajectory_accuracy(classifier, variables, source, *, orders=ORDERS, changes=CHANGES, grid=14, **loop) -> Rows:
    """Accuracy with the scan order replaced in the model, and with the patches of the image rearranged into that order.

    For a model that depends only on the order in which it reads the patches, both cost the same. VMamba cross-scans the map relabeled by
    the order (see `core.scan_orders.routes`) in every block; Vim reads its patches in that order, each with its own position embedding.

    Args:
        classifier: a `Classifier`, a Linen module or a catalog name.
        variables: the model's variables.
        orders: kinds, dicts of fields or instances of `disturbances.Order`.
        changes: "scan" (models whose `scan_pattern` is the trained "cross" or "rows") and "image" (any model).
        grid: patches per side, or (rows, columns), of the image that is rearranged; must divide its sides.
        source, loop: as for `robust_accuracy`; progress counts all rows.

    Returns:
        Rows {"change", "order", "grid" (only for "image")} with the entries of `disturbed_accuracy`.

    Source: after Du, Li, Xu, arXiv 2403.10935, who interrupt the trajectory.
    """
    loop, classifier = Loop(**loop), as_classifier(classifier)
    orders, changes = [scan_orders.get(order) for order in orders], (changes,) if isinstance(changes, str) else tuple(changes)
    if not changes or set(changes) - set(CHANGES):
        raise ValueError(f"changes={changes!r}: expected some of {', '.join(map(repr, CHANGES))}")
    pattern = getattr(classifier.model, "scan_pattern", None)
    if "scan" in changes and not (isinstance(pattern, str) and pattern in TRAINED):
        raise ValueError(f"changes={changes!r} for model {type(classifier.model).__name__} with scan_pattern={pattern!r}: "
                         f"expected scan_pattern {' or '.join(map(repr, TRAINED))}, or changes=('image',)")
    disturbances = [PatchReorder(grid, order=order) for order in orders]
    passes, rows = 1 + len(orders) * len(changes), []
    fn = logits_fn(classifier, variables)
    clean = accuracy(fn, source, **vars(loop.part(0, passes)))["correct"]
    for order, disturbance in zip(orders, disturbances, strict=True):
        for change in changes:
            row, number = {"change": change, "order": order.settings}, 1 + len(rows)
            if change == "scan":
                other = logits_fn(dataclasses.replace(classifier, model=classifier.model.clone(scan_pattern=order)), variables)
                after = accuracy(other, source, **vars(loop.part(number, passes, "disturbed_accuracy")))["correct"]
                rows.append(row | compared(clean, after))
            else:
                found = disturbed_accuracy(fn, source, disturbance, key=jax.random.key(0), clean=clean, **vars(loop.part(number, passes)))
                rows.append(row | {"grid": found.pop("disturbance")["grid"]} | found)
    return Rows(rows)
