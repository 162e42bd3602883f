"""Sequence classifiers: constructor arguments of the released code of arXiv 2406.05532 (models/SSM.py), its names and layouts.

Its layers come from state-spaces/s4, s5-pytorch, fairseq's Mega and mamba-ssm. The Transformer is our own; its options and names follow theirs.
"""
import dataclasses

import numpy as np

from vmamba_jax.checkpoints.families.common import LEAVES, dotted, rename
from vmamba_jax.core import checks
from vmamba_jax.models.sequence import hippo
from vmamba_jax.models.sequence.classifier import PIXEL_LAYOUTS, SequenceClassifier

MODES = {"nplr": "s4", "diag": "dss"}
ADS_TYPES = {"relu": "relu", "sgmd": "sigmoid", "tanh": "tanh"}
COMMON = dict(d_input=3, d_model=128, d_output=10, n_layers=4, patch_size=None, use_AdSS=False, AdSS_Type="relu", pixel_layout="released_view")
CONVOLUTION = COMMON | dict(d_input=1, d_state=64, dropout=0.2, l_max=1, lr=1e-3, use_lyap=False)
DEFAULTS = {
    "s4": CONVOLUTION | dict(mode="nplr"),
    "dss": CONVOLUTION | dict(mode="diag"),
    "s5": COMMON | dict(d_input=1, d_state=64, dropout=0.2),
    "mega": COMMON | dict(hidden_dim=256, seq_len=1024, ffn_hidden_dim=None, z_dim=64, n_dim=16),
    "s6": COMMON | dict(d_state=16),
    "transformer": COMMON | dict(hidden_dim=256, seq_len=1024, num_heads=4),
}
FIELDS = {"d_input": "in_channels", "d_model": "d_model", "d_output": "num_classes", "n_layers": "depth", "patch_size": "patch_size",
          "pixel_layout": "pixel_layout", "d_state": "d_state", "hidden_dim": "hidden", "seq_len": "max_length", "ffn_hidden_dim": "ffn_hidden",
          "z_dim": "z_dim", "n_dim": "ema_states", "num_heads": "num_heads"}  # option -> field; the others have no effect, as in the original

# Modules of a layer: ours -> the original's.
KERNEL = {name: f"kernel.kernel.{name}" for name in ("log_dt", "log_w_real", "w_imag", "w", "P", "B", "C")}
SEQ = {name: f"seq.{name}" for name in ("Lambda", "B", "C", "D", "log_step")}
MEGA = {name: f"layers.0.mega_layer.{name}" for name in ("v_proj", "move", "mx_proj", "h_proj", "gamma", "beta")} | {
    "norm": "layers.0.mega_layer.norm.norm", "rel_pos_bias": "layers.0.mega_layer.rel_pos_bias.rel_pos_bias", "ffn_norm": "layers.0.nffn.norm.norm",
    "fc1": "layers.0.nffn.fc1", "fc2": "layers.0.nffn.fc2"}
MODULES = {"s4": KERNEL, "dss": KERNEL, "s5": SEQ, "mega": MEGA, "s6": {}, "transformer": {}}
COMPLEX = {"s5": ("Lambda", "C")}                     # complex in the file; other complex parameters are pairs of numbers there

# The short spelling of files with plain arrays: "top/norms.0.weight", "layer0/Wo", "layer0/Lam".
SHORT = {"Wo": "output_linear.weight", "bo": "output_linear.bias", "Ws": "adss.scale.weight", "bs": "adss.scale.bias", "Wb": "adss.bias.weight",
         "bb": "adss.bias.bias", "Ct": "kernel.kernel.C", "Lam": "seq.Lambda", "Dv": "seq.D"}
LAYER = r"^mapping_layers\.\d+\."


