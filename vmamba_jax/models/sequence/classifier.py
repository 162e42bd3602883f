"""A classifier of pixel sequences around one kind of layer.

Source: Qi et al., arXiv 2406.05532, and its released code.
"""
import flax.linen as nn

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.common import ACTIVATIONS, LayerNorm, activation, dense_init, uniform
from vmamba_jax.models.layers.convolution import Conv
from vmamba_jax.models.layers.stages import ParameterGroups
from vmamba_jax.models.sequence.dss import DSS
from vmamba_jax.models.sequence.fields import LayerFields, default_linear
from vmamba_jax.models.sequence.mamba import Mamba
from vmamba_jax.models.sequence.mega import Mega
from vmamba_jax.models.sequence.s4 import S4
from vmamba_jax.models.sequence.s5 import S5
from vmamba_jax.models.sequence.transformer import TransformerLayer

LAYERS = {"s4": S4, "dss": DSS, "s5": S5, "mega": Mega, "s6": Mamba, "transformer": TransformerLayer}
OWN_RESIDUAL = ("mega", "transformer")  # layers with residual connections and norms of their own
PIXEL_LAYOUTS = ("raster", "released_view")


class SequenceClassifier(LayerFields, nn.Module):
    """Linear -> LayerNorm -> depth x LayerNorm(h + layer(h)) -> mean over the tokens -> linear: (b, H, W, in_channels) images -> (b, num_classes).

    Mega and the Transformer have residual connections and norms of their own, and Mega has no first LayerNorm; the Transformer alone has a learned
    position embedding. There is no dropout. The images are raw in [0, 1]: the released code subtracts no mean.

    Attributes:
        layer: one of LAYERS.
        num_classes: width of the head; 0 returns the mean of the tokens.
        in_channels: channels of the images.
        d_model, depth: width C and number of layers.
        pixel_layout: "raster": a token is a pixel with its channels, row by row; "released_view": the (b, C, H, W) tensor read as (b, H W, C) without
            moving the channels, so that a token of a color image is three neighboring values of one channel. Equal with one channel.
        patch_size: side of the patches of a convolution before the sequence; None: pixels.
        activation: nonlinearity after each layer, a name in `layers.common.ACTIVATIONS`; None: none, as released.
        state_width: P of S5; None: d_model.
        hidden: width of the feed-forward networks and of Mega's values.
        ffn_hidden, z_dim, ema_states: of Mega; ffn_hidden None: `hidden`.
        num_heads: of the Transformer.
        stop_blocks: where stop_gradients applies: None: everywhere; or a tuple of layer numbers.

    The other fields are those of `LayerFields`.
    """
    layer: str = "s4"
    num_classes: int = 10
    in_channels: int = 3
    d_model: int = 128
    depth: int = 4
    pixel_layout: str = "raster"
    patch_size: int | None = None
    activation: str | None = None
    state_width: int | None = None
    hidden: int = 256
    ffn_hidden: int | None = None
    z_dim: int = 64
    ema_states: int = 16
    num_heads: int = 4
    stop_blocks: tuple | None = None

    OPTIONS = {"s5": ("state_width",), "mega": ("hidden", "ffn_hidden", "z_dim", "ema_states"), "transformer": ("hidden", "num_heads")}
    PARAMETERS = ParameterGroups(
        stem=r"input|post_norm|pos_embed", head=r"output", logits="output", blocks=((r"(?:layers|norms)_(\d+)/", lambda block: (block,)),),
        positions=("pos_embed", "rel_pos_bias"), ssm=("log_dt", "w", "w_imag", "P", "D", "Lambda", "log_step", "A_log"))

    @nn.compact
    def __call__(self, images, train=False):
        del train
        self._check(images)
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = self._embed(images)
        probes.record(self, "patch_embed_out", x)
        if self.layer != "mega":
            x = LayerNorm(name="post_norm", **options)(x)
        stopped = probes.chosen_blocks("stop_blocks", self.stop_blocks, self.depths)
        own = {name: getattr(self, name) for name in self.OPTIONS.get(self.layer, ())}
        for i in range(self.depth):
            fields = {**self.layer_fields(), **own, "stop_gradients": self.stop_gradients if stopped[i] else ()}
            y = LAYERS[self.layer](name=f"layers_{i}", **fields)(x)
            y = activation(self.activation)(y) if self.activation else y
            before, x = x, y
            if self.layer not in OWN_RESIDUAL:
                x = LayerNorm(name=f"norms_{i}", **options)(before + y)
            probes.component(self, f"block{i}", before, x)
            probes.record(self, f"block{i}_out", x)
        x = x.mean(1)
        probes.record(self, "final_norm", x)
        return default_linear(self.num_classes, self.d_model, "output", self)(x) if self.num_classes else x

    @property
    def depths(self):
        """Layers of each stage; every layer is a stage of its own."""
        return (1,) * self.depth

    @property
    def drop_path_rates(self):
        """Drop-path rate of every layer: 0."""
        return (0.0,) * self.depth

    @property
    def smallest_side(self):
        """Side of square images that this model can read, with as few tokens as possible."""
        return self.patch_size or 1

    def _embed(self, images):
        """Images -> tokens (b, L, d_model)."""
        if self.patch_size is None:
            return self._positions(default_linear(self.d_model, self.in_channels, "input", self)(tokens(images, self.pixel_layout)))
        init = uniform((self.patch_size**2 * self.in_channels)**-0.5)
        patches = Conv(self.d_model, (self.patch_size,) * 2, (self.patch_size,) * 2, "VALID", kernel_init=init, bias_init=init, dtype=self.dtype,
                       param_dtype=self.param_dtype, name="input")(images)
        return self._positions(tokens(patches, self.pixel_layout))

    def _positions(self, x):
        if self.layer != "transformer":
            return x
        if self.max_length is None or x.shape[1] > self.max_length:
            raise ValueError(f"max_length={self.max_length}: expected at least the sequence's {x.shape[1]} tokens, which need a position each")
        embedding = self.param("pos_embed", dense_init, (1, self.max_length, self.d_model), self.param_dtype)
        return x + embedding[:, :x.shape[1]].astype(x.dtype)

    def _check(self, images):
        checks.choice("layer", self.layer, LAYERS)
        checks.choice("pixel_layout", self.pixel_layout, PIXEL_LAYOUTS)
        for field, low in (("num_classes", 0), ("in_channels", 1), ("d_model", 1), ("depth", 1)):
            checks.count(field, getattr(self, field), low)
        checks.count("patch_size", self.patch_size, optional=True)
        checks.choice("activation", self.activation, (None, *ACTIVATIONS))
        if images.ndim != 4 or images.shape[-1] != self.in_channels:
            raise ValueError(f"images.shape={images.shape}: expected (batch, height, width, {self.in_channels}), from which "
                             f"pixel_layout={self.pixel_layout!r} makes tokens of in_channels={self.in_channels} values")
        if min(images.shape[1:3]) < self.smallest_side:
            raise ValueError(f"images.shape={images.shape}: expected sides of at least {self.smallest_side}, a sequence of at least one token")


def tokens(maps, layout):
    """Maps (b, H, W, C) as a sequence (b, H W, C) in one of PIXEL_LAYOUTS."""
    b, height, width, channels = maps.shape
    maps = maps.transpose(0, 3, 1, 2) if layout == "released_view" else maps
    return maps.reshape(b, height * width, channels)
