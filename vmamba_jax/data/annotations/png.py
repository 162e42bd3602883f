"""Masks as gray image files: foreground where the value is not 0."""
import pathlib

import numpy as np
from scipy import ndimage

from vmamba_jax.core import checks
from vmamba_jax.data.decoding.images import Decoder, read_file


def read_png(path):
    """The mask (H, W) of a gray image file, True where the value is not 0; of a color or palette file, where any channel is not 0.

    Raises:
        BadImageError: a file that does not decode; the message names it.
    """
    image = Decoder(channels=3, exif=False).open(read_file(path), str(path))
    return np.asarray(image).any(-1)


def find_png(folder, name):
    """The mask of an image: FOLDER/NAME.png, or FOLDER/NAME.png.bmp, NAME without folders and suffix; None if there is none."""
    stem = pathlib.PurePath(name).stem
    return next((path for suffix in (".png", ".png.bmp") if (path := pathlib.Path(folder) / f"{stem}{suffix}").is_file()), None)


def dilate(mask, iterations=10):
    """The mask grown by a 3 x 3 square so many times; the released program has 10 for some sets."""
    count = checks.count("iterations", iterations, 0)
    return ndimage.binary_dilation(mask, np.ones((3, 3), bool), iterations=count) if count else np.asarray(mask, bool)
