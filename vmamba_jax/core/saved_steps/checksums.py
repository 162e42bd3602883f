"""Checksums of saved arrays, without which a byte changed on disk would be restored unnoticed."""
import json
import zlib

import jax
import numpy as np
from flax import traverse_util

from vmamba_jax.core.gathered import on_host


def of_tree(tree):
    """{"a/b": CRC-32} of the arrays of nested dicts, of their bytes in C order, in order of their names.

    An array sharded over hosts is gathered, so all hosts must call this together; a replicated one is read from one device.
    """
    return {name: of_array(leaf) for name, leaf in sorted(flat(tree).items())}


def of_array(array):
    """CRC-32 of an array's bytes."""
    if isinstance(array, jax.Array) and array.is_fully_replicated:
        array = array.addressable_data(0)
    array = np.ascontiguousarray(on_host(array))
    return zlib.crc32(array.reshape(-1).view(np.uint8))


def of_json(content):
    """CRC-32 of `content` as JSON with sorted keys."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def differing(tree, saved):
    """Sorted names of `saved` whose array in the tree has another checksum."""
    found = of_tree(tree)
    return sorted(name for name, value in saved.items() if name in found and found[name] != value)


def flat(tree):
    """{"a/b": leaf} of nested dicts, without empty dicts and None."""
    return {name: leaf for name, leaf in traverse_util.flatten_dict(tree, sep="/").items() if leaf is not None}

