"""Real and complex numbers as tuples of real planes, (real,) or (real, imaginary): Mosaic has no complex numbers."""
import jax
import jax.numpy as jnp


def split(x):
    """Array -> its planes."""
    return (x.real, x.imag) if jnp.iscomplexobj(x) else (x,)


def join(planes):
    """Planes -> array; the inverse of `split`."""
    return planes[0] if len(planes) == 1 else jax.lax.complex(*planes)


def times(x, y):
    """Planes of x * y."""
    if len(x) == 1:
        return (x[0] * y[0],)
    return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]


def plus(x, y):
    """Planes of x + y."""
    return tuple(p + q for p, q in zip(x, y, strict=True))
