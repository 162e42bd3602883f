"""What no Pallas kernel takes, said once for both."""
import jax.numpy as jnp

MAX_STATE = 16


def refusal(kernel, operation, *args):
    """The exception a Pallas kernel raises for these arguments, or None when it serves them."""
    arrays = args if operation == "linear_scan" else args[0]
    wide = [x.dtype.name for x in arrays if x is not None and x.dtype in (jnp.float64, jnp.complex128)]
    if wide:
        return TypeError(f"an argument has dtype {wide[0]}, which implementation={kernel!r} does not compute in; use 'xla' or 'reference'")
    if operation != "linear_scan" and arrays.A.shape[-1] > MAX_STATE:
        return ValueError(f"A has {arrays.A.shape[-1]} states; implementation={kernel!r} takes at most {MAX_STATE}; use 'xla' or 'reference'")
    return None
