"""VMamba: a four-stage backbone of SS2D blocks, in every released variant.

Source: Liu et al., arXiv 2401.10166.
"""
import dataclasses
from collections.abc import Sequence

import flax.linen as nn

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import MLP, DropPath, WidthField, activation, fields_of, norm
from vmamba_jax.models.layers.patches import DOWNSAMPLES, PATCH_EMBEDS, Downsample, PatchEmbed, resize_grid
from vmamba_jax.models.layers.stages import ParameterGroups, StagedBackbone, rematerialized
from vmamba_jax.models.vmamba.ss2d import SS2D, SSMFields

NORMS = ("layer_norm", "batch_norm")


@dataclasses.dataclass(repr=False, eq=False)
class BlockFields(SSMFields):
    """Fields of a VMamba block: those of `SSMFields` (ssm_ratio 0: no SS2D) and these. `VSSBlock` and `VSSStage` inherit them.

    Attributes:
        mlp_ratio, mlp_act, gated_mlp: hidden width of the MLP over the block's, and fields of `MLP`; ratio 0: no MLP.
        norm: "layer_norm" or "batch_norm".
        drop_path: rate of both branches, which are dropped independently.
    """
    mlp_ratio: float = 4.0
    mlp_act: str = "gelu"
    gated_mlp: bool = False
    norm: str = "layer_norm"
    drop_path: float = 0.0


class VSSBlock(BlockFields, WidthField, nn.Module):
    """VMamba block, x + DropPath(SS2D(norm(x))), then x + DropPath(MLP(norm2(x))): (b, H, W, C) -> (b, H, W, C).

    Its fields are `width`, the first, and those of `BlockFields`; all have defaults.
    """

    @nn.compact
    def __call__(self, x, train=False):
        self.check_width(x, ("batch", "height", "width", "channels"))
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        normalize = lambda x, name: norm(self.norm, train=train, name=name, **options)(x)
        if self.ssm_ratio > 0:
            x = x + DropPath(self.drop_path)(SS2D(name="op", **self.ssm_fields())(normalize(x, "norm")), train)
        if self.mlp_ratio > 0:
            mlp = MLP(int(x.shape[-1] * self.mlp_ratio), self.mlp_act, self.gated_mlp, name="mlp", **options)
            x = x + DropPath(self.drop_path)(mlp(normalize(x, "norm2")), train)
        return x


class VSSStage(BlockFields, WidthField, nn.Module):
    """Blocks of one resolution: (b, H, W, C) -> (b, H, W, C). Its parameters are named as those of a stage `layers_i` of `VMamba`.

    Its fields are `width`, the first, those of `BlockFields`, and these.

    Attributes:
        depth: number of blocks.
        drop_path: rate of all blocks, or a tuple of one rate per block.
        remat: activations that the backward pass recomputes, see `layers.stages.REMAT`; True is "blocks", False "none".
    """
    depth: int = 2
    remat: bool | str = False

    @nn.compact
    def __call__(self, x, train=False):
        self.check_width(x, ("batch", "height", "width", "channels"))
        depth, rates = checks.count("depth", self.depth), self.drop_path
        rates = tuple(rates) if isinstance(rates, (tuple, list)) else (rates,) * depth
        if len(rates) != depth:
            raise ValueError(f"drop_path={rates}: expected one rate, or depth={depth} of them")
        block, fields = rematerialized(VSSBlock, self.remat), fields_of(BlockFields, self)
        for i, rate in enumerate(rates):
            x = block(name=f"blocks_{i}", **fields | {"drop_path": rate})(x, train)
        return x


