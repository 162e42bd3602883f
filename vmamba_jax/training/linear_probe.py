"""Training of the head alone, on a frozen backbone."""
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax


def linear_probe(classifier, optimizer, head=None):
    """(classifier, optimizer) for an objective that trains the head alone; every other parameter keeps its bits.

    Weight decay and momentum do not move the backbone either, and in training it runs as in evaluation: no drop path, no dropout, stored batch
    statistics. Attacks differentiate through it as before.

    Args:
        classifier: as of `objectives.pgd_at`.
        optimizer: optax transformation.
        head: top-level name of the trained parameters; None: that of the model's dense layer of the logits.

    Raises:
        TypeError: head=None with a model that is not of the catalog's families.
    """
    head = getattr(getattr(classifier.model, "PARAMETERS", None), "logits", None) if head is None else head
    if head is None:
        raise TypeError(f"head=None with model={type(classifier.model).__name__}: expected the top-level name of the trained parameters")
    return FrozenBackbone(classifier, head), freeze(optimizer, head)


def freeze(optimizer, head):
    """An optax transformation that updates the parameters under the top-level name `head` as `optimizer` does, and no other.

    Its state has the structure of the optimizer's.
    """
    inner = optax.with_extra_args_support(optimizer)

    def update(grads, state, params=None, **extra):
        if head not in grads:
            raise ValueError(f"head={head!r}: expected one of {', '.join(grads)}, the top-level names of the parameters")
        updates, state = inner.update({name: tree if name == head else _zeros(tree) for name, tree in grads.items()}, state, params, **extra)
        return {name: tree if name == head else _zeros(tree) for name, tree in updates.items()}, state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


@dataclasses.dataclass(frozen=True)
class FrozenBackbone:
    """A classifier whose logits have a derivative with respect to the images and the head's parameters only.

    Attributes:
        classifier: called as (variables, images, train=..., rngs=..., mutable=...).
        head: top-level name of the trained parameters.
    """
    classifier: Any
    head: str

    model = property(lambda self: self.classifier.model)

    def init(self, key, image_shape):
        """As the classifier's."""
        return self.classifier.init(key, image_shape)

    def __call__(self, variables, images, *, train=False, rngs=None, mutable=False):
        """Logits of the classifier in evaluation, whatever `train`."""
        del train
        params = {name: tree if name == self.head else jax.lax.stop_gradient(tree) for name, tree in variables["params"].items()}
        return self.classifier({**variables, "params": params}, images, train=False, rngs=rngs, mutable=mutable)


def _zeros(tree):
    """Negative zeros, which added to any number keep its bits: 0.0 would turn -0.0 into 0.0."""
    return jax.tree.map(lambda x: -jnp.zeros_like(x), tree)
