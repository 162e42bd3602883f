"""Whether an optimizer may run on shards: whether it updates every entry of a parameter from that entry's gradient and state alone."""
import jax
import optax
from jax.extend.core import ClosedJaxpr, Jaxpr

ELEMENTWISE = frozenset((  # names of JAX's operations
    "abs", "add", "add_any", "and", "atan2", "cbrt", "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "div", "eq", "erf", "exp",
    "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne", "neg",
    "nextafter", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh",
    "xor"))
CALLS = frozenset(("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "cond", "remat", "checkpoint"))


def check(optimizer, params, shards):
    """ValueError that names the transformation if an operation of the optimizer's update on arrays is not elementwise.

    Operations on scalars may be of any kind, and so may `global_norm`, which the step passes to the update: it adds the shards' squares.

    Args:
        optimizer: optax transformation.
        params, shards: the weights and one device's shards of them, or their shapes.
    """
    whole, part = _update(optimizer, params), _update(optimizer, shards)
    for equation, frames in whole:
        name, reads = equation.primitive.name, any(v.aval.shape for v in equation.invars)
        fills = name == "broadcast_in_dim" and not reads
        if (reads or any(v.aval.shape for v in equation.outvars)) and name not in ELEMENTWISE and not fills:
            raise ValueError(f"sharding='fsdp' with {_name(frames)} in the optimizer, whose operation {name} needs whole arrays: expected transformations "
                             "that update each entry by itself, such as those of training.optimizer.create")
    if [equation.primitive.name for equation, _ in whole] != [equation.primitive.name for equation, _ in part]:
        raise ValueError("sharding='fsdp' with an optimizer that depends on the sizes of the parameters: expected the same update for arrays and shards, such "
                         "as with a decay_rule that reads a parameter's path and number of axes only")


def _update(optimizer, params):
    """`_operations` of an optimizer's update of parameters of these shapes."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    state, norm = jax.eval_shape(optimizer.init, shapes), jax.ShapeDtypeStruct((), "float32")
    update = optax.with_extra_args_support(optimizer).update
    traced = jax.make_jaxpr(lambda grads, state, params, norm: update(grads, state, params, global_norm=lambda tree: norm))
    return list(_operations(traced(shapes, state, shapes, norm).jaxpr, ()))


def _operations(jaxpr, frames):
    """(equation, frames of the Python call that made it, the innermost first) of a jaxpr and of the functions that it calls."""
    for equation in jaxpr.eqns:
        own = _frames(equation) or frames  # an inner function that was traced before has the frames of nobody
        inner = [v for value in equation.params.values() for v in (value if isinstance(value, (tuple, list)) else [value])
                 if isinstance(v, (ClosedJaxpr, Jaxpr))] if equation.primitive.name in CALLS else []
        if not inner:
            yield equation, own
        for function in inner:
            yield from _operations(function.jaxpr if isinstance(function, ClosedJaxpr) else function, own)


def _frames(equation):
    traceback = equation.source_info.traceback
    outside = lambda frame: "/jax/" not in frame.file_name and frame.file_name != __file__
    frames = [frame.function_name for frame in (traceback.frames if traceback else ()) if outside(frame)]
    return [name for name in frames if not name.startswith("chain.") and not name.startswith("with_extra_args_support.")]


def _name(frames):
    """Name of the function that made a transformation, such as "scale_by_trust_ratio"."""
    makers = [name.partition(".<locals>")[0] for name in frames if ".<locals>" in name]
    return next(iter((*makers, *frames)), "a transformation")
