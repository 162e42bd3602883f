"""The nineteen corruptions by name: what draws their random numbers, what applies them."""
from typing import NamedTuple

from vmamba_jax.evaluation.corruptions import blur, colour, digital, fog, frost, glass, jpeg, motion, noise, pixelate, spatter, weather

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS = tuple(name for names in GROUPS.values() for name in names)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")


class Corruption(NamedTuple):
    """apply: (image (H, W, 3) in [0, 1], draws, *parameters) -> the corrupted image before it is cut down to levels.
    draw: (key, image, *parameters) -> draws; None where nothing is random. pointwise: every pixel is made of the
    same pixel and its draws."""
    apply: callable
    draw: callable = None
    pointwise: bool = False


FUNCTIONS = {
    "gaussian_noise": Corruption(noise.gaussian_noise, noise.draw_normals, pointwise=True),
    "shot_noise": Corruption(noise.shot_noise, noise.draw_photons),
    "impulse_noise": Corruption(noise.impulse_noise, noise.draw_impulses, pointwise=True),
    "defocus_blur": Corruption(blur.defocus_blur),
    "glass_blur": Corruption(glass.glass_blur, glass.draw_offsets),
    "motion_blur": Corruption(motion.motion_blur, motion.draw_angle),
    "zoom_blur": Corruption(blur.zoom_blur),
    "snow": Corruption(weather.snow, weather.draw_snow),
    "frost": Corruption(frost.frost, frost.draw_patch, pointwise=True),
    "fog": Corruption(fog.fog, fog.draw_uniforms),
    "brightness": Corruption(colour.brightness, pointwise=True),
    "contrast": Corruption(colour.contrast),
    "elastic_transform": Corruption(digital.elastic_transform, digital.draw_elastic),
    "pixelate": Corruption(pixelate.pixelate),
    "jpeg_compression": Corruption(jpeg.jpeg_compression),
    "speckle_noise": Corruption(noise.speckle_noise, noise.draw_normals, pointwise=True),
    "gaussian_blur": Corruption(blur.gaussian_blur),
    "spatter": Corruption(spatter.spatter, spatter.draw_layer),
    "saturate": Corruption(colour.saturate, pointwise=True),
}
