"""One random key per image, so that what is drawn does not depend on how a set is cut into batches or spread over devices."""
import jax
import jax.numpy as jnp


def per_image_keys(key, n, offset=0):
    """Keys (n, ...) of the images offset, offset + 1, ... under one key: `fold_in(key, offset + i)`. `offset` may be traced.

    Images 0..9 in one batch, or 0..4 and 5..9 with `offset=5` in two, get the same keys.
    """
    _check(key)
    if key.ndim != _rank_of_one(key):
        raise ValueError(f"key has shape {key.shape}: expected one key")
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(offset + jnp.arange(n))


def keys_at(key, index):
    """Keys (n, ...) of the examples at positions `index` (n,) of a set: `fold_in(key, i)`, the same in every batch."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def image_keys(key, n):
    """`key` as one key per image: as it is when its leading axis already counts `n` images, else by `per_image_keys`."""
    _check(key)
    if key.ndim == _rank_of_one(key):
        return per_image_keys(key, n)
    if key.ndim != _rank_of_one(key) + 1 or len(key) != n:
        raise ValueError(f"key has shape {key.shape}: expected one key, or one for each of {n} images")
    return key


def fold_in(keys, data):
    """Fold one number into every key of a batch."""
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def _check(key):
    if _typed(key) or (getattr(key, "dtype", None) == jnp.uint32 and key.ndim):
        return
    raise TypeError(f"key={key!r}: expected jax.random.key(seed), or one such key per image")


def _typed(key):
    return hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _rank_of_one(key):
    return 0 if _typed(key) else 1
