"""Brightness, contrast and saturation."""
import jax.numpy as jnp


def brightness(image, draws, amount):
    """The value of HSV raised by `amount`, at most to 1; hue and saturation stay: a common factor for the three channels."""
    del draws
    value = _across(jnp.maximum, image)
    raised = jnp.clip(value + amount, 0, 1)
    return jnp.where(value > 0, image * (raised / jnp.where(value > 0, value, 1)), raised)


def contrast(image, draws, factor):
    """Distance from each channel's mean, times `factor`."""
    del draws
    rows = image.reshape(len(image), -1)
    mean = jnp.tile(rows.mean(0).reshape(-1, image.shape[-1]).mean(0), image.shape[1])
    return ((rows - mean) * factor + mean).reshape(image.shape)


def saturate(image, draws, factor, amount):
    """The saturation s of HSV becomes clip(factor * s + amount); grey counts as red of saturation 0, as in skimage."""
    del draws
    value, least = _across(jnp.maximum, image), _across(jnp.minimum, image)
    spread = value - least
    grey = spread == 0
    short = jnp.where(grey, jnp.array([0.0, 1.0, 1.0]), (value - image) / jnp.where(grey, 1, spread))  # of the value, by channel
    saturation = jnp.clip(spread / jnp.where(value > 0, value, 1) * factor + amount, 0, 1)
    return value * (1 - saturation * short)


def _across(function, image):
    """The greatest or least of the three channels, (H, W, 1); a reduction over the last axis takes a CPU ten times as long."""
    return function(function(image[..., 0], image[..., 1]), image[..., 2])[..., None]
