"""Convolutions equal XLA's in values and all derivatives, and on CPU their gradients keep XLA's fast layout."""
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vmamba_jax.models.layers import convolution


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def native(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=convolution.LAYOUT)


def ours(x, kernel, strides, padding):
    return convolution.conv_general_dilated(x, kernel, strides, padding, lhs_dilation=(1, 1), rhs_dilation=(1, 1), feature_group_count=1,
                                            dimension_numbers=convolution.LAYOUT)


@pytest.mark.parametrize("features", [4, 33])
@pytest.mark.parametrize("size, strides, padding", [
    (3, (1, 1), [(1, 1), (1, 1)]), (3, (2, 2), [(1, 1), (1, 1)]), (2, (2, 2), "VALID"), (3, (2, 2), "SAME"), (1, (2, 1), [(0, 0), (0, 0)]),
    (4, (3, 2), [(0, 3), (2, 1)])])
def test_dense_convolution(x64, size, strides, padding, features):
    """Sides of 7 and 6, so that some windows do not cover the last rows, whose gradient is zero; few channels are a product, more a convolution."""
    x, kernel = normal(0, 2, 7, 6, 3), normal(1, size, size, 3, features)
    loss = lambda f: lambda args: jnp.sin(f(*args, strides, padding)).sum()
    np.testing.assert_allclose(ours(x, kernel, strides, padding), native(x, kernel, strides, padding), atol=1e-12)
    tangent = (normal(2, *x.shape), normal(3, *kernel.shape))

    def derivatives(f):
        gradient = jax.grad(loss(f))
        return jax.jvp(gradient, ((x, kernel),), (tangent,)), jax.jvp(loss(f), ((x, kernel),), (tangent,))

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-10), *(jax.jit(lambda f=f: derivatives(f))() for f in (ours, native)))


def test_gradients_keep_the_fast_layout():
    """JAX's own gradients have swapped axes, which run 10 to 70 times slower inside loops on XLA:CPU."""
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 40))

    def layouts(f):
        gradients = lambda x, kernel: jax.grad(lambda x, kernel: jnp.sin(f(x, kernel, (2, 2), [(1, 1), (1, 1)])).sum(), (0, 1))(x, kernel)
        text = jax.jit(gradients).lower(x, kernel).as_text()
        return {layout.replace(" ", "") for layout in re.findall(r"dim_numbers = (\S+x\S+->\S+|\[.*?->\[.*?\])", text)}

    assert layouts(ours) == {"[b,0,1,f]x[0,1,i,o]->[b,0,1,f]"}
    assert len(layouts(native)) == 3


def test_small_convolution_is_a_product_on_a_cpu_only():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 16))
    traced = jax.jit(lambda x: ours(x, kernel, (1, 1), [(1, 1), (1, 1)])).trace(x)
    here, elsewhere = (traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "tpu"))
    assert "stablehlo.dot_general" in here and "stablehlo.convolution" not in here and "stablehlo.convolution" in elsewhere


def test_other_convolutions_are_native():
    x, kernel = normal(0, 1, 6, 4), normal(1, 3, 4, 2)
    options = dict(window_strides=(1,), padding="VALID", lhs_dilation=(1,), feature_group_count=1, dimension_numbers=("NWC", "WIO", "NWC"))
    for dilation in (1, 2):
        expected = lax.conv_general_dilated(x, kernel, rhs_dilation=(dilation,), **options)
        np.testing.assert_array_equal(convolution.conv_general_dilated(x, kernel, rhs_dilation=(dilation,), **options), expected)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.often(1)
def test_depthwise_convolution(x64, size):
    """The shifted form on CPU equals the grouped convolution of other platforms, with gradients; on CPU the program has no convolution."""
    x, kernel = normal(0, 2, 6, 7, 4), normal(1, size, size, 1, 4)
    for argument in (0, 1):
        a, b = (jax.grad(lambda x, k, f=f: jnp.sin(f(x, k)).sum(), argument)(x, kernel) for f in (convolution.depthwise_conv, convolution._grouped_conv))
        np.testing.assert_allclose(a, b, atol=1e-10)
    gradient = jax.jit(jax.grad(lambda x: jnp.sin(convolution.depthwise_conv(x, kernel)).sum()))
    assert "convolution" not in gradient.lower(x).as_text()
    elsewhere = gradient.trace(x).lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.convolution" in elsewhere and "feature_group_count = 4" in elsewhere
