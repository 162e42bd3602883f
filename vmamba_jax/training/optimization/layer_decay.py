"""Layer-wise learning-rate decay: a parameter's learning rate falls with its distance from the head.

Source: BEiT (Bao et al., arXiv 2106.08254), section 3.2.
"""
import jax

from vmamba_jax.core import checks
from vmamba_jax.models.catalog import FAMILIES


def depths(params):
    """Depth of every parameter, a tree of ints: 0 for the stem, 1 to n for the n blocks in order, n + 1 for the final norm and the head.

    The places are those of the family's `PARAMETERS` (see `models.layers.stages.ParameterGroups`); a layer between two stages belongs to the block after it.

    Args:
        params: parameter tree of a model whose family is in the catalog, of any size.

    Raises:
        ValueError: a tree that has a parameter of no known place in every family.
    """
    tree = jax.tree_util.tree_map_with_path(lambda path, _: "/".join(str(entry.key) for entry in path), params)
    places = _places(jax.tree.leaves(tree))
    blocks = sorted({place for place in places.values() if isinstance(place, tuple)})
    index = {"stem": 0, "head": len(blocks) + 1} | {block: i for i, block in enumerate(blocks, 1)}
    return jax.tree.map(lambda path: index[places[path]], tree)


def scales(params, decay):
    """Factors of the learning rate, a tree of floats: decay ** (n + 1 - depth), 1 for the head.

    Args:
        params: as for `depths`.
        decay: in (0, 1).
    """
    checks.number("layer_decay", decay, above=0, below=1)
    tree = depths(params)
    last = max(jax.tree.leaves(tree))
    return jax.tree.map(lambda depth: decay ** (last - depth), tree)


def _places(paths):
    """{path: place} by the family that has places for all paths."""
    fewest = None
    for family in FAMILIES:
        places = {path: family.PARAMETERS.place(path) for path in paths}
        unknown = [path for path, place in places.items() if place is None]
        if not unknown:
            return places
        fewest = unknown if fewest is None or len(unknown) < len(fewest) else fewest
    raise ValueError(f"layer_decay: parameter {fewest[0]!r} has no known depth: expected the parameters of one of "
                     f"{', '.join(family.__name__ for family in FAMILIES)}")
