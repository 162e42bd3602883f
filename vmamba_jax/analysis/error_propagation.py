"""Where an adversarial error grows or shrinks in a network: change rates over its components, and the error along the sequence.

A model records its components with `models.layers.probes.component`: the scan, Adaptive Scaling, the linear map, attention, and a whole block.

Source: Qi et al., arXiv 2406.05532, whose definitions are unpublished; ours are those of `feature_errors`.
"""
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from vmamba_jax.core.closures import argument
from vmamba_jax.core.keys import keys_at
from vmamba_jax.core.results import Result
from vmamba_jax.evaluation.loop import Loop, gather, on_mesh
from vmamba_jax.evaluation.sets import enter
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.models.layers.probes import COMPONENTS

ORDER = ("scan", "ads", "attention", "linear", "block")  # of one block's components
SIDES = ("before", "after")


def feature_errors(clean, adversarial):
    """(MSE, KL) of features per example, (b,) each, in at least float32.

    MSE is the mean squared difference over the tokens and channels. KL is the mean over the tokens of KL(softmax(clean) || softmax(adversarial)) over the
    channels.

    Args:
        clean, adversarial: features of the same shape, (b, ..., channels).
    """
    if clean.shape != adversarial.shape or clean.ndim < 2:
        raise ValueError(f"adversarial.shape={adversarial.shape}: expected that of clean, {clean.shape}, with at least an example and a channel axis")
    wide = jnp.promote_types(clean.dtype, jnp.float32)
    clean, adversarial = (x.reshape(x.shape[0], -1, x.shape[-1]).astype(wide) for x in (clean, adversarial))
    log_clean, log_adversarial = jax.nn.log_softmax(clean), jax.nn.log_softmax(adversarial)
    return ((clean - adversarial)**2).mean((1, 2)), (jnp.exp(log_clean) * (log_clean - log_adversarial)).sum(-1).mean(1)


def change_rate(before, after):
    """(after - before) / before, as float64; nan where `before` is 0."""
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    return np.divide(after - before, before, out=np.full(np.broadcast_shapes(before.shape, after.shape), np.nan), where=before != 0)


def change_rates(classifier, variables, source, attack, *, key, **loop) -> Result:
    """Errors between clean and adversarial features before and after every component of a model, and their change rates.

    Args:
        classifier: a `Classifier`, a Linen module or a catalog name, of a model that records its components: `SequenceClassifier`, VMamba or Vim.
        variables: the model's variables.
        source, attack, key, loop: as for `evaluation.robust_accuracy`; call it once with training and once with test images.

    Returns:
        {"components": names in the network's order, "layers_0/scan"; "mse_before", "mse_after", "kl_before", "kl_after": means over the examples,
        (components,); "mse_change_rate", "kl_change_rate": (after - before) / before of these means; "examples"}.

    Raises:
        ValueError: a model that records no components.
    """
    result = _over_set(_component_errors, classifier, variables, source, attack, key, loop)
    names = _ordered({name.partition("/")[2] for name in result if "/" in name})
    arrays = {f"{kind}_{side}": np.array([result[f"{kind}_{side}/{name}"].mean(dtype=np.float64) for name in names])
              for kind in ("mse", "kl") for side in SIDES}
    rates = {f"{kind}_change_rate": change_rate(arrays[f"{kind}_before"], arrays[f"{kind}_after"]) for kind in ("mse", "kl")}
    return Result({"components": names, **arrays, **rates, "examples": result["examples"]}, components=("components", *arrays, *rates))


def sequence_errors(classifier, variables, source, attack, *, key, **loop) -> Result:
    """Error after every component at every step of the sequence; arguments and errors as for `change_rates`.

    Returns:
        {"components": names; "error", "clean": (components, L), root mean squares over examples and channels of the difference between adversarial and
        clean features, and of the clean features; "examples"}. The positions of a map are in raster order.
    """
    result = _over_set(_step_errors, classifier, variables, source, attack, key, loop)
    names = _ordered({name.partition("/")[2] for name in result if "/" in name})
    roots = {kind: np.sqrt([result[f"{kind}/{name}"].mean(0, dtype=np.float64) for name in names]) for kind in ("error", "clean")}
    return Result({"components": names, **roots, "examples": result["examples"]})


def _over_set(program, classifier, variables, source, attack, key, loop):
    loop, classifier = Loop(**loop), as_classifier(classifier)
    fn = jax.tree_util.Partial(classifier, variables)
    result = gather(on_mesh(program, (fn, argument(attack)), loop, key), enter(fn, source, loop), loop)
    if not any("/" in name for name in result):
        raise ValueError(f"classifier={type(classifier.model).__name__}: expected a model that records its components, such as SequenceClassifier")
    return result


def _pairs(tree, batch, key):
    """{component: ((before, after) of the clean images, (before, after) of the adversarial ones)}."""
    fn, attack = tree
    images = batch["image"]
    adversarial = attack(fn, images, batch["label"], keys_at(key, batch["index"]))
    recorded = [flatten_dict(fn(x, mutable=[COMPONENTS])[1].get(COMPONENTS, {})) for x in (images, adversarial)]
    return {"/".join((*path[:-1], path[-1].removeprefix("component_"))): (recorded[0][path][0], recorded[1][path][0]) for path in recorded[0]}


def _component_errors(tree, batch, key):
    errors = {}
    for name, (clean, adversarial) in _pairs(tree, batch, key).items():
        for side, x, y in zip(SIDES, clean, adversarial, strict=True):
            errors[f"mse_{side}/{name}"], errors[f"kl_{side}/{name}"] = feature_errors(x, y)
    return errors


def _step_errors(tree, batch, key):
    errors = {}
    for name, ((_, clean), (_, adversarial)) in _pairs(tree, batch, key).items():
        steps = lambda x: (x.astype(jnp.float32)**2).mean(-1).reshape(x.shape[0], -1)
        errors[f"error/{name}"], errors[f"clean/{name}"] = steps(adversarial - clean), steps(clean)
    return errors


def _ordered(names):
    """Names in the network's order: by the numbers in them, then as in ORDER."""
    def place(name):
        kind = name.rpartition("/")[2]
        block = [int(n) for n in re.findall(r"_(\d+)", name)] or [int(n) for n in re.findall(r"(\d+)", kind)]
        return block, ORDER.index(re.sub(r"\d+$", "", kind)), name
    return sorted(names, key=place)
