"""CRC-32C (Castagnoli) with NumPy, and the masked form that TFRecord files store.

The CRC is linear over XOR: a block's is the XOR of one table entry per byte, by its value and its distance from the block's end.

Source: RFC 3720, appendix B.4; the mask is TensorFlow's (tensorflow/core/lib/hash/crc32c.h).
"""
import functools

import numpy as np

POLYNOMIAL = 0x82F63B78
BLOCK = 1024  # bytes; its table of BLOCK x 256 takes 1 MB, which a core's cache holds


def crc32c(content):
    """CRC-32C of bytes, as an int: 0xE3069283 of b"123456789"."""
    steps, rows, table, _ = _tables()
    data = np.frombuffer(content, np.uint8)
    state, head = 0xFFFFFFFF, len(data) % BLOCK
    if head:
        state = _advance(state, head) ^ int(np.bitwise_xor.reduce(steps.take(rows[-head:] + data[:head])))
    blocks = data[head:].reshape(-1, BLOCK)
    for first in range(0, len(blocks), BLOCK):
        for one in np.bitwise_xor.reduce(steps.take(rows + blocks[first:first + BLOCK]), axis=1).tolist():
            state = int(table[0, state & 255] ^ table[1, state >> 8 & 255] ^ table[2, state >> 16 & 255] ^ table[3, state >> 24]) ^ one
    return state ^ 0xFFFFFFFF


def masked(content):
    """TFRecord's CRC of bytes: rotated right by 15 bits, plus a constant."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _advance(state, n):
    """The state after n zero bytes."""
    *_, one = _tables()
    for _ in range(n):
        state = state >> 8 ^ one[state & 255]
    return state


@functools.cache
def _tables():
    """Contributions of a byte by its value: steps (BLOCK x 256,) flat, by the number of bytes after it; rows (BLOCK,), where those of a block's bytes begin in
    it; table (4, 256), of a state's bytes a block later; the list of those of a state's last byte."""
    one = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = one >> np.uint32(1) ^ np.where(one & 1, np.uint32(POLYNOMIAL), np.uint32(0))
    steps = np.empty((BLOCK, 256), np.uint32)
    steps[0] = one
    for k in range(1, BLOCK):
        steps[k] = steps[k - 1] >> np.uint32(8) ^ one[steps[k - 1] & np.uint32(255)]
    table = np.stack([np.arange(256, dtype=np.uint32) << np.uint32(8 * k) for k in range(4)])
    for _ in range(BLOCK):
        table = table >> np.uint32(8) ^ one[table & np.uint32(255)]
    return steps.ravel(), np.arange(BLOCK - 1, -1, -1) * 256, table, one.tolist()
