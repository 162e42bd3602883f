"""Models from the options of their original repositories, in those options' own names and spellings."""
from vmamba_jax.checkpoints.families import BY_NAME


def model_from_options(family, options):
    """The Linen module that an original repository's options describe.

    Args:
        family: "vmamba", "vim" (their repositories' options), "deit" or "vit", "swin", "convnext", "resnet" (timm's constructor arguments),
            "efficientnet_lite" (that program's).
        options: {option: value} as the repository spells them; what is left out takes the repository's default.

    Raises:
        KeyError: an unknown family. ValueError: an unknown option, or a value that cannot be had, by name.
    """
    if family not in BY_NAME:
        raise KeyError(f"family {family!r}; expected one of {', '.join(BY_NAME)}")
    known = BY_NAME[family]
    unknown = [name for name in options if name not in known.DEFAULTS]
    if unknown:
        raise ValueError(f"{family} has no option {', '.join(f'{n}={options[n]!r}' for n in unknown)}; expected some of {', '.join(known.DEFAULTS)}")
    options = {**known.DEFAULTS, **options}
    for name in known.FIXED:
        if options[name] != known.DEFAULTS[name]:
            raise ValueError(f"{name}={options[name]!r}; only {known.DEFAULTS[name]!r} is supported")
    return known.build(options)
