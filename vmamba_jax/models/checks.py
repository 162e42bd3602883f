"""What every model checks of its fields and its images."""


def check_images(images, channels):
    """Raise a ValueError unless images are (b, H, W, channels)."""
    if images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(f"images have shape {images.shape}; expected (batch, height, width, {channels})")


def check_stages(out_indices, stages):
    """Raise a ValueError unless all of out_indices count stages."""
    if any(i not in range(stages) for i in out_indices):
        raise ValueError(f"out_indices={tuple(out_indices)}; expected stages in 0..{stages - 1}")


def check_alike(**fields):
    """Raise a ValueError unless the two sequences, given by name, are equally long and not empty."""
    (a, x), (b, y) = fields.items()
    if len(x) != len(y) or not x:
        raise ValueError(f"{a}={tuple(x)} and {b}={tuple(y)}; expected as many of one as of the other")
