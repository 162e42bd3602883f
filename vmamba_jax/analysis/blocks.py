"""Blocks of a model by number over the whole network: where their states are recorded, and the grid of their tokens."""
import functools

import numpy as np

from vmamba_jax.models.baselines.swin import Swin
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.vim.vim import Vim
from vmamba_jax.models.vmamba.vmamba import VMamba


def check_family(classifier, families):
    """The classifier; a TypeError unless its model is of one of the families."""
    if not isinstance(classifier.model, families):
        raise TypeError(f"model is {type(classifier.model).__name__}: expected {', '.join(family.__name__ for family in families)}")
    return classifier


def mixers(model):
    """Path of each block's scans or attention in the intermediates, in order.

    Raises:
        ValueError: a VMamba without scans, or with the cascade pattern, whose scans do not cover the map.
    """
    if isinstance(model, Vim):
        return [(f"layers_{i}", "mixer") for i in range(model.depth)]
    if isinstance(model, ViT):
        return [(f"blocks_{i}", "attn") for i in range(model.depth)]
    if isinstance(model, VMamba) and (model.ssm_ratio <= 0 or model.scan_pattern == "cascade"):
        raise ValueError(f"ssm_ratio={model.ssm_ratio}, scan_pattern={model.scan_pattern!r}: expected scans over the whole map")
    name = "attn" if isinstance(model, Swin) else "op"
    return [(f"layers_{i}", f"blocks_{j}", name) for i, depth in enumerate(model.depths) for j in range(depth)]


def check_block(model, block):
    """Path of one block's scans or attention; a ValueError for a number that no block has."""
    paths = mixers(model)
    if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < len(paths):
        raise ValueError(f"block={block!r}: expected an index of one of {len(paths)} blocks, from 0")
    return paths[block]


def stage_blocks(model, stage):
    """Numbers of the blocks of one stage; of a model without stages, stage None, all."""
    if isinstance(model, (Vim, ViT)):
        if stage is not None:
            raise ValueError(f"stage={stage!r}: expected None for {type(model).__name__}, which has no stages")
        return tuple(range(model.depth))
    if isinstance(stage, bool) or not isinstance(stage, int) or not 0 <= stage < len(model.depths):
        raise ValueError(f"stage={stage!r}: expected an index of one of {len(model.depths)} stages, from 0")
    first = sum(model.depths[:stage])
    return tuple(range(first, first + model.depths[stage]))


def states(tree, path):
    """The states recorded at a path of the intermediates, {name: (value,)}."""
    return functools.reduce(lambda tree, name: tree[name], path, tree)


def place(model, block):
    """(stage, block within the stage) of a block of a model with stages."""
    return [(i, j) for i, depth in enumerate(model.depths) for j in range(depth)][block]


def vim_grid(model, shape):
    """Rows and columns of a Vim's patches for images of `shape`."""
    return tuple((side - model.patch_size) // model.stride + 1 for side in shape[1:3])


def vim_routes(length):
    """Positions that the two scans of a Vim visit at each step, (2, L)."""
    return np.stack([np.arange(length), np.arange(length)[::-1]])
