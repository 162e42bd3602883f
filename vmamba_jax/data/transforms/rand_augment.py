"""RandAugment (Cubuk et al., arXiv 1909.13719) as in timm 0.4.12, and timm's strings for its options."""
import dataclasses
import re

from vmamba_jax.core import checks
from vmamba_jax.data.decoding.images import FILTERS
from vmamba_jax.data.transforms import operations

INTERPOLATIONS = (*FILTERS, "random")
_NAMES = tuple(operations.OPERATIONS)
_RANDOM = ("bilinear", "bicubic")
_PARTS = {"m": ("magnitude", float), "n": ("layers", int), "mstd": ("magnitude_std", float), "inc": ("increasing", int),
          "p": ("probability", float)}
_GRAMMAR = "m<level 0 to 10>, n<operations per image>, mstd<standard deviation of the level>, inc<0 or 1>, p<probability of each operation>"


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """`rand_augment(photo, rng)` draws `layers` of the fifteen operations with replacement and applies each with `probability`.

    Attributes:
        magnitude: level, from 0 to 10; larger ones act as 10.
        layers: number of operations drawn.
        magnitude_std: standard deviation of the level, which is normal around `magnitude` and clipped to [0, 10]; above 100: the level is uniform
            on [0, magnitude].
        increasing: see `operations`.
        probability: of each operation.
        interpolation: name of a Pillow filter, or "random" (bilinear or bicubic, drawn each time).
        fill: RGB of uncovered pixels, 0 to 255.
    """

    magnitude: float = 10.0
    layers: int = 2
    magnitude_std: float = 0.0
    increasing: bool = False
    probability: float = 0.5
    interpolation: str = "random"
    fill: tuple = (128, 128, 128)

    def __post_init__(self):
        checks.number("magnitude", self.magnitude, low=0)
        checks.count("layers", self.layers)
        checks.number("magnitude_std", self.magnitude_std, low=0)
        checks.number("probability", self.probability, low=0, high=1.0)
        checks.choice("increasing", self.increasing, (False, True))
        checks.choice("interpolation", self.interpolation, INTERPOLATIONS)
        if len(self.fill) != 3:
            raise ValueError(f"fill={self.fill!r}: expected three integers, RGB in 0 to 255")
        object.__setattr__(self, "fill", tuple(checks.count("fill", value, 0) for value in self.fill))

    def __call__(self, photo, rng):
        fill = self.fill if photo.mode == "RGB" else round(sum(self.fill) / 3)
        for i in rng.integers(len(_NAMES), size=self.layers):
            if rng.random() >= self.probability:
                continue
            level, sign = self._level(rng), 1 - 2 * int(rng.integers(2))
            photo = operations.apply(_NAMES[i], photo, level, sign, increasing=self.increasing, fill=fill,
                                     resample=FILTERS[draw_interpolation(self.interpolation, rng)])
        return photo

    def _level(self, rng):
        if self.magnitude_std > 100:
            level = rng.uniform(0.0, self.magnitude)
        else:
            level = rng.normal(self.magnitude, self.magnitude_std)
        return min(max(level, 0.0), operations.LEVELS)


def parse(text, **fields):
    """The `RandAugment` of a string such as "rand-m9-mstd0.5-inc1".

    In timm 0.4.12 "inc0" means inc1, and there is no p.

    Args:
        text: "rand", then in any order and each at most once parts of m, n, mstd, inc, p; their defaults are 10, 2, 0, 0, 0.5.
        fields: interpolation and fill.

    Raises:
        TypeError: text that is not a str. ValueError: an unknown or repeated part, by name, or a value out of range.
    """
    if not isinstance(text, str):
        raise TypeError(f"rand_augment={text!r}: expected a str such as 'rand-m9-mstd0.5-inc1'")
    head, *parts = text.split("-")
    if head != "rand":
        raise ValueError(f"rand_augment={text!r}: expected 'rand' first, got {head!r}")
    read = {}
    for part in parts:
        key, value = re.fullmatch(r"([a-z]*)(.*)", part, re.DOTALL).groups()
        if key not in _PARTS or not re.fullmatch(r"\d+(\.\d+)?", value):
            raise ValueError(f"rand_augment={text!r}: part {part!r} is unknown; expected some of {_GRAMMAR}")
        field, kind = _PARTS[key]
        if field in read:
            raise ValueError(f"rand_augment={text!r}: expected part {key!r} once")
        try:
            read[field] = kind(value)
        except ValueError:
            raise ValueError(f"rand_augment={text!r}: expected an integer in part {part!r}") from None
    try:
        return RandAugment(**read, **fields)
    except ValueError as error:
        raise ValueError(f"rand_augment={text!r}: {error}") from None


def draw_interpolation(name, rng):
    """`name`, or for "random" one of bilinear and bicubic, drawn."""
    return _RANDOM[rng.integers(2)] if name == "random" else name
