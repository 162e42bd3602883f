"""The first parametrized layer of any Flax model: its path, its output alone, and the gradient of the rest of the model at that output."""
import flax.linen as nn
import jax

PATHS = "a Flax module path such as 'patch_embed/conv1'"


class _Reached(Exception):
    """Returns a value from inside a model's call; the model's later layers do not run."""

    def __init__(self, found):
        super().__init__()
        self.found = found


def find(call, *args):
    """Path of the first module with weights of its own that `call(*args)` calls, such as ("patch_embed", "conv1").

    Nothing is computed: the model is traced up to that module.

    Raises:
        ValueError: `call` reaches no such module.
    """
    def stop(module, y):
        if any(not isinstance(leaf, dict) for leaf in module.variables.get("params", {}).values()):
            raise _Reached(module.path)
        return y

    try:
        with nn.intercept_methods(_after_call(stop)):
            jax.eval_shape(call, *args)
    except _Reached as reached:
        return reached.found
    raise ValueError("classifier without a Flax module that has weights: expected a Flax model")


def output(path, call, *args):
    """Output of the module at `path` in `call(*args)`; later layers are not traced.

    Raises:
        ValueError: `call` does not reach that module.
    """
    def stop(module, y):
        if module.path == path:
            raise _Reached(y)
        return y

    try:
        with nn.intercept_methods(_after_call(stop)):
            call(*args)
    except _Reached as reached:
        return reached.found
    raise ValueError(f"layer={'/'.join(path)!r}, which the model does not call: expected {PATHS}, or None for the first with weights")


def shifted(path, call, shift):
    """`call()` with `shift`, of the output's shape, added to the output of the module at `path`, at its first call only.

    The gradient with respect to a shift of zero is the adjoint p = dL/dz of the first layer's output z.
    """
    pending = [shift]

    def add(module, y):
        return y + pending.pop() if pending and module.path == path else y

    with nn.intercept_methods(_after_call(add)):
        return call()


def parse(path):
    """A path as a tuple of names, from such a tuple or "a/b"."""
    return tuple(path.split("/")) if isinstance(path, str) else tuple(path)


def _after_call(act):
    """A Flax interceptor that replaces the result y of each module's __call__ by `act(module, y)`."""
    def interceptor(call, args, kwargs, context):
        y = call(*args, **kwargs)
        return act(context.module, y) if context.method_name == "__call__" else y

    return interceptor
