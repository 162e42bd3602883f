"""ImageNet-1k's classes: WordNet identifiers in label order, with their names (ILSVRC 2012; Russakovsky et al., arXiv 1409.0575)."""
import functools
import importlib.resources


@functools.cache
def classes():
    """1000 pairs (WordNet identifier, names), such as ("n01440764", "tench, Tinca tinca"), in label order: the sorted identifiers."""
    text = importlib.resources.files("vmamba_jax.data").joinpath("imagenet_classes.tsv").read_text(encoding="utf-8")
    return tuple(tuple(line.split("\t")) for line in text.splitlines())


def class_name(label):
    """A class's first name, "tench" for 0."""
    return classes()[label][1].split(",")[0]
