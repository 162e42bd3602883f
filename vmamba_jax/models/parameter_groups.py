"""Where a family's parameters are in the network, and which of them belong to position embeddings and to the scan.

Every model class declares one `ParameterGroups` as its class attribute PARAMETERS. Layer decay and weight decay read these declarations, so a new
family needs no change in `training`.
"""
import dataclasses
import re
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class ParameterGroups:
    """Names of one family's parameters.

    Attributes:
        stem: regular expression of the top-level names before the first block.
        blocks: pairs (regular expression of a path's beginning, function of its numbers -> the block). A block is a tuple of ints that sorts in the
            order of the network: (stage, block), or (block,) without stages. A layer between two stages belongs to the block after it.
        head: regular expression of the top-level names after the last block.
        positions: leaf names of position embeddings and class tokens.
        ssm: leaf names of the scan's decay A, skip D and step bias.
    """
    stem: str
    blocks: tuple[tuple[str, Callable], ...]
    head: str
    positions: tuple[str, ...] = ()
    ssm: tuple[str, ...] = ()

    def place(self, path):
        """Place of the parameter at `path`, names joined by "/": "stem", "head", a block, or None for a parameter of another family."""
        for pattern, block in self.blocks:
            if found := re.match(pattern, path):
                return block(*map(int, found.groups()))
        top = path.partition("/")[0]
        return "stem" if re.fullmatch(self.stem, top) else "head" if re.fullmatch(self.head, top) else None
