"""Convolutions whose gradients also run fast on a CPU.

XLA:CPU converts a convolution to the layout of its fast kernels only outside of loops. Inside `lax.scan` and `lax.fori_loop`, where attacks run
their steps, the gradients that JAX derives have swapped axes and run 10 to 70 times slower. The rules below therefore write each tangent with
swapped axes, so that its transpose, the gradient, has them in order. A convolution of few numbers to few channels, such as a small network's
first, is a matrix product instead.
"""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

LAYOUT = ("NHWC", "HWIO", "NHWC")
# XLA:CPU's convolution of 3 x 3 x 3 numbers to 16 channels reaches a fifth of its usual speed. The product of windows and kernel takes 0.4 times its
# time, forward and gradients; from 64 channels, or from 3 x 3 x 8 numbers, it takes longer (5 and 32 images of 32 x 32 pixels).
PRODUCT_NUMBERS, PRODUCT_CHANNELS = 32, 32


# ---- dense convolution

@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _conv(x, kernel, strides, padding):
    return _plain_conv(x, kernel, strides, padding)


def _plain_conv(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def _product(x, kernel, strides, padding):
    """The convolution as a matrix product of the windows' numbers, one copy of the map per place in the kernel, and the kernel."""
    (kh, kw, _, features), (down, right) = kernel.shape, strides
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = (x.shape[1] - kh) // down + 1, (x.shape[2] - kw) // right + 1
    windows = [x[:, i:i + (height - 1) * down + 1:down, j:j + (width - 1) * right + 1:right] for i, j in _offsets(kernel)]
    return jnp.concatenate(windows, -1) @ kernel.reshape(-1, features)


def _conv_of_dx(dx, kernel, strides, padding):
    return lax.conv_general_dilated(dx, kernel.transpose(0, 1, 3, 2), strides, padding, dimension_numbers=("NHWC", "HWOI", "NHWC"))


def _conv_of_dkernel(x, dkernel, strides, padding):
    x, dkernel = x.transpose(3, 1, 2, 0), dkernel.transpose(2, 0, 1, 3)
    return lax.conv_general_dilated(x, dkernel, strides, padding, dimension_numbers=("CHWN", "IHWO", "HWNC")).transpose(2, 0, 1, 3)


def _conv_jvp(strides, padding, primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    terms = [_conv_of_dx(dx, kernel, strides, padding)] if _known(dx) else []
    terms += [_conv_of_dkernel(x, dkernel, strides, padding)] if _known(dkernel) else []
    return _conv(x, kernel, strides, padding), functools.reduce(jnp.add, terms, jnp.zeros((), x.dtype))


_conv.defjvp(_conv_jvp, symbolic_zeros=True)


def conv_general_dilated(x, kernel, window_strides, padding, *, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
                         precision=None):
    """`lax.conv_general_dilated` for `nn.Conv(conv_general_dilated=...)`; undilated, ungrouped convolutions of NHWC maps use the rules on CPU.

    Args:
        x: (batch, H, W, in).
        kernel: (kh, kw, in, out).
        window_strides: two ints.
        padding: "SAME", "VALID" or two pairs.
        lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, precision: as for `lax.conv_general_dilated`.
    """
    native = functools.partial(lax.conv_general_dilated, window_strides=window_strides, padding=padding, lhs_dilation=lhs_dilation,
                               rhs_dilation=rhs_dilation, dimension_numbers=dimension_numbers, feature_group_count=feature_group_count,
                               precision=precision)
    if x.ndim != 4 or feature_group_count != 1 or precision is not None or {*lhs_dilation, *rhs_dilation} != {1}:
        return native(x, kernel)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], window_strides, padding)
    small = np.prod(kernel.shape[:3]) <= PRODUCT_NUMBERS and kernel.shape[3] <= PRODUCT_CHANNELS and x.dtype.itemsize >= 4   # else gradients add in 16 bits
    ruled = functools.partial(_product if small else _conv, strides=tuple(window_strides), padding=tuple(map(tuple, padding)))
    return lax.platform_dependent(x, kernel, cpu=ruled, default=native)


Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)


# ---- depth-wise convolution

def _offsets(kernel):
    return [(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1])]


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _shifted_sum(x, kernel, dilation=1):
    """The convolution as kh * kw shifted multiplies: XLA:CPU's grouped convolution is more than 10 times slower."""
    (kh, kw), (height, width) = _reach(kernel, dilation), x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    window = lambda i, j: padded[:, i * dilation:i * dilation + height, j * dilation:j * dilation + width]
    return functools.reduce(jnp.add, (window(i, j) * kernel[i, j, 0] for i, j in _offsets(kernel)))


def _spread_sum(x, kernel, dilation):
    """The same convolution as a sum of padded arrays.

    It is slow, but its transpose, the gradient, is the fast form above: the transpose of reading windows is a sum of padded arrays, and vice versa.
    """
    (kh, kw), (height, width) = _reach(kernel, dilation), x.shape[1:3]
    pad = lambda y, i, j: jnp.pad(y, ((0, 0), (kh - 1 - i, i), (kw - 1 - j, j), (0, 0)))
    y = functools.reduce(jnp.add, (pad(x * kernel[i, j, 0], i * dilation, j * dilation) for i, j in _offsets(kernel)))
    return y[:, kh // 2:kh // 2 + height, kw // 2:kw // 2 + width]


def _reach(kernel, dilation):
    """Sides of the dilated kernel."""
    return [dilation * (k - 1) + 1 for k in kernel.shape[:2]]


def _shifted_sum_jvp(dilation, primals, tangents):
    (x, kernel), (dx, dkernel) = primals, tangents
    terms = ([_spread_sum(dx, kernel, dilation)] if _known(dx) else []) + ([_shifted_sum(x, dkernel, dilation)] if _known(dkernel) else [])
    return _shifted_sum(x, kernel, dilation), functools.reduce(jnp.add, terms, jnp.zeros((), x.dtype))


_shifted_sum.defjvp(_shifted_sum_jvp, symbolic_zeros=True)


def _grouped_conv(x, kernel, dilation=1, stride=1):
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(k // 2, k // 2) for k in _reach(kernel, dilation)], rhs_dilation=(dilation, dilation),
                                    feature_group_count=x.shape[-1], dimension_numbers=LAYOUT)


def depthwise_conv(x, kernel, dilation=1, stride=1):
    """Depth-wise convolution, odd kernel, zero padding that keeps the size at stride 1; shifted multiplies on CPU, the native convolution elsewhere.

    Args:
        x: (batch, H, W, C).
        kernel: (kh, kw, 1, C).
        dilation: distance of the places that the kernel reads.
        stride: of both sides; the result begins at the first place.
    """
    shifted = lambda x, kernel: _shifted_sum(x, kernel, dilation)[:, ::stride, ::stride]
    return lax.platform_dependent(x, kernel, cpu=shifted, default=functools.partial(_grouped_conv, dilation=dilation, stride=stride))


def _known(tangent):
    return not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
