"""Which examples the batch of each step holds: pure functions of the step, epoch after epoch."""
import numpy as np

from vmamba_jax.data import splits


class Orders:
    """`orders(epoch)`: that epoch's order of range(n), int64, drawn from (seed, epoch, *path), or as it is without shuffling."""

    def __init__(self, n, seed, shuffle, path=()):
        self.n, self.seed, self.shuffle, self.path = n, seed, shuffle, path
        self._last = {}

    def __call__(self, epoch):
        last = self._last
        if epoch not in last:  # at most this epoch's and the one's before it are kept
            last = {k: v for k, v in last.items() if k == epoch - 1}
            last[epoch] = splits.permutation(self.n, self.seed, epoch, *self.path) if self.shuffle else np.arange(self.n)
            self._last = last
        return last[epoch]

    def __getstate__(self):
        return {**vars(self), "_last": {}}


class Epochs:
    """`epochs(t)`: (epoch, position), both (b,) int64, of the examples in the global batch of step t; n examples in all.

    steps_per_epoch: steps in which every example comes once, save the remainder that does not fill a batch (or, with drop_remainder
    False, comes as a short one).
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


class RepeatedEpochs:
    """`Epochs` in which `times` examples on end are copies of one, drawn in turn; n examples, so only every `times`-th image comes in an epoch.

    The epoch it tells is another for every copy, so that their transforms draw other numbers.
    """

    def __init__(self, n, times, batch_size, seed, shuffle, drop_remainder):
        self._inner, self._times, self._n = Epochs(n, batch_size, seed, shuffle, drop_remainder), times, n
        self.steps_per_epoch = self._inner.steps_per_epoch

    def __call__(self, t):
        epoch, step = divmod(t, self.steps_per_epoch)
        places = np.arange(step * self._inner.batch_size, min((step + 1) * self._inner.batch_size, self._n))
        images, copies = np.divmod(places, self._times)
        return epoch * self._times + copies, self._inner.order(epoch)[images]


class MixedEpochs:
    """`Epochs` of two sets side by side, positions [0, real) and [real, real + extra): every batch has `share` examples of the second.

    An epoch is one pass through the first set; the second goes through its own passes at its own pace. Its examples stand spread evenly
    through the batch, so that every host's slice has its part of them.
    """

    def __init__(self, real, extra, share, batch_size, seed, shuffle):
        self._real, self._extra, self._share = Orders(real, seed, shuffle), Orders(extra, seed, shuffle, path=(1,)), share
        self._places = np.diff(np.arange(batch_size + 1) * share // batch_size).astype(bool)
        self.steps_per_epoch = real // (batch_size - share)

    def __call__(self, t):
        epoch, step = divmod(t, self.steps_per_epoch)
        ours = len(self._places) - self._share
        epochs, positions = np.full(len(self._places), epoch), np.empty(len(self._places), np.int64)
        positions[~self._places] = self._real(epoch)[step * ours:(step + 1) * ours]
        passes, places = np.divmod(np.arange(t * self._share, (t + 1) * self._share), self._extra.n)
        epochs[self._places] = passes
        drawn = [self._extra(p)[places[passes == p]] for p in np.unique(passes).tolist()]
        positions[self._places] = self._real.n + np.concatenate([np.zeros(0, np.int64), *drawn])
        return epochs, positions
