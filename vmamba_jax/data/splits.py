"""Orders that depend on integers alone: seeded permutations and stratified splits.

Both sort raw Philox words, whose stream NumPy guarantees; `Generator.permutation` may change between NumPy releases.
"""
import numpy as np

from vmamba_jax.core import checks


def permutation(n, seed, *path):
    """A permutation of range(n), int64, as a pure function of (n, seed, *path); path separates streams, e.g. an epoch number."""
    words = np.random.Philox(np.random.SeedSequence(seed, spawn_key=path)).random_raw(n)
    return np.argsort(words, kind="stable")


def stratified(labels, sizes, seed):
    """Cut range(len(labels)) into disjoint parts of exactly these sizes, each with (to within about one) every class's share.

    labels: (n,) ints. sizes: ints that add up to n. Returns one ascending int64 array for each size.
    """
    labels = np.asarray(labels)
    if sum(sizes) != len(labels) or min(sizes) < 0:
        raise ValueError(f"sizes must be at least 0 and add up to {len(labels)}, got {tuple(sizes)}")
    order = permutation(len(labels), seed)
    place = np.empty(len(labels))  # in (0, 1): how far through its own class an example comes
    for c in np.unique(labels):
        members = order[labels[order] == c]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    mixed = order[np.argsort(place[order], kind="stable")]  # every stretch of it is proportional; ties stay in random order
    return [np.sort(part) for part in np.split(mixed, np.cumsum(sizes)[:-1])]


def hold_out(labels, validation, split):
    """Indices of a released training set that belong to `split`: "validation" is a stratified draw with fixed seed 0, "train" the rest."""
    count = checks.count("validation", validation, 0)
    if count >= len(labels):
        raise ValueError(f"validation must be below the {len(labels)} training images, got {count}")
    if split == "validation" and count == 0:
        raise ValueError("split 'validation' is held out of the training images: pass validation=N, the number of them")
    train, held = stratified(labels, (len(labels) - count, count), seed=0)
    return held if split == "validation" else train
