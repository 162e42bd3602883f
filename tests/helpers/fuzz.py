"""Mutated files for a reader of foreign bytes: every call returns or raises a ValueError that names the file, within time and memory."""
import gc
import time
import tracemalloc

import numpy as np

BIG = (-1, 0, 1, 7, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1)
DIGITS = (b"0", b"-1", b"1e999", b"4294967296", b"9" * 30, b"[" * 30, b"{}", b'"', b"null", b"\xff", b"\0")
SECONDS, SPARE, TIMES = 5, 50e6, 8  # what a file may take: seconds; bytes of memory, and times its size


def mutate(rng, data, others):
    """The bytes with one to four random changes; `others` are contents to splice from."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(data) + 1))
        match rng.integers(0, 8):
            case 0:
                data[at:at + 1] = bytes([(data[at] if at < len(data) else 0) ^ (1 << int(rng.integers(8)))])
            case 1:
                data[at:at + 1] = bytes([int(rng.integers(256))])
            case 2 | 3:
                size, order = int(rng.choice([1, 2, 4, 8])), ("little", "big")[rng.integers(2)]
                data[at:at + size] = (BIG[rng.integers(len(BIG))] % 256**size).to_bytes(size, order)
            case 4:
                del data[at:at + int(rng.choice([1, 2, 40, 10**9], p=[0.3, 0.3, 0.3, 0.1]))]
            case 5:
                other = others[rng.integers(len(others))]
                start = int(rng.integers(0, len(other) + 1))
                data[at:at] = other[start:start + int(rng.integers(1, 200))]
            case 6:
                data[at:at] = data[at:at + int(rng.integers(1, 200))] * int(rng.choice([1, 2, 50]))
            case 7:
                text = DIGITS[rng.integers(len(DIGITS))]
                data[at:at + len(text)] = text
    return bytes(data)


def fuzz(read, seeds, path, count, named=None):
    """Read `count` mutated files and assert the rule for each.

    Args:
        read: function of the path.
        seeds: list of (content, function that packs a mutated content into a file's bytes).
        path: of the file, which is written anew.
        count: number of files.
        named: what an error must contain; None: the path.

    Returns:
        (number of files refused, highest memory in bytes, longest time in seconds), for a note.
    """
    rng, others = np.random.default_rng(0), [content for content, _ in seeds]
    refused, most, longest = 0, 0, 0.0
    gc.collect()
    tracemalloc.start()
    try:
        for i in range(count):
            content, pack = seeds[i % len(seeds)]
            data = pack(mutate(rng, content, others))
            path.write_bytes(data)
            tracemalloc.reset_peak()
            before, since = tracemalloc.get_traced_memory()[0], time.perf_counter()
            try:
                read(path)
            except (ValueError, FileNotFoundError) as error:  # the latter where the file names others
                refused += 1
                assert str(named or path) in str(error), (i, error)
            except Exception as error:
                raise AssertionError(f"file {i} of {len(data)} bytes raised {type(error).__name__}: {error}") from error
            seconds, peak = time.perf_counter() - since, tracemalloc.get_traced_memory()[1] - before
            assert seconds < SECONDS and peak < SPARE + TIMES * len(data), (i, len(data), seconds, peak)
            most, longest = max(most, peak), max(longest, seconds)
    finally:
        tracemalloc.stop()
    return refused, most, longest


def plain(data):
    """A content that is the file itself."""
    return data
