"""Named hidden states: recorded by `sow`, perturbed by `perturb` for their gradients, or cut from the backward pass by `stop_gradients`.

`model.apply(variables, images, mutable=["intermediates"])` returns every state under `intermediates/.../<name>`; without that collection no state
is computed for it. `model.clone(perturbed=("s",))` adds a zero `perturbations/.../<name>` at `init`, whose gradient is that of the state; with
`mutable=["states"]` it returns the perturbed states alone under `states/.../<name>`. `perturbed_blocks` restricts them to some blocks.
`model.clone(stop_gradients=("B",))` keeps the forward pass bit-identical and blocks the gradients of the named states: in all blocks, or in those
of `stop_blocks=((0, 1), 2)`, here the second block of the first stage and all blocks of the third.
"""
import numbers

import jax
import jax.numpy as jnp

SS2D_STATES = ("x", "z", "c", "B", "C", "delta", "A_bar", "s", "y")
"""x: input of the depth-wise convolution; z: gate before its activation; c: the convolution after its activation, all (b, H, W, E).
B, C: (b, K, H, W, N); delta: step size after softplus, (b, K, H, W, E); A_bar = exp(delta A): (b, K, H, W, E, N); s: each direction's scan
output with its D skip, (b, K, H, W, E); y: the mixer's output, (b, H, W, C). Positions are those of the map, for every scan order."""

VIM_STATES = ("x", "z", "c", "B", "C", "delta", "A_bar", "s", "y")
"""The same states of a token sequence, with the forward direction first on axis 1: x, z, c, delta, s (b, 2, L, E); B, C (b, 2, L, N); A_bar
(b, 2, L, E, N); y: the mixer's output, (b, L, C). Both directions share the values of x and z, but not the gradients. Positions are those of the
sequence, with its class tokens, for both directions."""

SCAN_PARAMETERS = ("A", "D")
"""Parameters of the scans, recorded beside their states: A (K, E, N), negative; D (K, E)."""

SEQUENCE_STATES = ("x", "s", "a", "y")
"""States of an S4, DSS, S5, Mega or Transformer layer, (b, L, C) but for Mega's widths: x, the layer's input but for a residual connection; s, the
output of the scan or moving average with its skip (a Transformer: of the attention); a, after Adaptive Scaling (Mega: the attention's output); y, the
layer's output."""

COMPONENTS = "components"
"""Collection of the inputs and outputs of a network's components, for `analysis.error_propagation`."""

MAPS = "maps"
"""Collection of the last map before the final norm and the head, (b, h, w, C) without class tokens, for `analysis.receptive_field`."""

STOPPABLE = ("x", "z", "c", "B", "C", "delta", "A_bar", "B_bar_delta")
"""Names for `stop_gradients`: `delta` blocks the step size everywhere, `A_bar` only in exp(delta A), `B_bar_delta` only in delta B."""


def check_names(field, names, known):
    """Raise a ValueError unless `names` is a tuple of known names."""
    if isinstance(names, str):
        raise ValueError(f"{field}={names!r}: expected a tuple of names, such as ({names!r},)")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{field}={tuple(names)}: expected names among {', '.join(known)}, not {', '.join(map(repr, unknown))}")


def chosen_blocks(field, blocks, depths):
    """Set of block numbers for each stage.

    Args:
        field: name of the argument, for the error.
        blocks: None: all blocks; or a tuple of stage numbers and (stage, block) pairs.
        depths: blocks of each stage.

    Raises:
        ValueError: an entry outside the stages of these depths.
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
            raise ValueError(f"{field}={blocks!r}: expected None, or a tuple of stages and (stage, block) pairs within depths={tuple(depths)}")
    return chosen


def record(module, name, value):
    """Sow `value`, or its result if it is callable, when the caller made `intermediates` mutable."""
    if module.is_mutable_collection("intermediates") and not module.is_initializing():
        module.sow("intermediates", name, value() if callable(value) else value)


def component(module, name, before, after):
    """Sow (before, after), a component's input and output, as component_<name> when the caller made the collection `components` mutable."""
    if module.is_mutable_collection(COMPONENTS) and not module.is_initializing():
        module.sow(COMPONENTS, f"component_{name}", (before, after))


def last_map(module, x):
    """Sow the map x, or its result if it is callable, as `last` when the caller made the collection `maps` mutable."""
    if module.is_mutable_collection(MAPS) and not module.is_initializing():
        module.sow(MAPS, "last", x() if callable(x) else x)


def observed(module, name):
    """True if the state is perturbed or intermediates are recorded, so that its value is needed."""
    return name in module.perturbed or module.is_mutable_collection("intermediates")


def probe_all(module, name, directions):
    """`probe` of one state's arrays, a list by scan direction; stacked to (b, K, ...) only if the state is observed. Returns a list."""
    if observed(module, name):
        stacked = probe(module, name, jnp.stack(directions, axis=1))
        return [stacked[:, k] for k in range(len(directions))]
    return jax.lax.stop_gradient(directions) if name in module.stop_gradients else directions


def probe(module, name, x):
    """The state x, perturbed, cut and recorded according to the module's fields `perturbed` and `stop_gradients`."""
    if name in module.perturbed:
        x = module.perturb(name, x)
        if module.is_mutable_collection("states") and not module.is_initializing():
            module.sow("states", name, x, reduce_fn=lambda _, new: new, init_fn=lambda: None)
    if name in module.stop_gradients:
        x = jax.lax.stop_gradient(x)
    record(module, name, x)
    return x