@dataclasses.dataclass(frozen=True)
class Family:
    """One layer's options, names and layouts.

    Attributes:
        layer: a key of DEFAULTS.
    """
    layer: str

    MODEL = SequenceClassifier
    CLASSIFIER = ("output.",)
    BUFFERS = (LAYER + r"(kernel\.kernel\.L|kernel_L\d+|Lk|kind)$",)
    FIXED = property(lambda self: ("use_lyap",) if "use_lyap" in self.DEFAULTS else ())
    DEFAULTS = property(lambda self: DEFAULTS[self.layer])

    def of(self, model):
        """The family of a model."""
        return FAMILIES[model.layer]

    def build(self, o):
        """The `SequenceClassifier` of the constructor arguments `o`, a complete dict.

        dropout, l_max and lr have no effect, as in the original, nor has S5's d_state. `pixel_layout` is our own, with the original's default.
        """
        checks.choice("pixel_layout", o["pixel_layout"], PIXEL_LAYOUTS)
        layer = MODES[checks.choice("mode", o["mode"], MODES)] if "mode" in o else self.layer
        kind = ADS_TYPES[checks.choice("AdSS_Type", o["AdSS_Type"], ADS_TYPES)]
        fields = {FIELDS[name]: value for name, value in o.items() if name in FIELDS}
        return SequenceClassifier(layer=layer, ads=kind if o["use_AdSS"] else "none", **fields)

    def original_name(self, model, path):
        """State-dict name of the Flax leaf at `path`."""
        first, *rest = path
        if not first.startswith("layers_"):
            return dotted(path)
        rest = rest[1:] if rest[0] == "mixer" else rest
        head = {"ads": "adss"}.get(rest[0], MODULES[self.layer].get(rest[0], rest[0]))
        return ".".join([first.replace("layers_", "mapping_layers."), head, *rest[1:-1], *(LEAVES.get(leaf, leaf) for leaf in rest[1:][-1:])])

    def modern(self, state_dict, model):
        """The same weights with the names of the released code, complex arrays as pairs."""
        del model
        inner = "|".join(("log_dt", "log_w_real", "w_imag", "w", "P", "B", "C") if self.layer in ("s4", "dss") else ("B", "C", "log_step"))
        rules = [(r"^(?:top|w)[/.]", ""), (r"^layer(\d+)/", r"mapping_layers.\1."), (rf"({LAYER[1:]})(?:AdSS|AdS|ads|inject)\.", r"\1adss.")]
        rules += [(rf"^(mapping_layers\.\d+)\.{name}$", rf"\1.{new}") for name, new in SHORT.items()]
        rules.append((rf"({LAYER[1:]})(mega_layer|nffn)\.", r"\1layers.0.\2."))
        if self.layer in ("s4", "dss", "s5"):
            rules.append((rf"^(mapping_layers\.\d+)\.({inner})$", rf"\1.{'seq' if self.layer == 's5' else 'kernel.kernel'}.\2"))
        return {name: hippo.pairs(x) if np.iscomplexobj(x) else x for name, x in rename(state_dict, rules).items()}

    def fit(self, x, path, shape, model):
        """x without the axes of size 1 that the original adds: its copies, channels and ranks; complex arrays as pairs."""
        del path, model
        x = hippo.pairs(x) if np.iscomplexobj(x) else x
        return x.reshape(shape) if squeezed(x.shape) == squeezed(shape) else x

    def original_shape(self, path, shape):
        """Shape in the file of a Flax leaf of this `shape` that is no kernel."""
        match self.layer, path[-1]:
            case ("s4" | "dss"), "D" | "log_w_real" | "w_imag" | "w" | "B":
                return (1, *shape)
            case "s4", "P":
                return (1, 1, *shape)
            case ("s4" | "dss"), "C":
                return (1, *shape)
            case "s5", "Lambda" | "C":
                return tuple(shape[:-1])
            case "mega", "delta" | "alpha" | "beta" if path[-2] == "move":
                return (*shape, 1)
        return tuple(shape)

    def unfit(self, x, path):
        """Inverse of `fit`."""
        if path[-1] in COMPLEX.get(self.layer, ()):
            return x[..., 0] + 1j * x[..., 1]
        return x.reshape(self.original_shape(path, x.shape))


def squeezed(shape):
    """A shape without its ones."""
    return tuple(n for n in shape if n != 1)


FAMILIES = {layer: Family(layer) for layer in DEFAULTS}
