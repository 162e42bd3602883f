"""Image files to uint8 arrays with Pillow: color mode, orientation, resize and center crop."""
import contextlib
import dataclasses
import io
import os
import stat

import numpy as np
from PIL import Image, ImageOps

from vmamba_jax.core import checks

FILTERS = {name: getattr(Image.Resampling, name.upper()) for name in ("nearest", "bilinear", "bicubic", "lanczos")}
_MODES = {1: "L", 3: "RGB"}
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow would also run Ghostscript on an EPS file, whatever its name
MOST_PIXELS = 1 << 26  # of any image; the largest of ImageNet has 61 million
SPARE_PIXELS, PIXELS_PER_BYTE = 1 << 24, 16  # of an image, whose pixels take up to 12 bytes each; JPEG files of photos have 2 to 10 per byte
MOST_RESIZED = 1 << 24  # pixels of an image after the resize; the crop needs a few thousand of them


class BadImageError(ValueError):
    """An image that does not decode; the message names it."""


@dataclasses.dataclass(frozen=True)
class Decoder:
    """`decoder(encoded, name)` -> uint8 (H, W, channels), of encoded bytes or a uint8 array.

    A call raises BadImageError (a ValueError) with the name if the image does not decode. Formats: BMP, GIF, JPEG, PNG, PPM, TIFF and WebP. An
    image may have 2**24 pixels and 16 more per byte of its file, at most 2**26, and 2**24 after the resize; decoding takes up to 12 bytes of
    memory for each.

    Attributes:
        size: side of the square center crop, pixels; None: no resize and no crop.
        resize: length of the short side before the crop, pixels, at least `size`; None: int(size * 256 / 224), the usual ImageNet evaluation
            (256 for 224). Lengths and offsets of the crop round as torchvision's Resize and CenterCrop do on Pillow images.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos", anti-aliased.
        channels: 3 (gray images are repeated, alpha is dropped) or 1.
        exif: apply the EXIF orientation (torchvision's loaders do not).
        draft: decode JPEG files at the smallest of 1/1, 1/2, 1/4, 1/8 of their size whose sides are at least this many pixels: several times
            faster on large photos, with slightly different pixels; None: at full size.
    """

    size: int | None = None
    resize: int | None = None
    interpolation: str = "bicubic"
    channels: int = 3
    exif: bool = True
    draft: int | None = None

    def __post_init__(self):
        if self.size is not None:
            checks.count("size", self.size)
        if self.resize is not None:
            if self.size is None:
                raise ValueError(f"resize={self.resize} with size=None: expected size too, the side of the crop after the resize")
            checks.count("resize", self.resize, self.size)
        if self.draft is not None:
            checks.count("draft", self.draft, self._short if self.size else 1)
        checks.choice("interpolation", self.interpolation, FILTERS)
        checks.choice("channels", self.channels, _MODES)

    @property
    def image_shape(self):
        """(size, size, channels), or None if images keep their size."""
        return None if self.size is None else (self.size, self.size, self.channels)

    @property
    def _short(self):
        return self.resize or int(self.size * 256 / 224)

    def __call__(self, encoded, name):
        image = self.open(encoded, name)
        with _naming(name):
            return as_array(self.crop(image))

    def open(self, encoded, name):
        """The whole image before the crop: a loaded PIL.Image, upright, of mode "RGB" or "L" by `channels`."""
        with _naming(name):
            if isinstance(encoded, np.ndarray):
                image = as_photo(encoded)
            else:
                image = Image.open(io.BytesIO(encoded), formats=FORMATS)
                check_pixels(image.size, len(encoded))
                if self.draft:
                    image.draft(None, (self.draft, self.draft))
                if self.exif:
                    ImageOps.exif_transpose(image, in_place=True)
            return _eight_bit(image).convert(_MODES[self.channels])

    def crop(self, image):
        """A Pillow image resized and cropped to `size`; unchanged without one."""
        if self.size is None:
            return image
        return center_crop(resize_short(image, self._short, self.interpolation), self.size)


def as_photo(image):
    """A Pillow image of mode L (one channel) or RGB, from a uint8 array (H, W, C) with C 1 or 3, or from any Pillow image."""
    if isinstance(image, Image.Image):
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        given = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"image={given}: expected a Pillow image or a uint8 array (H, W, C) with C 1 or 3")
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def as_array(photo):
    """uint8 (H, W, C) of a Pillow image of mode L or RGB."""
    x = np.asarray(photo)
    return x if x.ndim == 3 else x[..., None]


def resize_short(photo, length, interpolation):
    """The photo with a short side of `length` pixels and the long side in proportion, rounded down."""
    w, h = photo.size
    size = (length, int(length * h / w)) if w <= h else (int(length * w / h), length)
    if size[0] * size[1] > max(MOST_RESIZED, w * h):
        raise BadImageError(f"an image of {w} x {h} pixels would have {size[0]} x {size[1]} after the resize; expected at most {MOST_RESIZED} pixels")
    return photo.resize(size, FILTERS[interpolation])


def center_crop(photo, size):
    """The center square of `size` pixels; offsets round as torchvision's CenterCrop does."""
    w, h = photo.size
    left, top = round((w - size) / 2), round((h - size) / 2)
    return photo.crop((left, top, left + size, top + size))


def check_pixels(size, encoded):
    """Raise a ValueError if an image of `size` (width, height) in a file of `encoded` bytes has more pixels than such a file may have."""
    limit = min(MOST_PIXELS, SPARE_PIXELS + PIXELS_PER_BYTE * encoded)
    if size[0] * size[1] > limit:
        raise ValueError(f"it has {size[0]} x {size[1]} pixels; expected at most {limit} in a file of {encoded} bytes")


def read_file(path):
    """The bytes of an image file; BadImageError with the path if it cannot be read or is no regular file (a pipe would never end)."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise BadImageError(f"{path}: expected a regular file")
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadImageError(f"{path}: expected a file that can be read, but {error.strerror or error}") from error


def file_size(path):
    """Bytes of a file; -1: it cannot be read."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


@contextlib.contextmanager
def _naming(name):
    try:
        yield
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ... on damaged files
        raise BadImageError(f"{name}: expected an image file that Pillow can decode, but {str(error)[:500] or type(error).__name__}") from error


def _eight_bit(image):
    if image.mode.startswith("I"):  # 16-bit gray, which Pillow's own conversion would clip
        x = np.asarray(image)
        if x.min() < 0 or x.max() > 65535:
            raise ValueError(f"its gray values {x.min()} to {x.max()} do not fit 16 bits")
        return Image.fromarray(((x.astype(np.uint32) * 2 + 257) // 514).astype(np.uint8))  # x / 257, rounded: never halfway, as 257 is odd
    if image.mode == "F":
        raise ValueError("its pixels are floating-point")
    return image.convert("RGBA") if "transparency" in image.info else image
