"""A Transformer layer of the same width and tokens as the state space layers: our own control, which the released code lacks."""
import flax.linen as nn

from vmamba_jax.core import checks
from vmamba_jax.models.layers import probes
from vmamba_jax.models.layers.adaptive_scaling import scaled
from vmamba_jax.models.layers.attention import Attention
from vmamba_jax.models.layers.common import MLP, LayerNorm
from vmamba_jax.models.sequence.fields import LayerFields


class TransformerLayer(LayerFields, nn.Module):
    """LayerNorm(x + attention(x)), then LayerNorm(x + MLP(x)): (b, L, C) -> (b, L, C). Its fields are those of `LayerFields` and:

    Attributes:
        hidden: width of the MLP.
        num_heads: heads; divides C.
    """
    hidden: int = 256
    num_heads: int = 4

    @nn.compact
    def __call__(self, x):
        self.check_layer(x)
        checks.count("hidden", self.hidden)
        if x.shape[-1] % checks.count("num_heads", self.num_heads):
            raise ValueError(f"num_heads={self.num_heads}: expected a divisor of the width {x.shape[-1]}")
        options = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        read = probes.probe(self, "x", x)
        s = probes.probe(self, "s", Attention(self.num_heads, name="attn", **options)(read))
        probes.component(self, "attention", read, s)
        a = probes.probe(self, "a", scaled(self, self.ads, s))
        x = LayerNorm(name="norm1", **options)(x + a)
        y = MLP(self.hidden, name="mlp", **options)(x)
        probes.component(self, "linear", x, y)
        return probes.probe(self, "y", LayerNorm(name="norm2", **options)(x + y))
