"""Means of metrics over a window of steps and counts of skipped steps, summed on the device so that no step waits for the host."""
import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.training.optimization.skipping import SKIPPED, finite

NONE = np.int32(-1)


class Window:
    """Sums since the last log line; `Window(**window.to_json(), limits=limits)` restores one bit-exactly.

    A step with a non-finite metric counts as skipped and is not added to the sums.

    Args:
        sums: {name: float}.
        taken, skipped: numbers of steps in the window.
        in_a_row, in_all: numbers of skipped steps in the whole run: the latest in a row, and in total.
        limits: (in a row, in total) maximum numbers of skipped steps; None: no limit.
    """

    def __init__(self, sums=None, taken=0, skipped=0, in_a_row=0, in_all=0, limits=(0, None)):
        self._counts = {name: np.int32(n) for name, n in (("taken", taken), (SKIPPED, skipped), ("in_a_row", in_a_row), ("in_all", in_all))}
        self._sums = {name: np.float32(value) for name, value in sums.items()} if sums else None
        self._stop = None  # the first step beyond the limits, its values, and the counts there
        self._limits = tuple(np.int32(np.iinfo(np.int32).max if limit is None else limit) for limit in limits)

    def add(self, step, metrics):
        metrics = {name: value for name, value in metrics.items() if name != SKIPPED}
        if self._sums and self._sums.keys() != metrics.keys():
            raise ValueError(f"metrics={sorted(metrics)} of step {step}: expected {sorted(self._sums)}, as in the steps before")
        zeros = dict.fromkeys(metrics, np.float32(0))
        stop = self._stop or (NONE, zeros, self._counts)
        self._sums, self._counts, self._stop = _add(self._sums or zeros, self._counts, stop, self._limits, np.int32(step), metrics)

    def beyond_limits(self):
        """(step, its non-finite metrics, {"in_a_row": n, "in_all": n}) of the first step beyond the limits, or None."""
        if self._stop is None:
            return None
        step, values, counts = jax.device_get(self._stop)
        if step < 0:
            return None
        bad = {name: float(value) for name, value in values.items() if not np.isfinite(value)}
        return int(step), bad, {name: int(counts[name]) for name in ("in_a_row", "in_all")}

    def means(self):
        """{name: mean over the steps that were not skipped} (empty if all were), and the number "skipped"."""
        sums, counts = jax.device_get((self._sums or {}, self._counts))
        means = {name: float(value) / int(counts["taken"]) for name, value in sums.items()} if counts["taken"] else {}
        return means | {SKIPPED: int(counts[SKIPPED])}

    def restart(self):
        """Begins the next window; the counts over the whole run stay."""
        self._sums, self._counts = None, self._counts | {"taken": np.int32(0), SKIPPED: np.int32(0)}

    def to_json(self):
        """The window as plain numbers, for a checkpoint."""
        sums, counts = jax.device_get((self._sums or {}, self._counts))
        return {"sums": {name: float(value) for name, value in sums.items()}, **{name: int(n) for name, n in counts.items()}}


@jax.jit
def _add(sums, counts, stop, limits, step, metrics):
    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
    good = finite(metrics)
    skipped = jnp.asarray(~good, jnp.int32)
    sums = {name: jnp.where(good, sums[name] + metrics[name], sums[name]) for name in metrics}
    counts = {"taken": counts["taken"] + 1 - skipped, SKIPPED: counts[SKIPPED] + skipped, "in_all": counts["in_all"] + skipped,
              "in_a_row": jnp.where(good, 0, counts["in_a_row"] + 1)}
    beyond = (counts["in_a_row"] > limits[0]) | (counts["in_all"] > limits[1])
    first = (stop[0] < 0) & beyond & ~good
    stop = jax.tree.map(lambda new, old: jnp.where(first, new, old), (step, metrics, counts), stop)
    return sums, counts, stop
