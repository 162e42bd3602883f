"""Named hidden states: recorded by `sow`, opened to gradients by `perturb`, cut off from them by `stop_gradients`.

`model.apply(variables, images, mutable=["intermediates"])` returns every state under `intermediates/.../<name>`; without the collection nothing
is computed. `model.clone(perturbed=("s",))` adds a zero `perturbations/.../<name>` at `init`, whose gradient is the state's.
`model.clone(stop_gradients=("B",))` leaves the forward pass bit-identical and blocks the named states' gradients, in all blocks or, with
`stop_blocks=((0, 1), 2)`, in some: here the second block of the first stage and the whole third.
"""
import numbers

import jax
import jax.numpy as jnp

SS2D_STATES = ("x", "z", "c", "B", "C", "delta", "A_bar", "s", "y")
"""x: input of the depth-wise convolution; z: gate before its activation; c: the convolution after its activation, all (b, H, W, E).
B, C: (b, K, H, W, N); delta: step size after softplus, (b, K, H, W, E); A_bar = exp(delta A): (b, K, H, W, E, N); s: each direction's scan
output with its D skip, (b, K, H, W, E); y: the mixer's output, (b, H, W, C). Positions are those of the map, whatever the scan's order."""

VIM_STATES = ("x", "z", "c", "B", "C", "delta", "A_bar", "s", "y")
"""The same of a token sequence, the forward direction's first on axis 1: x, z, c, delta, s (b, 2, L, E); B, C (b, 2, L, N); A_bar
(b, 2, L, E, N); y: the mixer's output, (b, L, C). Both directions have the values of x and z in common, but not the gradients. Positions are
those of the sequence, class tokens included, whatever the direction."""

STOPPABLE = ("x", "z", "c", "B", "C", "delta", "A_bar", "B_bar_delta")
"""What `stop_gradients` takes: `delta` cuts the step size everywhere, `A_bar` only in exp(delta A), `B_bar_delta` only in delta B."""


def check_names(field, names, known):
    """Raise a ValueError if `names` is not a tuple of known names."""
    if isinstance(names, str):
        raise ValueError(f"{field}={names!r}; expected a tuple of names, such as ({names!r},)")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{field} names {', '.join(map(repr, unknown))}; expected some of {', '.join(known)}")


def chosen_blocks(field, blocks, depths):
    """Blocks by stage, for each stage a set of block numbers: all if `blocks` is None, else those of its stage numbers and (stage, block) pairs.

    Raises a ValueError that names the field where one is not among stages of these depths.
    """
    if blocks is None:
        return [set(range(depth)) for depth in depths]
    known = {stage: set(range(depth)) for stage, depth in enumerate(depths)}
    chosen = [set() for _ in depths]
    for entry in blocks if isinstance(blocks, (tuple, list)) else (None,):
        if isinstance(entry, numbers.Integral) and entry in known:
            chosen[entry] |= known[entry]
        elif isinstance(entry, (tuple, list)) and list(entry) in [[stage, block] for stage in known for block in known[stage]]:
            chosen[entry[0]].add(entry[1])
        else:
            raise ValueError(f"{field}={blocks!r}; expected None, or a tuple of stages and (stage, block) pairs within depths={tuple(depths)}")
    return chosen


def record(module, name, value):
    """Sow `value` (or what it returns, if callable) when the caller asked for intermediates."""
    if module.is_mutable_collection("intermediates") and not module.is_initializing():
        module.sow("intermediates", name, value() if callable(value) else value)


def watched(module, name):
    """Whether somebody looks at a state, or adds to it."""
    return name in module.perturbed or module.is_mutable_collection("intermediates")


def probe_all(module, name, directions):
    """`probe` of one state's arrays by scan direction, stacked to (b, K, ...) only where it is watched; a list again."""
    if watched(module, name):
        stacked = probe(module, name, jnp.stack(directions, axis=1))
        return [stacked[:, k] for k in range(len(directions))]
    return jax.lax.stop_gradient(directions) if name in module.stop_gradients else directions


def probe(module, name, x):
    """One named state in the data flow: recorded, perturbed and cut as the module's fields ask."""
    if name in module.perturbed:
        x = module.perturb(name, x)
    if name in module.stop_gradients:
        x = jax.lax.stop_gradient(x)
    record(module, name, x)
    return x
