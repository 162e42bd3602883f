"""Stand-ins for the tests: a two-layer model as a classifier, and a toy task whose batch t depends on t alone."""
import dataclasses

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

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
    """Three noisy prototypes; `batches[t]` is a pure function of t. broken_at: the step whose images hold a NaN; stop_at: raises there."""

    def __init__(self, batch_size=16, broken_at=None, stop_at=None):
        self.batch_size, self.broken_at, self.stop_at = batch_size, broken_at, stop_at
        self.prototypes = np.random.default_rng(0).uniform(0.2, 0.8, (CLASSES, *SHAPE))
        self.asked = []

    def __getitem__(self, t):
        if t == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(t)
        rng = np.random.default_rng((1, t))
        labels = rng.integers(0, CLASSES, self.batch_size)
        images = np.clip(self.prototypes[labels] + rng.normal(0, 0.1, (self.batch_size, *SHAPE)), 0, 1).astype(np.float32)
        if t == self.broken_at:
            images[0, 0, 0, 0] = np.nan
        return {"image": images, "label": labels.astype(np.int32), "index": np.arange(self.batch_size, dtype=np.int64)}


def batch(t=0, batch_size=16):
    found = Toy(batch_size)[t]
    return {name: found[name] for name in ("image", "label")}
