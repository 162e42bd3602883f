"""One file per family of models: options, parameter names and layouts of its original repository.

A family's file defines MODEL (the Linen class), DEFAULTS (every option with the repository's default), FIXED (options of which only the default is
supported), CLASSIFIER (prefixes of the classifier's names), build(options) -> model and original_name(model, path) -> the state dict's name of a
leaf. It may define modern(state_dict, model) -> the same weights under those names, if other spellings exist; fit(x, path, shape, model),
unfit(x, path) and original_shape(path, shape), if the layout of `convert` does not apply; BUFFERS, patterns of names without weights; and
of(model), which returns the family of a model whose class serves several.
"""
from vmamba_jax.checkpoints.families import (
    convnext,
    efficientnet_lite,
    mambaout,
    mambavision,
    mask_rcnn,
    resnet,
    sequence,
    spatial_mamba,
    swin,
    upernet,
    vim,
    vit,
    vmamba,
)

BY_NAME = {"vmamba": vmamba, "vim": vim, "deit": vit, "vit": vit, "resnet": resnet, "efficientnet_lite": efficientnet_lite,
           "swin": swin, "convnext": convnext, "mambaout": mambaout, "mambavision": mambavision, "spatial_mamba": spatial_mamba,
           "upernet": upernet, "mask_rcnn": mask_rcnn, **sequence.FAMILIES}
BY_MODEL = {family.MODEL: family for family in BY_NAME.values()}
