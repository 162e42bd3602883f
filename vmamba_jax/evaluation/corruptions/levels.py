"""Grey levels: where the released programs pass an image through uint8, by truncation or by rounding."""
import jax.numpy as jnp

SLACK = 1 / 4096  # of a level: what float32 may lose of a value that is a whole level


def truncated(x):
    """[0, 1] values cut down to multiples of 1/255, as `np.uint8(255 * x)` does."""
    return jnp.floor(jnp.clip(x, 0, 1) * 255 + SLACK) / 255


def rounded(x):
    """[0, 1] values at the nearest multiple of 1/255, halves upwards."""
    return jnp.floor(jnp.clip(x, 0, 1) * 255 + (0.5 + SLACK)) / 255
