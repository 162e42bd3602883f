"""Photos as Pillow images of mode L or RGB: from and to uint8 arrays, and resized."""
import numpy as np
from PIL import Image

FILTERS = {name: getattr(Image.Resampling, name.upper()) for name in ("nearest", "bilinear", "bicubic", "lanczos")}


def as_photo(image):
    """A Pillow image, L for one channel and else RGB, of a uint8 array (H, W, C), C 1 or 3, or of any Pillow image."""
    if isinstance(image, Image.Image):
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"image must be a Pillow image or a uint8 array (H, W, C) with C 1 or 3, got {given}")
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def as_array(photo):
    """uint8 (H, W, C) of a Pillow image of mode L or RGB."""
    x = np.asarray(photo)
    return x if x.ndim == 3 else x[..., None]


def resize_short(photo, length, interpolation):
    """The photo with a short side of `length` pixels, the long one in proportion, rounded down."""
    w, h = photo.size
    size = (length, int(length * h / w)) if w <= h else (int(length * w / h), length)
    return photo.resize(size, FILTERS[interpolation])


def centre_crop(photo, size):
    """The square of `size` pixels in the photo's middle; offsets round as torchvision's CenterCrop does."""
    w, h = photo.size
    left, top = round((w - size) / 2), round((h - size) / 2)
    return photo.crop((left, top, left + size, top + size))
