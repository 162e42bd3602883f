"""Costs of a deep model from two shallow programs: what a block adds, times the blocks that were not compiled."""
from experiments.common.cli import ConfigError
from vmamba_jax.models import catalog

TOLERANCE = 0.01  # of the state's bytes, which are known without a compile


def full(config, blocks):
    """Blocks of a config's model. ConfigError: its stages differ, or it has no more than the `2 * blocks` that would be compiled."""
    entry = catalog.entry(config.model.name)
    found = config.model.overrides.to_dict().get("depth") or entry.fields.get("depth") or getattr(entry.family, "depth", None)
    if not isinstance(found, int):
        raise ConfigError(f"--blocks={blocks}: expected 0 for {config.model.name}, whose blocks are not all alike: its memory is not linear in their number")
    if not 0 < 2 * blocks < found:
        raise ConfigError(f"--blocks={blocks}: expected 1 to {(found - 1) // 2} for {config.model.name}, which has {found} blocks, of which twice as many as "
                          "asked for are compiled")
    return found


def extrapolate(few, more, depths, depth, added):
    """Costs at `depth` blocks, linear through those of two programs; without the list of loops, such as those of a block's random numbers.

    Args:
        few, more: nested dicts and lists of numbers, equal in structure.
        depths: their numbers of blocks.
        depth: of the model.
        added: bytes of state that the blocks beyond `more` add to a chip; the extrapolated arguments must add as many.

    Raises:
        RuntimeError: the programs differ in more than numbers, or the arguments do not grow as the state does.
    """
    found = _line(_without_loops(few), _without_loops(more), (depth - depths[0]) / (depths[1] - depths[0]), "costs")
    grown = found["memory"]["arguments"] - more["memory"]["arguments"]
    if abs(grown - added) > TOLERANCE * added:
        raise RuntimeError(f"programs of {depths[0]} and {depths[1]} blocks: expected {added:,.0f} more bytes of arguments at {depth} blocks, the line gives {grown:,.0f}")
    return found


def _without_loops(costs):
    return {name: value for name, value in costs.items() if name != "loops"}


def _line(few, more, share, name):
    if isinstance(few, dict) and isinstance(more, dict) and few.keys() == more.keys():
        return {key: _line(few[key], more[key], share, key) for key in few}
    if isinstance(few, list) and isinstance(more, list) and len(few) == len(more):
        return [_line(one, other, share, name) for one, other in zip(few, more, strict=True)]
    if few == more or name in ("loop", "source"):  # names of instructions differ between programs
        return few
    if isinstance(few, int | float) and isinstance(more, int | float) and not isinstance(few, bool):
        return few + (more - few) * share
    raise RuntimeError(f"two depths of one model: expected programs that differ in numbers only, got {name}={few!r} and {more!r}")
