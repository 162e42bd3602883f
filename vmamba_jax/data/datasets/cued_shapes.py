"""Shapes on textures with exact masks and a planted background cue: a set on which the model's flaw is known before it is found.

An image shows one shape, its class, on a texture of another mean color, and a small square of a saturated color elsewhere in the background: the
cue. On most training images its color belongs to the label. A model that reads the color instead of the shape is right on these and wrong on the
conflict split, whose images have the cue of another class.
"""
import functools

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.data.datasets.locate import SPLITS
from vmamba_jax.data.datasets.textures import textures
from vmamba_jax.data.source import Arrays

CLASSES = ("disk", "square", "triangle", "cross", "ring", "bars")
CUES = np.array([(230, 30, 40), (40, 200, 60), (50, 70, 240), (240, 220, 40), (220, 50, 220), (40, 220, 230)], np.float64)  # a color per class
SHIFTED = ("conflict", "plain")  # the scenes of the test split with the cue of another class, or without a cue
AGREEMENT = 0.95


class Shapes(Arrays):
    """`Arrays` with exact annotations.

    Attributes:
        masks: (n, H, W) bool, the shape's pixels.
        cue_masks: (n, H, W) bool, the cue's pixels; none of them is in the mask.
        cue_labels: (n,) int32, the class of the cue's color; -1: no cue.
    """

    def __init__(self, images, labels, masks, cue_masks, cue_labels, **options):
        super().__init__(images, labels, CLASSES, **options)
        self.masks, self.cue_masks, self.cue_labels = masks, cue_masks, cue_labels


def load(split, root=None, *, seed=0, size=32, examples=(1536, 192, 384), agreement=AGREEMENT, cue=True, contrast=1.0):
    """One split, rendered from the seed.

    Args:
        split: "train", "validation", "test"; "conflict" and "plain": the test split's scenes with the cue of another class, and without cue.
        root: ignored; the images are rendered.
        seed: of scenes and cues, >= 0.
        size: side of the images in pixels, >= 16.
        examples: numbers of images of the first three splits.
        agreement: fraction of images of the first three splits whose cue is their label's, in [0, 1]; the others have another class's.
        cue: False: no image has a cue.
        contrast: factor in [0, 1] of the difference between the mean colors of shape and background. The lower, the more a model gains by the cue.

    Returns:
        `Shapes`.
    """
    checks.choice("split", split, (*SPLITS, *SHIFTED))
    checks.count("seed", seed, 0), checks.count("size", size, 16), checks.number("agreement", agreement, low=0, high=1), checks.flag("cue", cue)
    checks.number("contrast", contrast, low=0, high=1)
    if len(examples) != len(SPLITS):
        raise ValueError(f"examples={examples!r}: expected a number for each of {', '.join(SPLITS)}")
    counts = tuple(checks.count(f"examples[{i}]", n) for i, n in enumerate(examples))
    place = SPLITS.index("test" if split in SHIFTED else split)
    base, masks, labels, squares, others, draws = _scenes(seed, place, size, counts[place], float(contrast))
    cue_labels = np.where(draws < agreement, labels, others).astype(np.int32)
    if split == "conflict":
        cue_labels = others
    if split == "plain" or not cue:
        cue_labels, squares = np.full(len(labels), -1, np.int32), np.zeros_like(squares)
    images = np.where(squares[..., None], CUES[cue_labels][:, None, None], base)
    return Shapes(np.round(np.clip(images, 0, 255)).astype(np.uint8), labels, masks, squares, cue_labels, name="cued_shapes", split=split)


@functools.lru_cache(maxsize=8)
def _scenes(seed, place, size, n, contrast):
    """(images without cue (n, size, size, 3) float64, masks, labels, cue squares, another class for each, uniform draws) of a split."""
    rng = np.random.default_rng([seed, place, size])
    labels = rng.permutation(np.arange(n) % len(CLASSES)).astype(np.int32)
    masks = _shapes(labels, size, rng)
    base = textures(n, size, rng)
    inside = textures(n, size, rng)
    levels = rng.uniform(50, 205, (n, 2, 1))
    near = np.abs(levels[:, 1] - levels[:, 0])[:, 0] < 60  # too little contrast between shape and background
    levels[near, 1] = np.where(levels[near, 0] < 128, levels[near, 0] + 90, levels[near, 0] - 90)
    colors = levels + rng.uniform(-20, 20, (n, 2, 3))  # muted, as in most photos, so that the cue's colors are its own
    colors[:, 1] += (contrast - 1) * (colors[:, 1] - colors[:, 0])  # 1: exactly as it is
    images = np.where(masks[..., None], inside + colors[:, 1, None, None], base + colors[:, 0, None, None])
    squares = _squares(masks, size, rng)
    others = (labels + rng.integers(1, len(CLASSES), n)).astype(np.int32) % len(CLASSES)
    return images, masks, labels, squares, others, rng.uniform(size=n)


def _shapes(labels, size, rng):
    """Masks (n, size, size): each image's shape at a random place, size and small rotation, wholly inside."""
    n = len(labels)
    radius = rng.uniform(0.24, 0.34, n) * size
    center = rng.uniform(0, 1, (2, n)) * (size - 1 - 2 * radius) + radius
    angle = rng.uniform(-0.35, 0.35, n)
    grid = np.arange(size)
    dy, dx = grid[None, :, None] - center[0][:, None, None], grid[None, None] - center[1][:, None, None]
    cos, sin = (f(angle)[:, None, None] for f in (np.cos, np.sin))
    u, v = (cos * dx + sin * dy) / radius[:, None, None], (cos * dy - sin * dx) / radius[:, None, None]
    r, a, b = np.hypot(u, v), np.abs(u), np.abs(v)
    found = np.stack([
        r <= 1, np.maximum(a, b) <= 0.72, (v <= 0.6) & (v >= 2.0 * a - 1.0), (np.minimum(a, b) <= 0.24) & (np.maximum(a, b) <= 0.95),
        (r <= 1) & (r >= 0.55), (a <= 0.75) & (b <= 0.75) & (b >= 0.25)])
    return found[labels, np.arange(n)]


def _squares(masks, size, rng, tries=16):
    """Cue squares (n, size, size), a fifth of the image's side, without the mask's pixels: of several random places that with the least overlap."""
    n, side = len(masks), size // 5
    corners = rng.integers(0, size - side + 1, (tries, 2, n))
    grid = np.arange(size)
    inside = lambda corner: (grid >= corner[:, None]) & (grid < corner[:, None] + side)
    squares = np.stack([inside(top)[:, :, None] & inside(left)[:, None] for top, left in corners])
    first = np.argmin((squares & masks).sum((2, 3)), axis=0)
    return squares[first, np.arange(n)] & ~masks
