"""One random key per image, so that random numbers do not depend on the batch size or the number of devices."""
import jax
import jax.numpy as jnp


def keys_at(key, index):
    """Keys (b, ...) of the images numbered `index` (b,) in their set: `fold_in(key, i)` for each i."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def per_image_keys(key, n, offset=0):
    """Keys (n, ...) of the images offset, ..., offset + n - 1: `keys_at(key, offset + arange(n))`. `offset` may be traced.

    Images 0..9 get the same keys in one batch as in two batches 0..4 and, with `offset=5`, 5..9.
    """
    _check(key)
    if key.ndim != _rank_of_one(key):
        raise ValueError(f"key.shape={key.shape}: expected one key")
    return keys_at(key, offset + jnp.arange(n))


def image_keys(key, n):
    """One key per image: `key` itself if it already holds `n` keys along its leading axis, else `per_image_keys(key, n)`."""
    _check(key)
    if key.ndim == _rank_of_one(key):
        return per_image_keys(key, n)
    if key.ndim != _rank_of_one(key) + 1 or len(key) != n:
        raise ValueError(f"key.shape={key.shape}: expected one key, or one for each of {n} images")
    return key


def fold_in(keys, data):
    """`keys` (b, ...) with the integer `data` folded into each of them."""
    return jax.vmap(lambda key: jax.random.fold_in(key, data))(keys)


def attempt_keys(keys, attempt, restarts):
    """Keys of attempt t = target * restarts + restart of a search, or None if `keys` is None.

    The target and then the restart are folded in, so more restarts do not change the random numbers of the first ones.
    """
    return None if keys is None else fold_in(fold_in(keys, attempt // restarts), attempt % restarts)


def _check(key):
    if _typed(key) or (getattr(key, "dtype", None) == jnp.uint32 and key.ndim):
        return
    raise TypeError(f"key={key!r}: expected jax.random.key(seed), or one such key per image")


def _typed(key):
    return hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _rank_of_one(key):
    return 0 if _typed(key) else 1
