"""Which parameters weight decay touches: rules of (path, array), and the masks optax takes."""
import jax
import numpy as np

from vmamba_jax.core.checks import choice

POSITIONS = ("pos_embed", "cls_token", "cls_token_head", "cls_token_tail", "relative_position_bias_table")
SSM = ("A_logs", "Ds", "dt_projs_bias", "A_log", "A_b_log", "D", "D_b")


def released(path, array):
    """What the released code of VMamba, Vim, DeiT and Swin does: spare arrays of one axis, biases and position embeddings, by shape and name alone.

    The marks on A_logs and Ds are never read there, so A_logs and dt_projs_bias (two axes, and not named `bias`) are decayed, as are
    x_proj_weight and dt_projs_weight; Ds is spared where it has one axis, not in the Mamba-2 branch, where it has three.
    path: tuple of names, the leaf's last. Returns True to decay.
    """
    return np.ndim(array) > 1 and path[-1] != "bias" and not path[-1].endswith(POSITIONS)


def documented(path, array):
    """What that code says it does: as `released`, and the scan's A, D and step bias are never decayed, whatever their rank."""
    return released(path, array) and path[-1] not in SSM


def everything(path, array):
    """Decay every parameter, as the S4/S5 adversarial-training study does."""
    del path, array
    return True


RULES = {"released": released, "documented": documented, "everything": everything}


def mask(rule="released"):
    """A function params -> tree of bools, as optax's `mask=` takes.

    rule: a name in `RULES`, or a function `(path, array) -> bool`.
    """
    if not callable(rule):
        choice("decay_rule", rule, RULES)
        rule = RULES[rule]

    def decays(path, array):
        return bool(rule(tuple(map(_name, path)), array))

    return lambda params: jax.tree_util.tree_map_with_path(decays, params)


def _name(entry):
    return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))
