"""Which parts of a selective scan an attacker's gradient comes through: robust accuracy with a part's gradient blocked, less that without."""
import dataclasses

import numpy as np
from jax.tree_util import Partial

from vmamba_jax.core.statistics import paired_interval, summary
from vmamba_jax.evaluation.accuracy import robust_accuracy
from vmamba_jax.evaluation.loop import Loop, argument
from vmamba_jax.models.classifier import Classifier, as_classifier, logits_fn
from vmamba_jax.models.layers import probes

COMPONENTS = ("B", "C", "delta", "A_bar", "B_bar_delta")


def component_gradients(classifier, variables, source, attack, *, key, components=COMPONENTS, blocks=None, **loop):
    """Attack a state space model with the gradient of one part blocked, judge the unblocked model, and compare with the full gradient.

    The forward pass is the same to the bit, so only where the attack looks for its way changes. After Du, Li, Xu (arXiv 2403.10935), whose own
    definitions are unpublished: A, a parameter, is cut as A_bar = exp(delta A); delta everywhere or, as B_bar_delta, in delta B only.

    Args:
        classifier: a `Classifier`, a Linen module or a catalog name; its model has `stop_gradients`, and `stop_blocks` where `blocks` is given.
        variables: its variables.
        source, attack, key, batch_size, mesh: as of `robust_accuracy`; every run draws the same random numbers.
        components: names of `states.STOPPABLE`, one blocked at a time.
        blocks: where: None, in all blocks at once; "stages", in one stage after the other; "blocks", in one block after the other; or a
            sequence of what the model's `stop_blocks` takes, ((0,), (1, 2), ((3, 0),)).
        progress: called as progress(images done, images in all, figures so far), over all runs together.

    Returns a dict ready for JSON: the row of `summary` for the full gradient, and
        "components": one row for each component and place, {"component", "blocks" (None: all), "robust_accuracy", "difference", its
            "difference_interval" of 95 %, "gained", "lost"}.
    The difference is blocked less full: above 0, the part's gradient helps the attacker; below, following it misleads him. Gained are the images
    robust only with the part blocked, lost those robust only without.
    """
    loop, classifier = Loop(**loop), as_classifier(classifier)
    probes.check_names("components", components, probes.STOPPABLE)
    places = _places(classifier.model, blocks)
    cuts = [(name, place, _blocked(classifier, name, place)) for name in components for place in places]
    fn = logits_fn(classifier, variables)

    def run(i, attack):
        return robust_accuracy(fn, source, attack, key=key, **vars(loop.part(i, 1 + len(cuts))))

    full = run(0, attack)
    rows = [_row(name, place, full, run(i, Partial(cut, argument(attack)))) for i, (name, place, cut) in enumerate(cuts, 1)]
    return summary(full) | {"components": rows}


@dataclasses.dataclass(frozen=True)
class _Through:
    """An attack that takes its gradients from `classifier`, with the weights of the model it is asked to attack."""
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
        raise ValueError(f"model {type(model).__name__} has no {missing[0]}: expected a state space model that has")
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
