"""Which positions a model attends to: a transformer's recorded probabilities, or what the hidden attention of selective scans pays to each.

A selective scan is y_i = sum_{j <= i} M_ij u_j for each channel, with M_ij = sum_n C_in (prod_{j < t <= i} exp(delta_t A_n)) delta_j B_jn: a causal
attention matrix, never formed by the model (Ali et al. 2024, arXiv 2403.01590; VMamba, arXiv 2401.10166, section 5.2). Nor is it formed here:
the sum over its rows is itself a recurrence, run backwards.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels
from vmamba_jax.core import scan_orders
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.models.vim.vim import Vim, class_positions
from vmamba_jax.models.vmamba.vmamba import VMamba


def attention_fn(model, variables, mean=None, std=None):
    """[0, 1] images -> (logits, attention), as `attacks.patch_fool(with_attention=...)` takes it; arguments and errors as for `logits_fn`.

    attention[l] is of ViT and DeiT block l's probabilities, (b, heads, queries, keys) with the class token first; of VMamba and Vim what
    `scan_attention` gives for block l, (b, h, w). The result is compiled, and a `jax.tree_util.Partial` whose leaves are the weights. What a
    caller inside `jax.jit` does not use is not computed.

    Raises:
        TypeError: another model. ValueError: a VMamba without scans, or with the cascade pattern.
    """
    return jax.tree_util.Partial(_compiled(_known(as_classifier(model, mean, std), (ViT, VMamba, Vim))), variables)


def scan_attention(model, variables, images, block, signed=False, mean=None, std=None):
    """How much the hidden attention of one block's scans pays to each position, on average over queries: (b, h, w), the map of the block.

    All directions are merged, as the block sums them; channels are averaged.

    Args:
        model: VMamba or Vim, in any form that `logits_fn` takes.
        images: (b, H, W, channels) in [0, 1].
        block: index over the whole network, from 0.
        signed: let contributions of opposite sign cancel, which makes these the column sums of M over its length; by default the
            magnitudes of all channels' and states' contributions add up.

    Memory grows with L E N, not with L^2. Class tokens of Vim pay, but are left out of the map.
    """
    classifier = _known(as_classifier(model, mean, std), (VMamba, Vim))
    names = _scans(classifier.model)
    if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < len(names):
        raise ValueError(f"block={block!r}; expected an index of one of {len(names)} blocks, from 0")
    return _compiled_scan(classifier, names[block], bool(signed))(variables, images)


def received(A_bar, delta, B, C, routes, signed=False):
    """Column sums over L of the hidden attention matrices of scans, summed over scans: (b, L).

    Args:
        A_bar, delta, B, C: (b, K, L, E, N), (b, K, L, E) and (b, K, L, N) twice, by position.
        routes: (K, L), the position that scan k visits at each step.
    """
    b, K, L, E, N = A_bar.shape
    if not signed:
        B, C = jnp.abs(B), jnp.abs(C)
    visited = lambda x: jnp.take_along_axis(x, jnp.asarray(routes).reshape(1, K, L, *(1,) * (x.ndim - 3)), axis=2)
    A_bar, delta, B, C = map(visited, (A_bar, delta, B, C))
    later = jnp.concatenate([A_bar[:, :, 1:], jnp.zeros_like(A_bar[:, :, :1])], axis=2)
    flat = lambda x: jnp.broadcast_to(x, A_bar.shape).reshape(b * K, L, E * N)
    # r_j = sum_{i >= j} C_i prod_{j < t <= i} A_bar_t = C_j + A_bar_{j+1} r_{j+1}
    r = pallas_kernels.linear_scan(flat(later), flat(C[:, :, :, None]), reverse=True).reshape(A_bar.shape)
    paid = (delta * (B[:, :, :, None] * r).sum(-1)).mean(-1) / L                        # (b, K, L), in order of visit
    return jnp.take_along_axis(paid, jnp.argsort(jnp.asarray(routes), axis=1)[None], axis=2).sum(1)


def _known(classifier, families):
    if not isinstance(classifier.model, families):
        raise TypeError(f"model is {type(classifier.model).__name__}; expected {', '.join(family.__name__ for family in families)}")
    return classifier


def _scans(model):
    """Path of each block's scans among the intermediates, in order."""
    if isinstance(model, Vim):
        return [(f"layers_{i}", "mixer") for i in range(model.depth)]
    if model.ssm_ratio <= 0 or model.scan_pattern == "cascade":
        raise ValueError(f"ssm_ratio={model.ssm_ratio}, scan_pattern={model.scan_pattern!r}; expected scans over the whole map")
    return [(f"layers_{i}", f"blocks_{j}", "op") for i, depth in enumerate(model.depths) for j in range(depth)]


def _map(model, states, shape, signed):
    """(b, h, w) of one block's recorded states, for images of `shape`."""
    A_bar, delta, B, C = (states[name][0] for name in ("A_bar", "delta", "B", "C"))
    if isinstance(model, Vim):
        rows, columns = ((side - model.patch_size) // model.stride + 1 for side in shape[1:3])
        steps = np.arange(A_bar.shape[2])
        paid = received(A_bar, delta, B, C, np.stack([steps, steps[::-1]]), signed)
        paid = jnp.delete(paid, np.array(class_positions(model.class_token, rows * columns), int), axis=1)
        return paid[:, np.argsort(scan_orders.order(model.scan_pattern, rows, columns))].reshape(-1, rows, columns)
    height, width = A_bar.shape[2:4]
    flat = [x.reshape(*x.shape[:2], height * width, *x.shape[4:]) for x in (A_bar, delta, B, C)]
    return received(*flat, scan_orders.routes(model.scan_pattern, height, width), signed).reshape(-1, height, width)


def _states(tree, path):
    return functools.reduce(lambda tree, name: tree[name], path, tree["intermediates"])


@functools.lru_cache(maxsize=64)
def _compiled(classifier):
    model = classifier.model

    def look(variables, images):
        logits, recorded = classifier(variables, images, mutable=["intermediates"])
        if isinstance(model, ViT):
            return logits, tuple(_states(recorded, (f"blocks_{i}", "attn"))["attention"][0] for i in range(model.depth))
        return logits, tuple(_map(model, _states(recorded, path), images.shape, False) for path in paths)
    paths = () if isinstance(model, ViT) else _scans(model)
    return jax.jit(look)


@functools.lru_cache(maxsize=64)
def _compiled_scan(classifier, path, signed):
    def look(variables, images):
        recorded = classifier(variables, images, mutable=["intermediates"])[1]
        return _map(classifier.model, _states(recorded, path), images.shape, signed)
    return jax.jit(look)
