"""Selection of the patches to attack: scores from attention maps, and the choice by them."""
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.core import grids


def strongest(scores, k):
    """The k patches of highest score, (batch, n) -> (batch, k), highest first."""
    return lax.top_k(scores, k)[1]


def random(keys, n, k):
    """k different patches of n, all equally likely, from one random key per image: (batch, k)."""
    return jax.vmap(lambda key: jax.random.permutation(key, n)[:k])(keys)


def received(attention, rows, columns, class_tokens):
    """The attention that each patch of the grid receives: (batch, rows * columns).

    Args:
        attention: one layer's probabilities (batch, heads, queries, keys), averaged over heads and queries, whose first `class_tokens` keys
            are not patches; or a map (batch, h, w) of the attention each position receives, summed over each patch.
        rows, columns: of the patch grid.
        class_tokens: number of tokens before those of the patches.
    """
    if attention.ndim == 4:
        if attention.shape[3] != rows * columns + class_tokens:
            raise ValueError(f"attention.shape={attention.shape}: expected {rows * columns + class_tokens} keys, the {rows} x {columns} "
                             f"patches after class_tokens={class_tokens}")
        return attention.mean((1, 2))[:, class_tokens:]
    if attention.ndim != 3 or attention.shape[1] % rows or attention.shape[2] % columns:
        raise ValueError(f"attention.shape={attention.shape}: expected (batch, heads, queries, keys), or a map (batch, h, w) with sides "
                         f"that are multiples of {rows} and {columns}, the rows and columns of patches")
    return grids.patch_sums(attention, rows, columns).reshape(len(attention), -1)


def paid(attention, token):
    """The log attention that queries pay to `token` (batch,), averaged over heads before the log and over queries after it: (batch,)."""
    heads = attention.astype(jnp.promote_types(attention.dtype, jnp.float32)).mean(1)     # (b, queries, keys)
    fraction = jnp.take_along_axis(heads, token[:, None, None], 2)[..., 0]
    return jnp.log(jnp.maximum(fraction, jnp.finfo(fraction.dtype).tiny)).mean(1)
