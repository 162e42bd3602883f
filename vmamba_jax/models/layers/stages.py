"""The staged backbone of VMamba, Swin, ConvNeXt and ResNet: stem, stages of blocks, maps or head; and what every stack of blocks shares.

Every model class declares the places of its parameters as a class attribute PARAMETERS. Layer decay and weight decay read these declarations, so a
new family needs no change in `training`.
"""
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import LAYER_NORM_EPS, LayerNorm, dense


def linear_rates(rate, blocks):
    """Drop-path rates of so many blocks, a tuple that rises linearly from 0 to `rate`."""
    return tuple(np.linspace(0, rate, blocks).tolist())


REMAT = {  # policy: what the forward pass keeps of a block besides its input
    "blocks": None, "projections": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "dots": jax.checkpoint_policies.dots_saveable, "none": None}
"""Rematerialization of a model's blocks. "none": every activation is kept. "blocks": only each block's input. "projections": also the outputs of dense
layers. "dots": also those of all matrix products, such as attention's scores. What is not kept is computed again in the backward pass."""


def rematerialized(block, remat):
    """`block`, a module class called with (x, train), under a policy of `REMAT`; True: "blocks", False: "none"."""
    policy = checks.choice("remat", {True: "blocks", False: "none"}.get(remat, remat), REMAT)
    return block if policy == "none" else nn.remat(block, static_argnums=(2,), policy=REMAT[policy])


@dataclasses.dataclass(frozen=True)
class ParameterGroups:
    """Names of one family's parameters.

    Attributes:
        stem: regular expression of the top-level names before the first block.
        blocks: pairs (regular expression of a path's beginning, function of its numbers -> the block). A block is a tuple of ints that sorts in the
            order of the network: (stage, block), or (block,) without stages. A layer between two stages belongs to the block after it.
        head: regular expression of the top-level names after the last block.
        positions: leaf names of position embeddings and class tokens.
        ssm: leaf names of the scan's decay A, skip D and step bias.
        images: regular expression of the path of the kernel that reads the images, its third axis their channels.
        logits: top-level name of the dense layer that returns the logits.
    """
    stem: str
    blocks: tuple[tuple[str, Callable], ...]
    head: str
    positions: tuple[str, ...] = ()
    ssm: tuple[str, ...] = ()
    images: str = "patch_embed/kernel"
    logits: str = "head"

    def place(self, path):
        """Place of the parameter at `path`, names joined by "/": "stem", "head", a block, or None for a parameter of another family."""
        for pattern, block in self.blocks:
            if found := re.match(pattern, path):
                return block(*map(int, found.groups()))
        top = path.partition("/")[0]
        return "stem" if re.fullmatch(self.stem, top) else "head" if re.fullmatch(self.head, top) else None


class Stage(nn.Module):
    """The blocks of one resolution, in a scope of their own.

    Attributes:
        blocks: functions name -> block, each block a module called with (x, train).
        reduction: function (x, train) -> map, applied before the blocks; None: no reduction.
    """
    blocks: Sequence[Callable]
    reduction: Callable | None = None

    @nn.compact
    def __call__(self, x, train):
        x = self.reduction(x, train) if self.reduction else x
        for i, block in enumerate(self.blocks):
            x = block(name=f"blocks_{i}")(x, train)
        return x


class StagedBackbone(nn.Module):
    """Classifier or backbone of several stages: (b, H, W, in_channels) normalized images -> (b, num_classes) logits, or a list of maps.

    A family has a field `depths` (blocks of each stage) or a property of that name, the class attributes below, and the methods `_stem` and `_blocks`;
    `_pool`, `_reduction`, `_after_stage`, `_apply_stage`, `_output_norm`, `_head` and `_check` have defaults.

    Attributes:
        num_classes: width of the head; 0 returns the features that the head would read.
        in_channels: channels of the images.
        drop_path_rate: rate of the last block; the rates rise linearly from 0 over the blocks.
        remat: activations that the backward pass recomputes, see `layers.stages.REMAT`; True is "blocks", False "none".
        out_indices: if not empty, return these stages' maps (b, H_i, W_i, C_i), before the downsampling that follows them.
        dtype, param_dtype: compute dtype (None: that of the input and parameters) and the parameters' dtype.
        BLOCK: class of the blocks.
        STAGE: prefix of the stages' names.
        NORM_EPS: eps of the norm before the head and of the maps' norms.
        PER_STAGE: names of the two fields with one entry per stage.
    """
    num_classes: int = 1000
    in_channels: int = 3
    drop_path_rate: float = 0.0
    remat: bool | str = False
    out_indices: Sequence[int] = ()
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    BLOCK = None
    STAGE = "layers"
    NORM_EPS = LAYER_NORM_EPS
    PER_STAGE = ("depths", "dims")

    @nn.compact
    def __call__(self, images, train=False):
        self._check(images)
        x = self._stem(images, train)
        block, rates, maps = rematerialized(self.BLOCK, self.remat), iter(self.drop_path_rates), []
        for i in range(len(self.depths)):
            blocks = [functools.partial(block, drop_path=next(rates), **fields) for fields in self._blocks(i)]
            x = self._apply_stage(i, blocks, x, train)
            probes.record(self, f"stage{i}_blocks", x)
            if i in self.out_indices:
                maps.append(self._output_norm(i, x))
            x = self._after_stage(i, x, train)
        if self.out_indices:
            return maps
        probes.last_map(self, x)
        x = self._pool(x, train)
        return self._head(x) if self.num_classes else x

    @property
    def drop_path_rates(self):
        """Drop-path rate of every block, in the network's order."""
        return linear_rates(self.drop_path_rate, sum(self.depths))

    @property
    def _dtypes(self):
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)

    # ---- what a family defines

    def _stem(self, images, train):
        """Images -> the first stage's input."""
        raise NotImplementedError

    def _blocks(self, i):
        """Fields of each block of stage i but its drop-path rate, a dict per block."""
        raise NotImplementedError

    def _pool(self, x, train):
        """The last stage's map -> features (b, C): the mean of its layer norm."""
        del train
        return self._normed(x).mean((1, 2))

    def _normed(self, x):
        """Layer norm before the head, recorded as `final_norm`."""
        x = LayerNorm(self.NORM_EPS, name="norm", **self._dtypes)(x)
        probes.record(self, "final_norm", x)
        return x

    def _reduction(self, i):
        """Function (x, train) -> map, applied inside stage i before its blocks, or None."""
        del i

    def _apply_stage(self, i, blocks, x, train):
        return Stage(blocks, self._reduction(i), name=f"{self.STAGE}_{i}")(x, train)

    def _after_stage(self, i, x, train):
        """The input of stage i + 1 from the output of stage i."""
        del i, train
        return x

    def _output_norm(self, i, x):
        """Layer norm of stage i's map, with parameters of its own, as detectors and segmenters use it."""
        return LayerNorm(self.NORM_EPS, name=f"outnorm{i}", **self._dtypes)(x)

    def _head(self, x):
        return dense(self.num_classes, name="head", **self._dtypes)(x)

    def _check(self, images):
        checks.images(images, self.in_channels)
        checks.number("drop_path_rate", self.drop_path_rate, low=0, below=1)
        checks.same_length(**{field: getattr(self, field) for field in self.PER_STAGE})
        checks.stages(self.out_indices, len(self.depths))
