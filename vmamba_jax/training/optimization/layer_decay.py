"""Layer-wise learning-rate decay: the nearer a parameter is to the input, the slower it learns (Bao et al., arXiv 2106.08254, section 3.2)."""
import re

import jax

from vmamba_jax.core.checks import number

STEM = ("patch_embed", "pos_embed", "absolute_pos_embed", "cls_token", "cls_token_head", "cls_token_tail", "stem_0", "stem_1", "conv1", "bn1")
HEAD = ("norm", "norm_f", "head", "fc")
_BLOCKS = (  # what a path begins with, and which block that is: (stage, block) or (block,)
    (r"(?:layers|stages)_(\d+)/blocks_(\d+)/", lambda stage, block: (stage, block)),  # VMamba, Swin; ConvNeXt
    (r"(?:layers|stages)_(\d+)/downsample", lambda stage: (stage, 0)),  # Swin and ConvNeXt reduce at a stage's beginning,
    (r"downsample_(\d+)/", lambda stage: (stage + 1, 0)),               # VMamba at its end
    (r"layer(\d+)_(\d+)/", lambda stage, block: (stage, block)),  # ResNet
    (r"(?:blocks|layers)_(\d+)/", lambda block: (block,)),  # ViT; Vim
)


def depths(params):
    """The depth of every parameter, a tree of ints: 0 for the stem, 1 to n for the n blocks in order, n + 1 for the final norm and the head.

    A layer between two stages goes with the block that follows it. params: tree of a VMamba, Vim, ViT, Swin, ConvNeXt or ResNet, of any size.
    Raises ValueError for a parameter whose place is unknown.
    """
    places = jax.tree_util.tree_map_with_path(lambda path, _: _place("/".join(str(entry.key) for entry in path)), params)
    blocks = sorted({place for place in jax.tree.leaves(places, is_leaf=_is_place) if isinstance(place, tuple)})
    index = {"stem": 0, "head": len(blocks) + 1} | {block: i for i, block in enumerate(blocks, 1)}
    return jax.tree.map(index.get, places, is_leaf=_is_place)


def scales(params, decay):
    """Factors of the learning rate, a tree of floats: decay ** (n + 1 - depth), 1 for the head. decay: in (0, 1)."""
    number("layer_decay", decay, above=0, below=1)
    tree = depths(params)
    last = max(jax.tree.leaves(tree))
    return jax.tree.map(lambda depth: decay ** (last - depth), tree)


def _place(path):
    """"stem", "head", or the block's numbers."""
    for pattern, block in _BLOCKS:
        if found := re.match(pattern, path):
            return block(*map(int, found.groups()))
    top = path.partition("/")[0]
    if top in STEM:
        return "stem"
    if top in HEAD or top.startswith("outnorm"):
        return "head"
    raise ValueError(f"layer_decay: the depth of parameter {path!r} is not known; expected a VMamba, Vim, ViT, Swin, ConvNeXt or ResNet")


def _is_place(x):
    return isinstance(x, (str, tuple))
