"""Which parameters weight decay applies to: rules of (path, array), and the masks that optax takes."""
import jax
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.catalog import FAMILIES

POSITIONS = tuple(sorted({name for family in FAMILIES for name in family.PARAMETERS.positions}))
SSM = tuple(sorted({name for family in FAMILIES for name in family.PARAMETERS.ssm}))


def released(path, array):
    """True for the parameters that the released code of VMamba, Vim, DeiT and Swin decays.

    That code exempts arrays of one axis, biases, position embeddings and class tokens, by shape and name alone. It does not read the marks on
    A_logs and Ds, so A_logs and dt_projs_bias (two axes, and not named `bias`) are decayed, like x_proj_weight and dt_projs_weight; Ds is exempt
    with one axis, but not in the Mamba-2 branch, where it has three.

    Args:
        path: tuple of names, the leaf's last.
        array: the parameter.
    """
    return np.ndim(array) > 1 and path[-1] != "bias" and not path[-1].endswith(POSITIONS)


def documented(path, array):
    """True for the parameters that the released code intends to decay: as `released`, but never the scan's A, D and step bias."""
    return released(path, array) and path[-1] not in SSM


def everything(path, array):
    """True for every parameter, as in the S4/S5 adversarial-training study."""
    del path, array
    return True


def norms(path, array):
    """True for every parameter whose path has no "norm" in it and that is no position embedding or bias table, as MMSegmentation's recipes decay by name.

    In those programs the norms of VMamba's patch embedding and downsampling have numbers for names, so that they are decayed; here they are not.
    """
    del array
    return not any("norm" in name for name in path) and not path[-1].endswith((*POSITIONS, "relative_position_bias_table"))


RULES = {"norms": norms, "released": released, "documented": documented, "everything": everything}


def mask(rule="released"):
    """A function params -> tree of bools, for optax's `mask=`.

    Args:
        rule: a name in `RULES`, or a function (path, array) -> bool.
    """
    if not callable(rule):
        rule = RULES[checks.choice("decay_rule", rule, RULES)]

    def decays(path, array):
        return bool(rule(tuple(map(_name, path)), array))

    return lambda params: jax.tree_util.tree_map_with_path(decays, params)


def _name(entry):
    return str(getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))))
