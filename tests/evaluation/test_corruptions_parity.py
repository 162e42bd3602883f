"""Corruptions with the random numbers of the released programs, compared with the results of those programs."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.evaluation import corruptions
from vmamba_jax.evaluation.corruptions import weather
from vmamba_jax.evaluation.corruptions.blur import motion_blur
from vmamba_jax.evaluation.corruptions.reproducible import truncated

STRIDE = {32: 1, 224: 7}  # at 224 every seventh row and column of the results is kept
LIKE_PACKAGE = [name for name in corruptions.FUNCTIONS if name not in ("impulse_noise", "frost")]  # impulse noise used another generator


def released_draws(name, image, severity, parameters):
    """Random numbers of the released program after `numpy.random.seed(1000 + severity)`."""
    rng, side = np.random.RandomState(1000 + severity), len(image)

    def uniform(*shape):
        return np.float32(2 * rng.random_sample(shape) - 1)
    match name:
        case "gaussian_noise" | "speckle_noise":
            return np.float32(rng.normal(size=image.shape))
        case "shot_noise":
            return np.float32(rng.poisson(image / 255 * parameters[0]))
        case "glass_blur":
            _, reach, passes = parameters
            moves = rng.randint(-reach, reach, size=(passes, side - 2 * reach, side - 2 * reach, 2))
            return {"dx": moves[..., 0], "dy": moves[..., 1]}
        case "motion_blur":
            return np.float32(rng.uniform(-45, 45))
        case "snow":
            return {"normals": np.float32(rng.normal(size=(side, side))), "angle": np.float32(rng.uniform(-135, -45))}
        case "frost":
            textures = weather.load_textures(side)
            which = rng.randint(5)
            height, width = textures["sizes"][which]
            row, col = rng.randint(0, height - side), rng.randint(0, width - side)
            return np.float32(textures["pixels"][which, row:row + side, col:col + side] / 255)
        case "fog":
            return uniform((1 << (side - 1).bit_length()) ** 2 - 1)
        case "elastic_transform":
            return {"corners": uniform(3, 2), "dx": uniform(side, side), "dy": uniform(side, side)}
        case "spatter":
            return np.float32(rng.normal(size=(side, side)))


@functools.cache
def arrays(load):
    return load("corruptions")


def difference(golden, name, side, severity):
    """Absolute difference from the released result, in gray levels."""
    expected = arrays(golden)
    image, parameters = expected[f"image_{side}"], corruptions.parameters(name, severity, side)
    run = jax.jit(lambda x, draws: truncated(corruptions.FUNCTIONS[name].apply(x, draws, *parameters)))
    ours = np.asarray(run(np.float32(image) / 255, released_draws(name, image, severity, parameters))) * 255
    np.testing.assert_allclose(ours, ours.round(), atol=1e-3)
    return np.abs(ours.round()[::STRIDE[side], ::STRIDE[side]] - expected[f"{name}_{side}_s{severity}"])


@pytest.mark.parametrize("name", LIKE_PACKAGE)
@pytest.mark.parametrize("severity", [1, pytest.param(3, marks=pytest.mark.slow), 5])
@pytest.mark.often(19)
def test_released_cifar_program(golden, name, severity):
    off = difference(golden, name, 32, severity)
    assert off.max() <= 1 and off.mean() <= (0.12 if name == "saturate" else 0.005)  # saturate: many values are whole levels


@pytest.mark.parametrize("name", LIKE_PACKAGE)
@pytest.mark.often(9)
def test_released_imagenet_program(golden, name):
    off = difference(golden, name, 224, 5 if name == "elastic_transform" else 3)
    assert off.max() <= 1 and off.mean() <= (0.12 if name == "saturate" else 0.005)


@pytest.mark.peers  # needs the photos of imagecorruptions
@pytest.mark.parametrize("side", [32, 224])
def test_released_frost(golden, side):
    assert difference(golden, "frost", side, 3).max() <= 1


@pytest.mark.parametrize("side", [32, 224])
def test_imagemagick_motion_blur(golden, side):
    expected, parameters = arrays(golden), corruptions.parameters("motion_blur", 3, side)
    run = jax.jit(lambda x, angle: motion_blur(x, angle, *parameters))
    for angle in (-45, -20, 0, 30, 45, -90):
        ours = run(np.float32(expected[f"image_{side}"]) / 255, jnp.float32(angle)) * 255
        off = np.abs(np.asarray(ours)[::STRIDE[side], ::STRIDE[side]] - expected[f"motion_{side}_a{angle}"])
        assert off.max() <= 1.01 and off.mean() < 0.02, angle