class VMamba(SSMFields, StagedBackbone):
    """VMamba classifier or backbone: (b, H, W, in_channels) normalized images -> (b, num_classes) logits.

    The mixer's fields are those of `SSMFields`, the other fields those of `StagedBackbone`.

    Attributes:
        depths, dims: blocks and width of each stage.
        patch_size: total stride of the patch embedding.
        mlp_ratio, mlp_act, gated_mlp: see `VSSBlock`.
        patch_embed: "v1" one patch_size x patch_size convolution; "v2" two 3x3 convolutions (patch_size 4, 2 or 1).
        patch_norm: normalize inside the patch embedding.
        downsample: "v1" patch merging, "v2" 2x2 or "v3" 3x3 convolution of stride 2.
        norm: "layer_norm" or "batch_norm"; the scan's output norm and the maps' norms are layer norms either way.
        pos_embed, image_size: add a learned embedding of the grid that image_size has; for other sizes it is resized bicubically.
        stop_blocks: where stop_gradients applies: None: everywhere; or a tuple of stage numbers and (stage, block) pairs.
        perturbed_blocks: where perturbed applies, in the same form.
    """
    depths: Sequence[int] = (2, 2, 8, 2)
    dims: Sequence[int] = (96, 192, 384, 768)
    patch_size: int = 4
    mlp_ratio: float = 4.0
    mlp_act: str = "gelu"
    gated_mlp: bool = False
    patch_embed: str = "v2"
    patch_norm: bool = True
    downsample: str = "v3"
    norm: str = "layer_norm"
    pos_embed: bool = False
    image_size: int = 224
    drop_path_rate: float = 0.2
    stop_blocks: tuple | None = None
    perturbed_blocks: tuple | None = None

    BLOCK = VSSBlock
    PARAMETERS = ParameterGroups(
        stem=r"patch_embed|pos_embed", head=r"norm|head|outnorm\d+", positions=("pos_embed",), ssm=("A_logs", "Ds", "dt_projs_bias"),
        images="patch_embed/conv1/kernel",
        blocks=((r"layers_(\d+)/blocks_(\d+)/", lambda stage, block: (stage, block)), (r"downsample_(\d+)/", lambda stage: (stage + 1, 0))))

    def _stem(self, images, train):
        embed = PatchEmbed(self.dims[0], self.patch_size, self.patch_embed, self.patch_norm, self.norm, name="patch_embed", **self._dtypes)
        x = embed(images, train)
        probes.record(self, "patch_embed_out", x)
        if not self.pos_embed:
            return x
        grid = self.image_size // self.patch_size
        embedding = self.param("pos_embed", nn.initializers.normal(0.02), (1, grid, grid, self.dims[0]), self.param_dtype)
        return x + resize_grid(embedding, *x.shape[1:3]).astype(x.dtype)

    def _blocks(self, i):
        stopped, perturbed = (probes.chosen_blocks(field, getattr(self, field), self.depths)[i] for field in ("stop_blocks", "perturbed_blocks"))
        shared = dict(self.ssm_fields(), mlp_ratio=self.mlp_ratio, mlp_act=self.mlp_act, gated_mlp=self.gated_mlp, norm=self.norm)
        return [{**shared, "stop_gradients": self.stop_gradients if j in stopped else (), "perturbed": self.perturbed if j in perturbed else ()}
                for j in range(self.depths[i])]

    def _after_stage(self, i, x, train):
        if i < len(self.depths) - 1:
            x = Downsample(self.dims[i + 1], self.downsample, self.norm, name=f"downsample_{i}", **self._dtypes)(x, train)
        probes.record(self, f"stage{i}_out", x)
        return x

    def _pool(self, x, train):
        x = norm(self.norm, train=train, name="norm", **self._dtypes)(x)
        probes.record(self, "final_norm", x)
        return x.mean((1, 2))

    def _check(self, images):
        super()._check(images)
        for field, value, known in (("patch_embed", self.patch_embed, PATCH_EMBEDS), ("downsample", self.downsample, DOWNSAMPLES),
                                    ("norm", self.norm, NORMS)):
            checks.choice(field, value, known)
        probes.check_names("stop_gradients", self.stop_gradients, probes.STOPPABLE)
        activation(self.ssm_act), activation(self.mlp_act)
        smallest = self.patch_size * (2**(len(self.depths) - 1) if self.downsample == "v2" else 1) if self.patch_embed == "v1" else 1
        if min(images.shape[1:3]) < smallest:
            raise ValueError(f"images.shape={images.shape}: expected sides of at least {smallest} with patch_embed={self.patch_embed!r} "
                             f"and downsample={self.downsample!r}")
