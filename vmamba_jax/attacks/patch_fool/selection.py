"""Which patches of an image to attack: scores of the patches and the choice by them."""
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.core import grids


def strongest(scores, k):
    """The k patches of highest score, (batch, n) -> (batch, k), highest first."""
    return lax.top_k(scores, k)[1]


def random(keys, n, k):
    """k different patches of n, all equally likely, from one key per image: (batch, k)."""
    return jax.vmap(lambda key: jax.random.permutation(key, n)[:k])(keys)


def received(attention, rows, columns, class_tokens):
    """How much attention each patch of the grid receives: (batch, rows * columns).

    Args:
        attention: one layer's probabilities (batch, heads, queries, keys), averaged here over heads and queries, whose first `class_tokens`
            keys are no patches; or a map (batch, h, w) of what each position receives, summed here over each patch.
    """
    if attention.ndim == 4:
        check_keys(attention, rows, columns, class_tokens)
        return attention.mean((1, 2))[:, class_tokens:]
    if attention.ndim != 3 or attention.shape[1] % rows or attention.shape[2] % columns:
        raise ValueError(f"attention has shape {attention.shape}: expected (batch, heads, queries, keys), or a map (batch, h, w) with sides that "
                         f"are multiples of {rows} and {columns}, the rows and columns of patches")
    return grids.patch_sums(attention, rows, columns).reshape(len(attention), -1)


def check_keys(attention, rows, columns, class_tokens):
    if attention.shape[3] != rows * columns + class_tokens:
        raise ValueError(f"attention has shape {attention.shape}: expected {rows * columns + class_tokens} keys, the {rows} x {columns} patches "
                         f"behind class_tokens={class_tokens}")


def paid(attention, token):
    """log of the attention that a query pays to `token` (batch,), averaged over heads before and over queries after the log: (batch,)."""
    heads = attention.astype(jnp.promote_types(attention.dtype, jnp.float32)).mean(1)     # (b, queries, keys)
    share = jnp.take_along_axis(heads, token[:, None, None], 2)[..., 0]
    return jnp.log(jnp.maximum(share, jnp.finfo(share.dtype).tiny)).mean(1)
