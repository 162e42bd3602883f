"""The exact worst-case output error of a fixed-parameter state space model, and a search by projected gradient descent that comes near it.

The error of a convolution is a convolution of the perturbation: e_t = sum_k K_k d_{t-k}. So sup |e_t| over |d| <= eps is eps sum_{k <= t} |K_k|, attained
by d_{t-k} = eps sign(K_k). The bound depends on the parameters alone, and the same parameters carry the signal.

Source: our own derivation; the claim is that of Qi et al., arXiv 2406.05532.
"""
import functools

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.core import checks
from vmamba_jax.models.sequence.classifier import SequenceClassifier


def worst_case_error(kernel, eps):
    """Largest |e_t| at every step, (..., L), over perturbations of at most eps in every input.

    Args:
        kernel: (..., L); the skip D is part of its first entry.
        eps: bound on each |d_t|, >= 0.
    """
    return checks.number("eps", eps, low=0) * jnp.cumsum(jnp.abs(jnp.asarray(kernel)), -1)


def worst_case_perturbation(kernel, eps):
    """Perturbation (..., L) that attains `worst_case_error` at the last step: d_{L-1-k} = eps sign(K_k)."""
    return checks.number("eps", eps, low=0) * jnp.sign(jnp.asarray(kernel))[..., ::-1]


def layer_kernels(model, variables, images):
    """{layer: (C, L)}: convolution kernel of every S4 or DSS layer for these images' length, with the skip D in its first entry.

    Args:
        model: a `SequenceClassifier` with layer="s4" or "dss".
        variables: its variables.
        images: (b, H, W, channels); only the shape matters.
    """
    if not isinstance(model, SequenceClassifier) or model.layer not in ("s4", "dss"):
        raise ValueError(f"model={getattr(model, 'layer', type(model).__name__)!r}: expected a SequenceClassifier with layer 's4' or 'dss', whose "
                         "scan is a convolution of each channel")
    recorded = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))(variables, images[:1])[1]["intermediates"]
    names = [f"layers_{i}" for i in range(model.depth)]
    return {name: recorded[name]["kernel"][0].at[:, 0].add(variables["params"][name]["D"]) for name in names}


@functools.partial(jax.jit, static_argnums=0, static_argnames=("steps", "restarts"))
def searched_error(respond, u, eps, key, *, arguments=(), steps=40, step_size=None, restarts=1):
    """Largest output error at the last step that sign-gradient ascent finds, (b, C), from random starts within |d| <= eps.

    The objective is sum_c |respond(u + d) - respond(u)| at the last step. For a convolution of each channel it separates into the channels.

    Args:
        respond: static function (u, *arguments) -> y of the same shape.
        u: input, (b, L, C).
        eps: bound on each entry of the perturbation.
        key: random key of the starts.
        arguments: further arguments of `respond`.
        steps, step_size, restarts: of the ascent; step size None: 2.5 eps / steps.
    """
    clean, step_size = respond(u, *arguments), 2.5 * eps / steps if step_size is None else step_size

    def error(d):
        return jnp.abs(respond(u + d, *arguments)[:, -1] - clean[:, -1])

    def ascend(_, state):
        d, best = state
        found, pullback = jax.vjp(error, d)
        gradient, = pullback(jnp.ones_like(found))
        return jnp.clip(d + step_size * jnp.sign(gradient), -eps, eps), jnp.maximum(best, found)

    def run(key):
        start = jax.random.uniform(key, u.shape, u.dtype, -1, 1) * eps
        d, best = lax.fori_loop(0, steps, ascend, (start, jnp.zeros_like(clean[:, -1])))
        return jnp.maximum(best, error(d))
    return lax.map(run, jax.random.split(key, restarts)).max(0)
