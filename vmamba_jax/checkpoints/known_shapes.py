"""Which models of the catalog have the shapes of some arrays, by their number of parameters."""
import re

import jax.numpy as jnp
import numpy as np

from vmamba_jax.checkpoints.misfit import HEADS
from vmamba_jax.models import catalog

NO_PARAMETERS = re.compile(r"(running_mean|running_var|num_batches_tracked|relative_position_index|attn_mask|^mean|^std|\.mean|\.std|^mu|^sigma)$")
CLASSES = 1000  # that the catalog's counts have


def head_shape(arrays):
    """(classes, width) of the head among {original name: array}; None if it is not recognized."""
    shapes = {tuple(np.shape(x)) for name, x in arrays.items() if HEADS.search(name) and np.ndim(x) == 2}
    return shapes.pop() if len(shapes) == 1 else None


def fitting(arrays):
    """Catalog names of the models with as many parameters besides the head as {original name: array}; several have equal shapes.

    Counts identify a model: no two architectures of the catalog have equal ones. A head of any number of classes is allowed for.
    """
    head = head_shape(arrays)
    if head is None:
        return []
    count = sum(int(np.size(x)) for name, x in arrays.items() if not NO_PARAMETERS.search(name) and jnp.issubdtype(np.asarray(x).dtype, np.inexact))
    count += (CLASSES - head[0]) * (head[1] + 1)
    return [name for name, entry in catalog.MODELS.items() if entry.parameters == count]


def sentence(arrays):
    """"these shapes are vmamba_small's (vmamba_small_s2l15), with 10 classes"; "" if no model of the catalog has them."""
    names, head = fitting(arrays), head_shape(arrays)
    if not names:
        return ""
    short = [alias for alias, name in catalog.ALIASES.items() if name in names and len(alias) < 25]
    whose = " or ".join(f"{name}'s" for name in names)
    return f"these shapes are {whose}" + f" ({', '.join(short)})" * bool(short) + f", with {head[0]} classes" * (head[0] != CLASSES)
