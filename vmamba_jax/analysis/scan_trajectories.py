"""Another trajectory: the model reads the image in an order it was not trained with, or the image lies in another order under the model's own."""
import jax

from vmamba_jax.core import scan_orders
from vmamba_jax.evaluation.accuracy import accuracy
from vmamba_jax.evaluation.disturbances import PatchReorder
from vmamba_jax.evaluation.disturbances.accuracy import compared, disturbed_accuracy
from vmamba_jax.evaluation.loop import Loop
from vmamba_jax.models.classifier import as_classifier, logits_fn

CHANGES = ("scan", "image")
ORDERS = ("reversed", "columns", "snake", "blocks", "random")
TRAINED = ("cross", "rows")  # of VMamba and Vim: what an order may take the place of


def trajectory_accuracy(classifier, variables, source, *, orders=ORDERS, changes=CHANGES, grid=14, **loop):
    """Accuracy with the order of visit replaced: in the model, with the image untouched, and in the image, with the model untouched.

    Where a model depended on nothing but the order in which it meets the patches, both would cost the same. VMamba visits crosswise the map
    re-labelled by the order (see `core.scan_orders.routes`), in every block; Vim reads its patches in that order, each with its own position
    embedding. After Du, Li, Xu (arXiv 2403.10935), who interrupt the trajectory.

    Args:
        classifier: a `Classifier`, a Linen module or a catalog name.
        variables: its variables.
        orders: of `disturbances.Order`: kinds, dicts of fields or instances.
        changes: "scan" (models with a `scan_pattern`, which must be the trained "cross" or "rows") and "image" (any model).
        grid: patches a side, or (rows, columns), that the image is cut into to be put into another order; must divide its sides.
        source, batch_size, mesh: as of `robust_accuracy`.
        progress: called as progress(images done, images in all, figures so far), over all rows together.

    Returns rows: {"change", "order", "grid" (of "image")} and the figures of `disturbed_accuracy`.
    """
    loop, classifier = Loop(**loop), as_classifier(classifier)
    orders, changes = [scan_orders.get(order) for order in orders], (changes,) if isinstance(changes, str) else tuple(changes)
    if not changes or set(changes) - set(CHANGES):
        raise ValueError(f"changes={changes!r}: expected some of {', '.join(map(repr, CHANGES))}")
    pattern = getattr(classifier.model, "scan_pattern", None)
    if "scan" in changes and not (isinstance(pattern, str) and pattern in TRAINED):
        raise ValueError(f"changes={changes!r} of model {type(classifier.model).__name__} with scan_pattern={pattern!r}: expected a model that scans "
                         f"{' or '.join(map(repr, TRAINED))}, or changes=('image',)")
    disturbances = [PatchReorder(grid, order=order) for order in orders]
    passes, rows = 1 + len(orders) * len(changes), []
    fn = logits_fn(classifier, variables)
    clean = accuracy(fn, source, **vars(loop.part(0, passes)))["correct"]
    for order, disturbance in zip(orders, disturbances, strict=True):
        for change in changes:
            row, number = {"change": change, "order": order.settings}, 1 + len(rows)
            if change == "scan":
                other = logits_fn(classifier.model.clone(scan_pattern=order), variables, classifier.mean, classifier.std)
                after = accuracy(other, source, **vars(loop.part(number, passes, "disturbed_accuracy")))["correct"]
                rows.append(row | compared(clean, after))
            else:
                found = disturbed_accuracy(fn, source, disturbance, key=jax.random.key(0), clean=clean, **vars(loop.part(number, passes)))
                rows.append(row | {"grid": found.pop("disturbance")["grid"]} | found)
    return rows
