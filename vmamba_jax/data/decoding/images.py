"""From encoded image files to uint8 arrays: colour mode, orientation, resize and centre crop, with Pillow."""
import contextlib
import dataclasses
import io

import numpy as np
from PIL import Image, ImageOps

from vmamba_jax.core import checks
from vmamba_jax.data.decoding.photo import FILTERS, as_array, as_photo, centre_crop, resize_short

_MODES = {1: "L", 3: "RGB"}


class BadImageError(ValueError):
    """An image that does not decode; the message names it."""


@dataclasses.dataclass(frozen=True)
class Decoder:
    """`decoder(encoded_bytes_or_uint8_array, name)` -> uint8 (H, W, channels); BadImageError (a ValueError) naming it where that fails.

    size: side of the square centre crop; None leaves images as they are. resize: length the short side is first scaled to, at least
    `size`; None: int(size * 256 / 224), the usual ImageNet evaluation (256 for 224). Lengths and crop offsets round as torchvision's
    Resize and CenterCrop do on Pillow images.
    interpolation: "nearest", "bilinear", "bicubic" or "lanczos", anti-aliased. channels: 3 (grey images are repeated, alpha is
    dropped) or 1. exif: turn the image as its EXIF orientation says (torchvision's loaders do not).
    draft: decode JPEG files at the smallest of 1/1, 1/2, 1/4, 1/8 of their size whose sides are at least so many pixels: several times
    faster on large photos, with slightly other pixels; None: at full size.
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
                raise ValueError(f"resize needs size, the side of the crop that follows it; got resize={self.resize} and size=None")
            checks.count("resize", self.resize, self.size)
        if self.draft is not None:
            checks.count("draft", self.draft, self._short if self.size else 1)
        checks.choice("interpolation", self.interpolation, FILTERS)
        checks.choice("channels", self.channels, _MODES)

    @property
    def image_shape(self):
        return None if self.size is None else (self.size, self.size, self.channels)

    @property
    def _short(self):
        return self.resize or int(self.size * 256 / 224)

    def __call__(self, encoded, name):
        image = self.open(encoded, name)
        with _naming(name):
            return as_array(self._crop(image))

    def open(self, encoded, name):
        """The whole image before the crop: a loaded PIL.Image, upright, of mode "RGB" or "L" as `channels` says."""
        with _naming(name):
            if isinstance(encoded, np.ndarray):
                image = as_photo(encoded)
            else:
                image = Image.open(io.BytesIO(encoded))
                if self.draft:
                    image.draft(None, (self.draft, self.draft))
                if self.exif:
                    ImageOps.exif_transpose(image, in_place=True)
            return _eight_bit(image).convert(_MODES[self.channels])

    def _crop(self, image):
        if self.size is None:
            return image
        return centre_crop(resize_short(image, self._short, self.interpolation), self.size)


@contextlib.contextmanager
def _naming(name):
    try:
        yield
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ... on damaged files
        raise BadImageError(f"{name}: expected an image file that Pillow can decode, but {error}") from error


def _eight_bit(image):
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow's own conversion would clip
        x = np.asarray(image)
        if x.min() < 0 or x.max() > 65535:
            raise ValueError(f"its grey values {x.min()} to {x.max()} do not fit 16 bits")
        return Image.fromarray(np.round(x / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point")
    return image.convert("RGBA") if "transparency" in image.info else image
