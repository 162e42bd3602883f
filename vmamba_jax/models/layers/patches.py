"""Patch embeddings, downsampling between stages, and bicubic resizing of position embeddings."""
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers.common import activation, conv, dense, norm, uniform

PATCH_EMBEDS = ("v1", "v2")
DOWNSAMPLES = ("v1", "v2", "v3")


class PatchEmbed(nn.Module):
    """VMamba's patch embedding: (b, H, W, in) -> (b, H / patch_size, W / patch_size, features); "v2" rounds odd sides up.

    Attributes:
        features: output channels.
        patch_size: total stride.
        version: "v1" one patch_size x patch_size convolution; "v2" two 3x3 convolutions with a GELU between them (patch_size 4, 2 or 1).
        use_norm: normalize after every convolution.
        norm: "layer_norm" or "batch_norm".
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    features: int
    patch_size: int = 4
    version: str = "v2"
    use_norm: bool = True
    norm: str = "layer_norm"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        checks.choice("version", self.version, PATCH_EMBEDS)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normalize = lambda x, name: norm(self.norm, train=train, name=name, **options)(x) if self.use_norm else x
        patch, channels = self.patch_size, x.shape[-1]
        if self.version == "v1":
            x = conv(self.features, patch, patch, bias_init=uniform((patch**2 * channels)**-0.5), name="conv1", **options)(x)
            return normalize(x, "norm1")
        if patch not in (1, 2, 4):
            raise ValueError(f"patch_size={patch}: expected 4 (the original's), 2 or 1 with patch_embed='v2'")
        half = self.features // 2
        x = conv(half, 3, min(patch, 2), 1, bias_init=uniform((9 * channels)**-0.5), name="conv1", **options)(x)
        x = activation("gelu")(normalize(x, "norm1"))
        x = conv(self.features, 3, max(patch // 2, 1), 1, bias_init=uniform((9 * half)**-0.5), name="conv2", **options)(x)
        return normalize(x, "norm2")


class Downsample(nn.Module):
    """(b, H, W, C) -> (b, H / 2, W / 2, features); odd sides round up for "v1" and "v3", down for "v2".

    Attributes:
        features: output channels.
        version: "v1" patch merging, "v2" 2x2 or "v3" 3x3 convolution of stride 2.
        norm: "layer_norm" or "batch_norm".
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
    """
    features: int
    version: str = "v3"
    norm: str = "layer_norm"
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x, train=False):
        checks.choice("version", self.version, DOWNSAMPLES)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        if self.version == "v1":
            x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
            x = jnp.concatenate([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], axis=-1)
            x = norm(self.norm, train=train, name="norm", **options)(x)
            return dense(self.features, use_bias=False, name="reduction", **options)(x)
        size, padding = (2, 0) if self.version == "v2" else (3, 1)
        x = conv(self.features, size, 2, padding, bias_init=uniform((size**2 * x.shape[-1])**-0.5), name="conv", **options)(x)
        return norm(self.norm, train=train, name="norm", **options)(x)


# ---- bicubic resizing

def _cubic(d, a):
    """The cubic convolution kernel (Keys 1981) at distances d."""
    d = np.abs(d)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


@functools.lru_cache(maxsize=32)
def bicubic_matrix(source, target, antialias=False, offset=0.0):
    """(target, source) weights that resize one axis with PyTorch's bicubic kernels, align_corners False.

    Args:
        source, target: lengths of the axis before and after.
        antialias: False: a = -0.75, borders replicated. True: a = -0.5 (Pillow's), a kernel that widens when shrinking and is cut at the borders.
        offset: added to `target` where the scale is computed, as DINOv2's program does; only without antialias.
    """
    positions = (np.arange(target) + 0.5) * source / (target + offset) - 0.5
    if antialias:
        weights = _cubic((np.arange(source) - positions[:, None]) / max(source / target, 1), -0.5)
        return weights / weights.sum(1, keepdims=True)
    base = np.floor(positions).astype(int)
    weights = np.zeros((target, source))
    for tap in range(-1, 3):
        np.add.at(weights, (np.arange(target), np.clip(base + tap, 0, source - 1)), _cubic(positions - (base + tap), -0.75))
    return weights


def resize_grid(x, height, width, antialias=False, offset=0.0):
    """An embedding (1, H, W, C) resized bicubically to (1, height, width, C); returned unchanged if the size is the same. Options: of `bicubic_matrix`."""
    if x.shape[1:3] == (height, width):
        return x
    rows, columns = bicubic_matrix(x.shape[1], height, antialias, offset), bicubic_matrix(x.shape[2], width, antialias, offset)
    return jnp.einsum("hH,wW,bHWc->bhwc", jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype), x)
