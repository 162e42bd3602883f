"""Shared memory of programs that `ptx` executes: every word with the warps that touched it."""
import numpy as np

SHARED = 2**20                 # where shared memory begins


class Fault(Exception):
    """What a kernel must not do, or an instruction that is not known."""


class SharedMemory:
    """Words of every program's shared memory, with the warps that touched each of them since the last barrier."""

    def __init__(self, programs, size):
        shape = programs, -(-size // 4)
        self.words, self.written, self.epoch = np.zeros(shape, np.uint32), np.zeros(shape, bool), 1
        self.writer, self.write_epoch = np.zeros(shape, np.int8), np.zeros(shape, np.int32)
        self.readers, self.read_epoch = np.zeros(shape, np.uint8), np.zeros(shape, np.int32)

    def _index(self, address):
        offset = address.astype(np.int64) - SHARED
        if (offset % 4).any() or (offset < 0).any() or (offset // 4 >= self.words.shape[1]).any():
            raise Fault(f"shared memory at {offset.min()} to {offset.max()}: expected words below {4 * self.words.shape[1]}")
        return offset // 4

    def read(self, address, program, warp):
        at = program, self._index(address)
        if not self.written[at].all():
            raise Fault("a word of shared memory was read that nothing wrote")
        if ((self.write_epoch[at] == self.epoch) & (self.writer[at] != warp)).any():
            raise Fault("a word of shared memory was read that another warp wrote since the last barrier")
        self.readers[at] = np.where(self.read_epoch[at] == self.epoch, self.readers[at], 0)
        self.read_epoch[at] = self.epoch
        np.bitwise_or.at(self.readers, at, (1 << warp).astype(np.uint8))
        return self.words[at]

    def write(self, address, program, warp, value):
        at = program, self._index(address)
        changed = ~self.written[at] | (self.words[at] != value)        # equal values are harmless: tiles may overlap
        others = (self.write_epoch[at] == self.epoch) & (self.writer[at] != warp)
        others |= (self.read_epoch[at] == self.epoch) & ((self.readers[at] & ~(1 << warp).astype(np.uint8)) != 0)
        if (changed & others).any():
            raise Fault("a word of shared memory was written that another warp touched since the last barrier")
        self.words[at], self.written[at], self.writer[at], self.write_epoch[at] = value, True, warp, self.epoch
        if (self.words[at] != value).any():
            raise Fault("two threads wrote different values to a word of shared memory")
