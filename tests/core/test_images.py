"""Pixel values on the host and on the device agree to the bit."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.core import images


def test_unit_interval():
    levels = np.arange(256, dtype=np.uint8)
    x = images.unit_interval(levels)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, levels.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(jax.jit(lambda i: jnp.asarray(images.LEVELS)[i])(levels), x)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_images_are_unchanged(dtype):
    x = np.array([0, 0.25, 1], dtype)
    assert images.unit_interval(x) is x


@pytest.mark.parametrize("x", [np.array([0.0, 1.1]), np.array([-0.1, 1.0]), np.array([np.nan, 0.0])])
def test_range(x):
    with pytest.raises(ValueError, match=r"expected values in \[0, 1\]"):
        images.unit_interval(x)


@pytest.mark.parametrize("dtype", [np.int32, bool, np.uint16])
def test_types(dtype):
    with pytest.raises(TypeError, match="expected uint8"):
        images.unit_interval(np.zeros(3, dtype))
