"""Heads of Mask R-CNN: region proposals, boxes, masks.

Source: Ren et al. 2015, arXiv 1506.01497; He et al. 2017, arXiv 1703.06870; MMDetection's RPNHead, Shared2FCBBoxHead and FCNMaskHead.
"""
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.models.dense.layers import ConvModule, Doubled
from vmamba_jax.models.layers.common import conv, fan_out_init


class _Head(nn.Module):
    """Fields of every head.

    Attributes:
        channels: width of its hidden layers.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    channels: int
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @property
    def _dtypes(self):
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    def _conv(self, features, size, std, name):
        return conv(features, size, padding=size // 2, bias_init=nn.initializers.zeros, kernel_init=nn.initializers.normal(std), name=name, **self._dtypes)

    def _dense(self, features, init, name):
        return nn.Dense(features, kernel_init=init, name=name, **self._dtypes)


class RPNHead(_Head):
    """A map (b, H, W, C) -> (logits (b, H * W * A), deltas (b, H * W * A, 4)) of the cells' anchors, row by row, the A anchors of a cell fastest.

    Attributes:
        anchors: anchors of a cell, A.
    """
    anchors: int = 3

    def setup(self):
        self.rpn_conv = self._conv(self.channels, 3, 0.01, None)
        self.rpn_cls = self._conv(self.anchors, 1, 0.01, None)
        self.rpn_reg = self._conv(4 * self.anchors, 1, 0.01, None)

    def __call__(self, x):
        x = jax.nn.relu(self.rpn_conv(x))
        return self.rpn_cls(x).reshape(len(x), -1), self.rpn_reg(x).reshape(len(x), -1, 4)


class BoxHead(_Head):
    """Features of boxes (n, s, s, C) -> (logits (n, num_classes + 1), the background last; deltas (n, num_classes, 4)).

    Attributes:
        num_classes: number of classes.
    """
    num_classes: int = 80

    @nn.compact
    def __call__(self, x):
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)                       # the original's order of a box's features
        for i in range(2):
            x = jax.nn.relu(self._dense(self.channels, nn.initializers.xavier_uniform(), f"shared_fcs_{i}")(x))
        logits = self._dense(self.num_classes + 1, nn.initializers.normal(0.01), "fc_cls")(x)
        deltas = self._dense(4 * self.num_classes, nn.initializers.normal(0.001), "fc_reg")(x)
        return logits, deltas.reshape(len(x), self.num_classes, 4)


class MaskHead(_Head):
    """Features of boxes (n, s, s, C) -> logits (n, 2 s, 2 s, num_classes) of each class's mask.

    Attributes:
        num_classes: number of classes.
        depth: convolutions before the map is enlarged.
    """
    num_classes: int = 80
    depth: int = 4

    @nn.compact
    def __call__(self, x):
        for i in range(self.depth):
            x = ConvModule(self.channels, norm=False, kernel_init=fan_out_init, name=f"convs_{i}", **self._dtypes)(x)
        x = jax.nn.relu(Doubled(self.channels, name="upsample", **self._dtypes)(x))
        return self._conv(self.num_classes, 1, 0.01, "conv_logits")(x)
