"""Seeded permutations and stratified splits, as functions of integers alone.

Both sort raw Philox words, a stream that NumPy guarantees; `Generator.permutation` may change between NumPy releases.
"""
import numpy as np

from vmamba_jax.core import checks


def permutation(n, seed, *path):
    """A permutation of range(n), int64: a pure function of (n, seed, *path).

    Args:
        n: length. seed: at least 0.
        path: integers that separate streams, such as an epoch number.
    """
    words = np.random.Philox(np.random.SeedSequence(seed, spawn_key=path)).random_raw(n)
    return np.argsort(words, kind="stable")


def stratified(labels, sizes, seed):
    """Disjoint parts of range(len(labels)) with exactly these sizes, each with every class in proportion (to within about one example).

    Args:
        labels: (n,) integers.
        sizes: non-negative integers with sum n.
        seed: of the draw.

    Returns:
        A list with one ascending int64 array per size.
    """
    labels = np.asarray(labels)
    if sum(sizes) != len(labels) or min(sizes) < 0:
        raise ValueError(f"sizes={tuple(sizes)}: expected non-negative integers with sum {len(labels)}")
    order = permutation(len(labels), seed)
    place = np.empty(len(labels))  # in (0, 1): the position of an example within its class
    for c in np.unique(labels):
        members = order[labels[order] == c]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    mixed = order[np.argsort(place[order], kind="stable")]  # every stretch of it is proportional; ties stay in random order
    return [np.sort(part) for part in np.split(mixed, np.cumsum(sizes)[:-1])]


def hold_out(labels, validation, split):
    """Positions in a released training set of split "validation", a stratified draw with fixed seed 0, or of split "train", the rest.

    Args:
        labels: (n,) of the training set.
        validation: number of examples to hold out, below n.
        split: "train" or "validation".
    """
    n = checks.count("validation", validation, 0)
    if n >= len(labels):
        raise ValueError(f"validation={n}: expected fewer than the {len(labels)} training images")
    if split == "validation" and n == 0:
        raise ValueError("validation=0: expected the number of training images to hold out as split 'validation'")
    train, held_out = stratified(labels, (len(labels) - n, n), seed=0)
    return held_out if split == "validation" else train
