"""The first parametrised layer of any Flax model: where it is, its output alone, and the rest of the model's gradient at that output."""
import flax.linen as nn
import jax

PATHS = "a Flax module path such as 'patch_embed/conv1'"


class _Reached(Exception):
    """Carries what was looked for out of a model, whose later layers then never run."""

    def __init__(self, found):
        super().__init__()
        self.found = found


def find(call, *args):
    """The path of the first module that is called with weights of its own in `call(*args)`, such as ("patch_embed", "conv1").

    Nothing is computed: the model is traced up to there. Raises ValueError where `call` reaches no such module.
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
    raise ValueError("the classifier calls no Flax module with weights: expected a Flax model")


def output(path, call, *args):
    """The output of the module at `path` in `call(*args)`; what comes after it is not even traced.

    Raises ValueError where `call` does not reach that module.
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
    raise ValueError(f"first_layer={'/'.join(path)!r} is not called by the model: expected {PATHS}, or None for the first with weights")


def shifted(path, call, shift):
    """What `call()` returns when `shift`, of the output's shape, is added to the output of the module at `path`, at its first call.

    The gradient in a shift of zero is the adjoint p = dL/dz of the first layer's output z.
    """
    left = [shift]

    def add(module, y):
        return y + left.pop() if left and module.path == path else y

    with nn.intercept_methods(_after_call(add)):
        return call()


def parse(path):
    """A path as a tuple of names, from such a tuple or "a/b"."""
    return tuple(path.split("/")) if isinstance(path, str) else tuple(path)


def _after_call(act):
    """A Flax interceptor: `act(module, y)` takes the place of what each module's __call__ returns."""
    def interceptor(call, args, kwargs, context):
        y = call(*args, **kwargs)
        return act(context.module, y) if context.method_name == "__call__" else y

    return interceptor
