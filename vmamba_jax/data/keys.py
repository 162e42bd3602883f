"""One random key for each image of a batch."""
import jax
import jax.numpy as jnp


def image_keys(key, n):
    """(n,) typed keys from one key or from n of them, typed or legacy; one key gives image i fold_in(key, i)."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.ndim == 0:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(n))
    if key.shape != (n,):
        raise ValueError(f"key must be one key or one for each of the {n} images, got shape {key.shape}")
    return key
