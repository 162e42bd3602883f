"""The examples of each step's batch: pure functions of the step, epoch after epoch."""
import numpy as np

from vmamba_jax.data import splits


class Orders:
    """`orders(epoch)`: the order of range(n) in that epoch, int64.

    Args:
        n: number of examples.
        seed: of the permutations, each drawn from (seed, epoch, *path).
        shuffle: False: ascending order in every epoch.
        path: separates the streams of several sets that share a seed.
    """

    def __init__(self, n, seed, shuffle, path=()):
        self.n, self.seed, self.shuffle, self.path = n, seed, shuffle, path
        self._last = {}

    def __call__(self, epoch):
        last = self._last
        if epoch not in last:  # only this epoch's order and the previous one's are cached
            last = {k: v for k, v in last.items() if k == epoch - 1}
            last[epoch] = splits.permutation(self.n, self.seed, epoch, *self.path) if self.shuffle else np.arange(self.n)
            self._last = last
        return last[epoch]

    def __getstate__(self):
        return {**vars(self), "_last": {}}


class Epochs:
    """`epochs(t)`: (epoch, position) of the examples in the global batch of step t, both (b,) int64.

    Args:
        n: number of examples.
        batch_size: of the global batch.
        seed, shuffle: see `Orders`.
        drop_remainder: leave out the examples that do not fill a batch; False: an epoch ends with a short batch.

    Attributes:
        steps_per_epoch: steps in which every example comes once, except a remainder that is dropped.
    """

    def __init__(self, n, batch_size, seed, shuffle, drop_remainder):
        self.batch_size, self._orders = batch_size, Orders(n, seed, shuffle)
        self.steps_per_epoch = n // batch_size if drop_remainder else -(-n // batch_size)

    def order(self, epoch):
        """Positions of an epoch's examples, (n,)."""
        return self._orders(epoch)

    def __call__(self, t):
        epoch, step = divmod(t, self.steps_per_epoch)
        part = self.order(epoch)[step * self.batch_size:(step + 1) * self.batch_size]
        return np.full(len(part), epoch), part
