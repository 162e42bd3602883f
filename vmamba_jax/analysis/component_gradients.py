"""Component-wise gradients of a selective scan: robust accuracy with and without the gradient of one component."""
import dataclasses

import numpy as np
from jax.tree_util import Partial

from vmamba_jax.core.closures import argument
from vmamba_jax.core.results import Result
from vmamba_jax.core.statistics import paired_interval, summary
from vmamba_jax.evaluation.accuracy import robust_accuracy
from vmamba_jax.evaluation.loop import Loop
from vmamba_jax.models.classifier import Classifier, as_classifier, logits_fn
from vmamba_jax.models.layers import probes

COMPONENTS = ("B", "C", "delta", "A_bar", "B_bar_delta")


def component_gradients(classifier, variables, source, attack, *, key, components=COMPONENTS, blocks=None, **loop) -> Result:
    """Robust accuracy of a state space model when the attack cannot use the gradient of one component of its scans.

    The forward pass is bit-identical, so only the attack's gradients change; the images are classified by the unblocked model.

    Args:
        classifier: a `Classifier`, a Linen module or a catalog name; its model has `stop_gradients`, and `stop_blocks` if `blocks` is
            given.
        variables: the model's variables.
        source, attack, key, loop: as for `robust_accuracy`; every run uses the same random numbers, and progress counts all runs.
        components: names from `probes.STOPPABLE`, blocked one at a time. A is a parameter and is blocked as A_bar = exp(delta A); delta is
            blocked everywhere, or as B_bar_delta only in delta B.
        blocks: None: all blocks at once; "stages": one stage after another; "blocks": one block after another; or a sequence of values of
            the model's `stop_blocks`, such as ((0,), (1, 2), ((3, 0),)).

    Returns:
        Plain JSON: the row of `summary` for the full gradient, and "components": one row per component and value of `stop_blocks`,
        {"component", "blocks" (None: all), "robust_accuracy", "difference", "difference_interval" (95 %), "gained", "lost"}. The difference
        is blocked minus full: positive if the component's gradient makes the attack stronger, negative if it makes the attack weaker.
        "gained" counts the images robust only with the component blocked, "lost" those robust only without.

    Source: Du, Li, Xu, arXiv 2403.10935, whose own definitions are unpublished.
    """
    loop, classifier = Loop(**loop), as_classifier(classifier)
    probes.check_names("components", components, probes.STOPPABLE)
    places = _places(classifier.model, blocks)
    blocked = [(name, place, _blocked(classifier, name, place)) for name in components for place in places]
    fn = logits_fn(classifier, variables)

    def run(i, attack):
        return robust_accuracy(fn, source, attack, key=key, **vars(loop.part(i, 1 + len(blocked))))

    full = run(0, attack)
    rows = [_row(name, place, full, run(i, Partial(through, argument(attack)))) for i, (name, place, through) in enumerate(blocked, 1)]
    return Result(summary(full) | {"components": rows})


@dataclasses.dataclass(frozen=True)
class _Through:
    """An attack whose gradients come from `classifier`, with the weights of the attacked model."""
    classifier: Classifier

    def __call__(self, attack, logits_fn, images, labels, keys):
        variables, = logits_fn.args
        return attack(lambda x: self.classifier(variables, x), images, labels, keys)


def _blocked(classifier, name, place):
    where = {} if place is None else {"stop_blocks": place}
    return _Through(dataclasses.replace(classifier, model=classifier.model.clone(stop_gradients=(name,), **where)))


def _places(model, blocks):
    """Values of `stop_blocks`, in the order of the rows."""
    needed = ["stop_gradients"] + ["stop_blocks"] * (blocks is not None)
    if missing := [field for field in needed if not hasattr(model, field)]:
        raise ValueError(f"model {type(model).__name__} has no {missing[0]}: expected a state space model with that field")
    if blocks is None:
        return [None]
    stages = range(len(model.depths))
    match blocks:
        case "stages":
            return [(i,) for i in stages]
        case "blocks":
            return [((i, j),) for i in stages for j in range(model.depths[i])]
        case str():
            raise ValueError(f"blocks={blocks!r}: expected None, 'stages', 'blocks' or a sequence of values of stop_blocks")
    places = [None if place is None else tuple(place) for place in blocks]
    for place in places:
        probes.chosen_blocks("blocks", place, model.depths)
    return places


def _row(name, place, full, blocked):
    gained, lost = (int(np.sum(a & ~b)) for a, b in ((blocked["robust"], full["robust"]), (full["robust"], blocked["robust"])))
    n = full["examples"]
    return {"component": name, "blocks": None if place is None else [list(entry) if isinstance(entry, tuple) else entry for entry in place],
            "robust_accuracy": blocked["robust_accuracy"], "difference": (gained - lost) / n,
            "difference_interval": paired_interval(gained, lost, n), "gained": gained, "lost": lost}
