"""Threefry random numbers in counter mode, written so that XLA vectorizes them on a CPU.

`jax.random` passes over an array once every few rounds, which on a CPU takes ten times as long as most corruptions.
"""
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

ROUNDS = 13  # the fewest without known flaws
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)
_W = np.linspace(0, 0.25, 513)
# sin(2 pi w) / w as a polynomial in w^2, to 1e-7
_SINE = np.polynomial.Polynomial.fit(_W**2, 2 * np.pi * np.sinc(2 * _W), 5).convert().coef.astype(np.float32)


def words(key, shape):
    """Two independent arrays of random uint32: Threefry-2x32 of the element's number, under two words drawn from `key`.

    The result depends on the key alone: it is the same on every backend and under jit, vmap and shard_map. shape: less than 2 ** 32
    elements.

    Source: Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), with 13 rounds, which pass all its tests.
    """
    low, high = jax.random.bits(key, (2,))
    schedule = (low, high, low ^ high ^ PARITY)
    a, b = lax.iota(jnp.uint32, int(np.prod(shape))).reshape(shape) + low, high
    for i in range(ROUNDS):
        a = a + b
        turn = np.uint32(ROTATIONS[i // 4 % 2][i % 4])
        b = (b << turn | b >> (32 - turn)) ^ a
        if i % 4 == 3:
            added = i // 4 + 1
            a, b = a + schedule[added % 3], b + schedule[(added + 1) % 3] + np.uint32(added)
    return a, b


def normals(key, shape):
    """Standard normals, float32, of magnitude at most 5.8: the first of each pair of the Box-Muller transform (1958)."""
    a, b = words(key, shape)
    radius = jnp.sqrt(-2 * jnp.log(((a >> 8).astype(jnp.int32) + 1).astype(jnp.float32) * np.float32(2**-24)))
    w = 0.25 - jnp.abs(lax.bitcast_convert_type(b, jnp.int32).astype(jnp.float32) * np.float32(2**-32))  # cos(2 pi turn) = sin(2 pi w)
    sine = jnp.polyval(_SINE[::-1], w * w, unroll=len(_SINE)) * w
    return radius * sine


def uniforms(key, shape):
    """Uniform numbers in [-1, 1), float32 multiples of 2 ** -23."""
    a, _ = words(key, shape)
    return (lax.bitcast_convert_type(a, jnp.int32) >> 8).astype(jnp.float32) * np.float32(2**-23)


def offsets(key, shape, reach):
    """Two arrays of integers in [-reach, reach), int32, reach < 500: frequencies within 2 ** -12 of uniform ones."""
    return tuple(((word >> 10) * np.uint32(2 * reach) >> 22).astype(jnp.int32) - reach for word in words(key, shape))
