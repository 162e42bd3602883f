"""A two-layer classifier, a toy task whose batch t depends on t alone, and one step mapped over eight devices in several ways."""
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax import parallel

SHAPE, CLASSES = (4, 4, 1), 3


class Net(nn.Module):
    norm: str = "layer"
    dropout: float = 0.0
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(16)(x.reshape(len(x), -1))
        x = nn.LayerNorm()(x) if self.norm == "layer" else nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.gelu(x))
        return nn.Dense(CLASSES)(x)


@dataclasses.dataclass(frozen=True)
class Classifier:
    model: Net = Net()

    def init(self, key, image_shape):
        return Classifier(self.model.clone(axis_name=None)).model.init(key, jnp.zeros((1, *image_shape)))

    def __call__(self, variables, images, train=False, rngs=None, mutable=False):
        return self.model.apply(variables, images - 0.5, train=train, rngs=rngs, mutable=mutable)


class Toy:
    """Three noisy prototypes; `batches[t]` is a pure function of t.

    Args:
        batch_size: images per batch.
        broken_at: the step whose images include a NaN; None: none.
        stop_at: the step at which reading raises KeyboardInterrupt; None: none.
    """

    def __init__(self, batch_size=16, broken_at=None, stop_at=None):
        self.batch_size, self.broken_at, self.stop_at = batch_size, broken_at, stop_at
        self.prototypes = np.random.default_rng(0).uniform(0.2, 0.8, (CLASSES, *SHAPE))
        self.read = []

    def __getitem__(self, t):
        if t == self.stop_at:
            raise KeyboardInterrupt
        self.read.append(t)
        rng = np.random.default_rng((1, t))
        labels = rng.integers(0, CLASSES, self.batch_size)
        images = np.clip(self.prototypes[labels] + rng.normal(0, 0.1, (self.batch_size, *SHAPE)), 0, 1).astype(np.float32)
        if t == self.broken_at:
            images[0, 0, 0, 0] = np.nan
        return {"image": images, "label": labels.astype(np.int32), "index": np.arange(self.batch_size, dtype=np.int64)}


def batch(t=0, batch_size=16):
    """Images and labels of `Toy`'s batch t."""
    found = Toy(batch_size)[t]
    return {name: found[name] for name in ("image", "label")}


def close(a, b, atol=1e-6, rtol=0):
    """Assert that two trees have one structure and close leaves."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def same(a, b):
    """Assert that two trees have one structure and equal leaves."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def pmapped(step, state, data, key):
    """(state, metrics) of a step under `jax.pmap` over eight devices, which must agree."""
    split = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), data)
    state, metrics = jax.pmap(functools.partial(step, axis_name="data"), "data", in_axes=(None, 0, None))(state, split, key)
    state, metrics = jax.device_get((state, metrics))
    for leaf in jax.tree.leaves((state, metrics)):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    return jax.tree.map(lambda x: x[0], (state, metrics))


def sharded(step, state, data, key):
    """(state, metrics) of a step under `parallel.map_step` over eight devices."""
    mesh = parallel.data_mesh()
    return parallel.map_step(step, mesh, donate=False)(parallel.replicate(state, mesh), parallel.shard_batch(data, mesh), key)


def vmapped(step, state, data, key):
    """(state, metrics) of a step on eight devices emulated on one, by `jax.vmap` with the axis name."""
    split = jax.tree.map(lambda x: x.reshape(8, -1, *x.shape[1:]), data)
    mapped = jax.vmap(functools.partial(step, axis_name="data"), in_axes=(None, 0, None), out_axes=None, axis_name="data")
    return jax.jit(mapped)(state, split, key)
