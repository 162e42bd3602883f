"""The largest batch that fits a chip's memory, from few compiled programs."""
from typing import NamedTuple


class Point(NamedTuple):
    """One compiled program. Attributes: rows: images per chip; bytes: that it needs, None: unknown; fits: whether it compiled."""
    rows: int
    bytes: float | None
    fits: bool


def search(needs, capacity, points, fixed, *, step=2, compiles=2):
    """Bisects between a number of images per chip that fits and one that does not, and returns all `Point`s, in ascending order.

    The next number is where a line through the two nearest points meets the capacity, so two or three compiles do; a line that has one point only
    starts at `fixed` bytes. Each number is compiled, so the largest that fits is known to fit.

    Args:
        needs: function from a number of images per chip to its `Point`.
        capacity: bytes of memory that a program may use.
        points: those that are known, at least one.
        fixed: bytes without images.
        step: numbers are multiples of it.
        compiles: maximum number of calls of `needs`.
    """
    points = sorted(points)
    for _ in range(compiles):
        guess = propose(points, capacity, fixed, step)
        if guess is None:
            break
        points = sorted([*points, needs(guess)])
    return points


def propose(points, capacity, fixed, step):
    """The number of images to compile next; None: the largest that fits is known to within `step`, or an eighth."""
    fitting, failing = largest(points), smallest_failing(points)
    low = fitting.rows if fitting else 0
    if failing and failing.rows - low <= max(step, low // 8):
        return None
    by_line = line(points, capacity, fixed)
    if by_line is None:
        by_line = low * 2 if failing is None else (low + failing.rows) / 2
    guess = int(by_line) // step * step
    if failing:
        guess = min(guess, (failing.rows - 1) // step * step)
    if guess <= low:
        guess = low + step if failing is None or low + step < failing.rows else low
        if fitting and by_line < low + step and failing is None:
            return None  # the line ends here
    known = {point.rows for point in points}
    return guess if guess > 0 and guess not in known else None


def line(points, capacity, fixed):
    """Images per chip at which a line through the last two measured points reaches the capacity; None: no measured point."""
    measured = [point for point in points if point.bytes is not None]
    if not measured:
        return None
    near = sorted(measured, key=lambda point: abs(point.bytes - capacity))[:2]
    if len(near) == 1 or near[0].bytes == near[1].bytes:
        one = near[0]
        return one.rows * (capacity - fixed) / (one.bytes - fixed) if one.bytes > fixed else None
    (x0, y0), (x1, y1) = ((point.rows, point.bytes) for point in near)
    slope = (y1 - y0) / (x1 - x0)
    return x0 + (capacity - y0) / slope if slope > 0 else None


def largest(points):
    """The `Point` of most images that fits; None: none does."""
    return max((point for point in points if point.fits), default=None)


def smallest_failing(points):
    """The `Point` of fewest images that does not fit; None: none is known."""
    return min((point for point in points if not point.fits), default=None)
