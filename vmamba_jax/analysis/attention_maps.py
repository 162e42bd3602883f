"""Attention maps: a transformer's attention probabilities, or the hidden attention that each position receives in selective scans.

A selective scan is y_i = sum_{j <= i} M_ij u_j for each channel, with M_ij = sum_n C_in (prod_{j < t <= i} exp(delta_t A_n)) delta_j B_jn,
a causal attention matrix that the model never forms (Ali et al. 2024, arXiv 2403.01590; VMamba, arXiv 2401.10166, section 5.2). It is not
formed here either: its column sums are a recurrence, run backward.
"""
import functools

import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels
from vmamba_jax.analysis import blocks
from vmamba_jax.core import scan_orders
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.classifier import as_classifier
from vmamba_jax.models.vim.vim import Vim, class_positions, raster_order
from vmamba_jax.models.vmamba.vmamba import VMamba


def attention_fn(model, variables, mean=None, std=None):
    """A function [0, 1] images -> (logits, attention) for `attacks.patch_fool(with_attention=...)`; arguments as for `logits_fn`.

    attention[l] holds, for ViT and DeiT, the probabilities of block l, (b, heads, queries, keys) with the class token first; for VMamba and
    Vim, `scan_attention` of block l, (b, h, w). The function is compiled, and a `jax.tree_util.Partial` whose leaves are the weights.
    Outputs that a caller inside `jax.jit` does not use are not computed.

    Raises:
        TypeError: another model. ValueError: a VMamba without scans, or with the cascade pattern.
    """
    return jax.tree_util.Partial(_compiled(blocks.check_family(as_classifier(model, mean, std), (ViT, VMamba, Vim))), variables)


def scan_attention(model, variables, images, block, signed=False, mean=None, std=None):
    """Hidden attention that each position receives in the scans of one block, averaged over queries and channels: (b, h, w).

    The directions are summed, as in the block. Memory is proportional to L E N, not to L^2. Vim's class tokens count as queries but are
    left out of the map.

    Args:
        model: VMamba or Vim, in any form that `logits_fn` accepts.
        images: (b, H, W, channels) in [0, 1].
        block: index over the whole network, from 0.
        signed: True: the column sums of M divided by its length, in which contributions of opposite sign cancel; False: the magnitudes of
            the contributions of all channels and states are added.
    """
    classifier = blocks.check_family(as_classifier(model, mean, std), (VMamba, Vim))
    return _compiled_scan(classifier, blocks.check_block(classifier.model, block), bool(signed))(variables, images)


def received(A_bar, delta, B, C, routes, signed=False):
    """Column sums of the hidden attention matrices of scans, divided by L and summed over scans: (b, L).

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
    paid = (delta * (B[:, :, :, None] * r).sum(-1)).mean(-1) / L                        # (b, K, L), in scan order
    return jnp.take_along_axis(paid, jnp.argsort(jnp.asarray(routes), axis=1)[None], axis=2).sum(1)


def _map(model, states, shape, signed):
    """Attention map (b, h, w) from the recorded states of one block, for images of `shape`."""
    A_bar, delta, B, C = (states[name][0] for name in ("A_bar", "delta", "B", "C"))
    if isinstance(model, Vim):
        rows, columns = blocks.vim_grid(model, shape)
        found = received(A_bar, delta, B, C, blocks.vim_routes(A_bar.shape[2]), signed)[:, raster_order(model, rows, columns)]
        return jnp.delete(found, np.array(class_positions(model.class_token, rows * columns), int), axis=1).reshape(-1, rows, columns)
    height, width = A_bar.shape[2:4]
    flat = [x.reshape(*x.shape[:2], height * width, *x.shape[4:]) for x in (A_bar, delta, B, C)]
    return received(*flat, scan_orders.routes(model.scan_pattern, height, width), signed).reshape(-1, height, width)


@functools.lru_cache(maxsize=64)
def _compiled(classifier):
    model = classifier.model

    def run(variables, images):
        logits, recorded = classifier(variables, images, mutable=["intermediates"])
        recorded = recorded["intermediates"]
        if isinstance(model, ViT):
            return logits, tuple(blocks.states(recorded, path)["attention"][0] for path in paths)
        return logits, tuple(_map(model, blocks.states(recorded, path), images.shape, False) for path in paths)
    paths = blocks.mixers(model)
    return jax.jit(run)


@functools.lru_cache(maxsize=64)
def _compiled_scan(classifier, path, signed):
    def run(variables, images):
        recorded = classifier(variables, images, mutable=["intermediates"])[1]["intermediates"]
        return _map(classifier.model, blocks.states(recorded, path), images.shape, signed)
    return jax.jit(run)
