"""ConvNeXt: a four-stage convolutional network with a transformer's habits (Liu et al., arXiv 2201.03545)."""
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import MLP, DepthwiseConv, DropPath, LayerNorm, dense, dense_init
from vmamba_jax.models.layers.convolution import Conv

EPS = 1e-6


class ConvNeXt(nn.Module):
    """ConvNeXt classifier or backbone: (b, H, W, in_channels) normalised images -> (b, num_classes) logits.

    Attributes:
        num_classes: width of the head; 0 returns the pooled and normalised features.
        depths, dims: blocks and width of each stage.
        patch_size: stride of the stem; every further stage halves, rounding down.
        layer_scale_init: initial value of each block's scale per channel; None leaves it out.
        drop_path_rate: rises linearly from 0 to this over the blocks.
        remat: recompute each block's activations in the backward pass.
        out_indices: if not empty, return these stages' maps (b, H_i, W_i, C_i), before their downsampling, each behind a layer norm of its own.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters'.

    Raises:
        ValueError: images of another rank or number of channels or too small, or fields that do not go together.
    """
    num_classes: int = 1000
    depths: Sequence[int] = (3, 3, 9, 3)
    dims: Sequence[int] = (96, 192, 384, 768)
    patch_size: int = 4
    layer_scale_init: float | None = 1e-6
    in_channels: int = 3
    drop_path_rate: float = 0.1
    remat: bool = False
    out_indices: Sequence[int] = ()
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, train=False):
        self._check(images)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = patches(self.dims[0], self.patch_size, name="stem_0", **options)(images)
        x = LayerNorm(EPS, name="stem_1", **options)(x)
        probes.record(self, "stem_out", x)
        rates, maps = iter(np.linspace(0, self.drop_path_rate, sum(self.depths)).tolist()), []
        for i, depth in enumerate(self.depths):
            drop_paths = tuple(next(rates) for _ in range(depth))
            stage = Stage(drop_paths, self.dims[i] if i else 0, self.layer_scale_init, self.remat, name=f"stages_{i}", **options)
            x = stage(x, train)
            probes.record(self, f"stage{i}_blocks", x)
            if i in self.out_indices:
                maps.append(LayerNorm(EPS, name=f"outnorm{i}", **options)(x))
        if self.out_indices:
            return maps
        x = LayerNorm(EPS, name="norm", **options)(x.mean((1, 2)))
        probes.record(self, "final_norm", x)
        return dense(self.num_classes, name="head", **options)(x) if self.num_classes else x

    def _check(self, images):
        checks.images(images, self.in_channels)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        checks.same_length(depths=self.depths, dims=self.dims)
        checks.stages(self.out_indices, len(self.depths))
        smallest = self.patch_size * 2**(len(self.depths) - 1)
        if min(images.shape[1:3]) < smallest:
            raise ValueError(f"images have shape {images.shape}; expected sides of at least {smallest}, the network's stride")


def patches(features, size, *, dtype, param_dtype, name):
    """Convolution of non-overlapping size x size patches, initialised as every layer of ConvNeXt is: normal(0.02), zero bias."""
    return Conv(features, (size, size), (size, size), "VALID", kernel_init=dense_init, dtype=dtype, param_dtype=param_dtype, name=name)


class Stage(nn.Module):
    """The blocks of one resolution, behind the layer norm and 2 x 2 convolution of stride 2 that lead to it (width 0: none)."""
    drop_paths: Sequence[float]
    width: int = 0
    layer_scale_init: float | None = 1e-6
    remat: bool = False
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train):
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        if self.width:
            x = LayerNorm(EPS, name="downsample_0", **options)(x)
            x = patches(self.width, 2, name="downsample_1", **options)(x)
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        for i, rate in enumerate(self.drop_paths):
            x = block(self.layer_scale_init, rate, name=f"blocks_{i}", **options)(x, train)
        return x


class Block(nn.Module):
    """x + DropPath(gamma * MLP(norm(conv_dw(x)))), the convolution depth-wise 7 x 7."""
    layer_scale_init: float | None = 1e-6
    drop_path: float = 0.0
    dtype: jnp.dtype | None = None
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        options, channels = dict(dtype=self.dtype, param_dtype=self.param_dtype), x.shape[-1]
        y = DepthwiseConv(7, kernel_init=dense_init, name="conv_dw", **options)(x)
        y = MLP(4 * channels, name="mlp", **options)(LayerNorm(EPS, name="norm", **options)(y))
        if self.layer_scale_init is not None:
            gamma = self.param("gamma", nn.initializers.constant(self.layer_scale_init), (channels,), self.param_dtype)
            y = y * gamma.astype(y.dtype)
        return x + DropPath(self.drop_path)(y, train)
