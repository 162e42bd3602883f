"""Corrupt a batch: parameters by name, severity and size, one random key per image, gray levels as in the released sets."""
import functools

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.core import checks
from vmamba_jax.core.keys import image_keys
from vmamba_jax.evaluation.corruptions.catalog import FUNCTIONS
from vmamba_jax.evaluation.corruptions.reproducible import rounded, truncated
from vmamba_jax.evaluation.corruptions.severities import SEVERITIES, TABLES, parameters, table_for
from vmamba_jax.evaluation.corruptions.weather import load_textures


def corrupt(name, severity, images, keys, *, table=None):
    """Images corrupted as in ImageNet-C, Tiny-ImageNet-C or CIFAR-10-C. Compiled once per name, severity, table and shape.

    The result does not depend on the batch; works inside jit, vmap and shard_map.

    Args:
        name: one of `CORRUPTIONS` (the fifteen of the benchmark) or `EXTRA` (the four for validation).
        severity: 1 (mildest) to 5.
        images: (b, S, S, 3) floating in [0, 1], first rounded to multiples of 1/255; S >= 8.
        keys: one random key per image, or one key for all: image i then uses `fold_in(key, i)`.
        table: parameters of 224 (ImageNet-C), 64 (Tiny-ImageNet-C) or 32 (CIFAR-10-C); None: 32 up to 45 pixels, 64 up to 119, 224 above.

    Returns:
        float32 images, multiples of 1/255, truncated (not rounded) to them as in the released sets.

    Raises:
        ValueError, TypeError: bad arguments. ImportError: "frost" without its photos (extra [corruptions]).

    Source: Hendrycks & Dietterich 2019, arXiv 1903.12261.
    """
    check(name, severity, table)
    if getattr(images, "ndim", None) != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3 or images.shape[1] < 8:
        raise ValueError(f"images.shape={getattr(images, 'shape', type(images).__name__)}: expected (batch, S, S, 3) with S >= 8")
    checks.pixels(images, 0, 1)
    if not len(images):
        return images.astype(jnp.float32)
    table = table_for(images.shape[1]) if table is None else table
    extra = (load_textures(table),) if name == "frost" else ()
    if extra and images.shape[1] >= (least := int(extra[0]["sizes"].min())):
        raise ValueError(f"images.shape={images.shape}: expected sides below {least} for name='frost', table={table}, the smallest photo's")
    return _corrupted(name, severity, table)(images, image_keys(keys, len(images)), *extra)


def check(name, severity, table=None):
    """Raise a ValueError for an unknown corruption, severity or table (None is known)."""
    checks.choice("name", name, FUNCTIONS)
    checks.choice("severity", severity, SEVERITIES)
    checks.choice("table", table, (None, *TABLES))


@functools.cache
def _corrupted(name, severity, table):
    corruption, arguments = FUNCTIONS[name], parameters(name, severity, table)

    def one(image, key, *extra):
        image = rounded(image)
        draws = corruption.draw(key, image, *arguments, *extra) if corruption.draw else None
        return truncated(corruption.apply(image, draws, *arguments))

    def all_at_once(images, keys, extra):
        return jax.vmap(lambda image, key: one(image, key, *extra))(images, keys)

    def one_by_one(images, keys, extra):  # intermediate arrays stay in a CPU's caches
        return lax.map(lambda pair: one(*pair, *extra), (images, keys))

    def run(images, keys, *extra):
        images = images.astype(jnp.float32)
        if corruption.pointwise:
            return all_at_once(images, keys, extra)
        return lax.platform_dependent(images, keys, extra, cpu=one_by_one, default=all_at_once)
    return jax.jit(run)
