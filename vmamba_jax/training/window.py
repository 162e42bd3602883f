"""Means of metrics over a window of steps, summed on the device so that no step waits for the host."""
import jax
import jax.numpy as jnp
import numpy as np


class Window:
    """Sums since the last line written; `Window(**window.to_json())` continues it to the last bit.

    sums: {name: float}, count: steps in them.
    """

    def __init__(self, sums=None, count=0):
        self._sums = {name: np.float32(value) for name, value in sums.items()} if sums else None
        self._bad = None  # the first step with a value that is not finite, or -1, and its values
        self._count = count

    def add(self, step, metrics):
        if self._sums and self._sums.keys() != metrics.keys():
            raise ValueError(f"step {step} gives metrics {sorted(metrics)}, but the window holds {sorted(self._sums)}")
        zeros = dict.fromkeys(metrics, np.float32(0))
        self._sums, self._bad = _add(self._sums or zeros, self._bad or (np.int32(-1), zeros), np.int32(step), metrics)
        self._count += 1

    def first_bad(self):
        """(step, its metrics that are not finite) of the first such step since the window was made, or None."""
        if self._bad is None:
            return None
        step, values = jax.device_get(self._bad)
        return None if step < 0 else (int(step), {name: float(value) for name, value in values.items() if not np.isfinite(value)})

    def means(self):
        return {name: float(value) / self._count for name, value in jax.device_get(self._sums).items()}

    def to_json(self):
        return {"sums": {name: float(value) for name, value in jax.device_get(self._sums or {}).items()}, "count": self._count}


@jax.jit
def _add(sums, bad, step, metrics):
    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
    at, values = bad
    first = (at < 0) & ~jnp.stack([jnp.isfinite(value) for value in metrics.values()]).all()
    values = {name: jnp.where(first, metrics[name], values[name]) for name in metrics}
    return {name: sums[name] + metrics[name] for name in metrics}, (jnp.where(first, step, at), values)
