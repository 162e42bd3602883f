"""scikit-learn's handwritten digits: 1,797 real 8x8 images that ship with the package (Alpaydin and Kaynak, 1998; UCI)."""
import functools

import numpy as np

from vmamba_jax.data import splits
from vmamba_jax.data.datasets.locate import SPLITS, check_split
from vmamba_jax.data.source import Arrays

SIZES = (1257, 180, 360)  # train, validation, test: 70 / 10 / 20 %


def load(split, root=None):
    """One of three fixed, disjoint, stratified splits (seed 0): train 1,257, validation 180, test 360 images.

    The set's gray values 0..16 become round(v * 255 / 16) (halves to even), so the images are (8, 8, 1) uint8.

    Args:
        split: "train", "validation" or "test".
        root: ignored; the files are inside scikit-learn.
    """
    check_split(split)
    images, labels = _digits()
    part = splits.stratified(labels, SIZES, seed=0)[SPLITS.index(split)]
    return Arrays(images[part], labels[part], range(10), name="digits", split=split)


@functools.cache
def _digits():
    from sklearn.datasets import load_digits  # slow to import
    values, labels = load_digits(return_X_y=True)
    return np.round(values.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8), labels.astype(np.int32)
