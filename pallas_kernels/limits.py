"""What no Pallas kernel takes, said once for both."""
import jax.numpy as jnp

MAX_STATE = 16


def refusal(kernel, operation, *args):
    """The exception a Pallas kernel raises for these arguments, or None when it serves them."""
    arrays = args if operation == "linear_scan" else args[0]
    empty = [x.shape for x in arrays if x is not None and x.size == 0]
    if empty:
        return ValueError(f"an argument has shape {empty[0]}; implementation={kernel!r} takes no empty arrays; use 'xla' or 'reference'")
    wide = [x.dtype.name for x in arrays if x is not None and x.dtype in (jnp.float64, jnp.complex128)]
    if wide:
        return TypeError(f"an argument has dtype {wide[0]}, which implementation={kernel!r} does not compute in; use 'xla' or 'reference'")
    if operation != "linear_scan" and arrays.A.shape[-1] > MAX_STATE:
        return ValueError(f"A has {arrays.A.shape[-1]} states; implementation={kernel!r} takes at most {MAX_STATE}; use 'xla' or 'reference'")
    return None


def narrowed(options, unwritable=("float64",)):
    """Options with float32 for an output dtype that a kernel does not write: what asks for it is converted after."""
    return options._replace(out_dtype="float32") if options.out_dtype in unwritable else options
