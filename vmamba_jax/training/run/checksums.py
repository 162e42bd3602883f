"""Checksums of saved arrays: a byte that changes on disk restores silently otherwise."""
import json
import zlib

import jax
import numpy as np


def of_tree(tree):
    """{"a/b": CRC-32} of the arrays of nested dicts, as their bytes lie in C order.

    An array that no single host holds whole is left out; one that is the same everywhere counts once, so hosts agree.
    """
    return {name: of_array(leaf) for name, leaf in flat(tree).items() if _is_here(leaf)}


def of_array(array):
    """CRC-32 of an array's bytes."""
    if isinstance(array, jax.Array) and array.is_fully_replicated:
        array = array.addressable_data(0)
    array = np.ascontiguousarray(array)
    return zlib.crc32(array.reshape(-1).view(np.uint8))


def of_json(content):
    """CRC-32 of what `content` is as JSON."""
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())


def differing(tree, saved):
    """Names in `saved` whose array in the tree has another checksum, sorted."""
    found = of_tree(tree)
    return sorted(name for name, value in saved.items() if name in found and found[name] != value)


def flat(tree, prefix=""):
    """{"a/b": leaf} of nested dicts; empty dicts and None leave nothing."""
    if isinstance(tree, dict):
        return {name: leaf for key, child in tree.items() for name, leaf in flat(child, f"{prefix}/{key}" if prefix else key).items()}
    return {} if tree is None else {prefix: tree}


def _is_here(array):
    return not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated
