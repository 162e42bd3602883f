"""Pixel values: uint8 to [0, 1], and ImageNet's mean and standard deviation."""
import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # per RGB channel, of images in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)

# value / 255 for each uint8 value. On a device, index this table: XLA's division by a constant may differ in the last bit.
LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)


def unit_interval(images):
    """Images on the host in [0, 1]: uint8 divided by 255 as float32; floating images unchanged.

    Raises:
        ValueError: floating images with values outside [0, 1]. TypeError: images neither uint8 nor floating.
    """
    if images.dtype == np.uint8:
        return np.divide(images, np.float32(255), dtype=np.float32)
    if images.dtype.kind != "f":
        raise TypeError(f"images are {images.dtype}: expected uint8, or a floating type in [0, 1]")
    if not (images.min() >= -1e-6 and images.max() <= 1 + 1e-6):
        raise ValueError(f"images range over [{images.min():g}, {images.max():g}]: expected [0, 1]")
    return images
