"""UperNet: a pyramid over a backbone's four maps, with a pyramid of pooled maps at its top.

Source: Xiao et al. 2018, arXiv 1807.10221; the heads as in MMSegmentation's UPerHead and FCNHead, with which VMamba, Swin and ConvNeXt were
published on ADE20K.
"""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.dense.layers import ConvModule, OverBackbone, adaptive_average_pool, resize
from vmamba_jax.models.layers.common import conv


class _Head(nn.Module):
    """Fields that both heads have.

    Attributes:
        num_classes: classes of the logits.
        channels: channels of the head's maps.
        dropout: rate of dropped channels before the logits, in training.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    num_classes: int
    channels: int
    dropout: float = 0.1
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @property
    def _dtypes(self):
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    def _conv(self, name, kernel_size=3):
        return ConvModule(self.channels, kernel_size, name=name, **self._dtypes)

    def _logits(self, x, train):
        x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)      # whole channels
        return conv(self.num_classes, 1, bias_init=nn.initializers.zeros, name="conv_seg", kernel_init=nn.initializers.normal(0.01), **self._dtypes)(x)


class UPerHead(_Head):
    """Four maps, the finest first -> logits (b, H_0, W_0, num_classes).

    Attributes:
        pool_scales: sides of the pooled maps beside the coarsest map.
    """
    pool_scales: Sequence[int] = (1, 2, 3, 6)

    @nn.compact
    def __call__(self, maps, train=False):
        *finer, top = maps
        laterals = [self._conv(f"lateral_convs_{i}", 1)(x, train) for i, x in enumerate(finer)]
        pooled = [self._conv(f"psp_modules_{i}", 1)(adaptive_average_pool(top, scale), train) for i, scale in enumerate(self.pool_scales)]
        laterals.append(self._conv("bottleneck")(jnp.concatenate([top, *(resize(x, top.shape[1:3]) for x in pooled)], -1), train))
        for i in range(len(finer), 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1].shape[1:3])
        outs = [self._conv(f"fpn_convs_{i}")(x, train) for i, x in enumerate(laterals[:-1])] + laterals[-1:]
        outs = [resize(x, outs[0].shape[1:3]) for x in outs]
        return self._logits(self._conv("fpn_bottleneck")(jnp.concatenate(outs, -1), train), train)


class FCNHead(_Head):
    """One map -> logits at its size: convolutions, then a linear layer of every position.

    Attributes:
        depth: number of convolutions.
    """
    depth: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        for i in range(self.depth):
            x = self._conv(f"convs_{i}")(x, train)
        return self._logits(x, train)


class UperNet(OverBackbone):
    """Semantic segmentation: (b, H, W, C) normalized images -> logits (b, H, W, num_classes).

    Attributes:
        backbone: a module whose `out_indices` return four maps.
        num_classes: number of classes.
        channels, aux_channels: channels of the decode head and of the auxiliary head, which reads map `aux_index`.
        pool_scales: as for `UPerHead`.
        aux_index: index of the auxiliary head's map.
        aux_depth: convolutions of the auxiliary head.
        dropout: rate of both heads.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype of the heads.
    """
    backbone: nn.Module
    num_classes: int = 150
    channels: int = 512
    aux_channels: int = 256
    pool_scales: Sequence[int] = (1, 2, 3, 6)
    aux_index: int = 2
    aux_depth: int = 1
    dropout: float = 0.1
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    def setup(self):
        self._check_backbone()
        checks.require(self.aux_index in range(4), f"aux_index={self.aux_index}: expected a map from 0 to 3")
        common = dict(num_classes=self.num_classes, dropout=self.dropout, **self._dtypes)
        self.decode_head = UPerHead(channels=self.channels, pool_scales=tuple(self.pool_scales), **common)
        self.auxiliary_head = FCNHead(channels=self.aux_channels, depth=self.aux_depth, **common)

    def __call__(self, images, train=False, auxiliary=False):
        """Logits at the images' size; with `auxiliary`, (logits, the auxiliary head's logits), both at the images' size.

        Args:
            images: (b, H, W, C), normalized.
            train: dropout, drop path and the batch's statistics.
            auxiliary: also return the auxiliary head's logits.
        """
        maps = self.backbone(images, train)
        wanted = self.heads(maps, train) if auxiliary or self.is_initializing() else (self.decode_head(maps, train),)
        logits = [resize(x, images.shape[1:3]) for x in wanted]
        return tuple(logits) if auxiliary else logits[0]

    def heads(self, maps, train=False):
        """(logits, auxiliary logits) of the backbone's four maps, each at its own map's size."""
        return self.decode_head(maps, train), self.auxiliary_head(maps[self.aux_index], train)
