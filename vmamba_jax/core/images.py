"""Pixel values: uint8 to [0, 1], and ImageNet's mean and standard deviation."""
import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # per RGB channel, of images in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)

# value / 255 for each uint8 value. On a device, index this table: XLA's division by a constant may differ in the last bit.
LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
SMALL_FLOATS = ("bfloat16",)  # floating types that are no kind "f" to NumPy


def unit_interval(images):
    """Images on the host in [0, 1]: gray levels divided by 255 as float32; floating images unchanged.

    Args:
        images: uint8; another integer type with values from 0 to 255 and some above 1; or floating in [0, 1].

    Raises:
        ValueError: floating images with values outside [0, 1] or NaN. TypeError: other types, and integers of another range.
    """
    images = gray_levels(images)
    if images.dtype == np.uint8:
        return np.divide(images, np.float32(255), dtype=np.float32)
    if not (images.dtype.kind == "f" or images.dtype.name in SMALL_FLOATS):
        raise TypeError(f"images.dtype={images.dtype}: expected uint8, or a floating type in [0, 1]")
    if images.size and not (images.min() >= -1e-6 and images.max() <= 1 + 1e-6):
        raise ValueError(f"images=[{images.min():g}, {images.max():g}] (range of values): expected values in [0, 1]")
    return images


def gray_levels(images):
    """Images on the host as uint8 if they are integers from 0 to 255 with some above 1, else unchanged.

    Raises:
        TypeError: integers of another range: 0 and 1 may be levels of 255 or of 1, and values above 255 are levels of another depth.
    """
    if images.dtype.kind not in "iu" or images.dtype == np.uint8 or not images.size:
        return images
    low, high = int(images.min()), int(images.max())
    if low < 0 or not 1 < high <= 255:
        raise TypeError(f"images.dtype={images.dtype} with values in [{low}, {high}]: expected uint8, or a floating type in [0, 1]")
    return images.astype(np.uint8)
