"""The nineteen corruptions by name: the function that applies each and the one that draws its random numbers."""
from collections.abc import Callable
from typing import NamedTuple

from vmamba_jax.evaluation.corruptions import blur, digital, noise, weather

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS = tuple(name for names in GROUPS.values() for name in names)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")


class Corruption(NamedTuple):
    """A corruption.

    Attributes:
        apply: (image (H, W, 3) in [0, 1], draws, *parameters) -> the corrupted image, before truncation to levels.
        draw: (key, image, *parameters) -> draws; None: nothing is random.
        pointwise: whether a pixel of the result depends only on the same pixel of the image and its draws.
    """
    apply: Callable
    draw: Callable | None = None
    pointwise: bool = False


FUNCTIONS = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.draw_normals, pointwise=True),
    "shot_noise": Corruption(noise.shot_noise, noise.draw_photons),
    "impulse_noise": Corruption(noise.impulse_noise, noise.draw_impulses, pointwise=True),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(blur.glass_blur, blur.draw_offsets),
    "motion_blur": Corruption(blur.motion_blur, blur.draw_angle),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, weather.draw_snow),
    "frost": Corruption(weather.frost, weather.draw_patch, pointwise=True),
    "fog": Corruption(weather.fog, weather.draw_uniforms),
    "brightness": Corruption(digital.brightness, pointwise=True),
    "contrast": Corruption(digital.contrast),
    "elastic_transform": Corruption(digital.elastic_transform, digital.draw_elastic),
    "pixelate": Corruption(digital.pixelate),
    "jpeg_compression": Corruption(digital.jpeg_compression),
    "speckle_noise": Corruption(noise.speckle_noise, noise.draw_normals, pointwise=True),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(weather.spatter, weather.draw_layer),
    "saturate": Corruption(digital.saturate, pointwise=True),
}
