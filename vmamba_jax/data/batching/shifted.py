"""Batches of another sequence of batches, under other step numbers."""


class Shifted:
    """`shifted[t]` is `batches[t + by]`; for a training that goes on with other batches, whose steps are numbered through.

    Args:
        batches: `data.Batches`, or another sequence that is read by number.
        by: added to a step's number; may be negative.
    """

    def __init__(self, batches, by):
        if hasattr(batches, "get_state"):
            raise TypeError(f"batches={batches!r}: expected batches that are read by number, without a state of their own")
        self.batches, self.by = batches, by

    steps_per_epoch = property(lambda self: self.batches.steps_per_epoch, doc="Number of batches in an epoch.")
    bad = property(lambda self: getattr(self.batches, "bad", {}), doc="Images that did not decode, as of `data.Pipeline`.")

    def __getitem__(self, t):
        return self.batches[t + self.by]

    def iterate(self, start=0, stop=None, **options):
        """The batches of steps start, start + 1, ... below stop (None: endless), read ahead."""
        return self.batches.iterate(start + self.by, None if stop is None else stop + self.by, **options)

    def __repr__(self):
        return f"Shifted({self.batches!r}, {self.by})"
