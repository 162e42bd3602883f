"""One file per family of models: what its original repository calls options and parameters, and how it lays them out.

A family's file has MODEL (the Linen class), DEFAULTS (every option with the repository's default), FIXED (options of which only the default can
be had), CLASSIFIER (prefixes of the classifier's names), build(options) -> model, original_name(model, path) -> the state dict's name of a leaf.
Where there are other spellings it has modern(state_dict, model) -> the same weights under those names; where the generic layout (`convert`) does
not do, fit(x, path, shape, model), unfit(x, path) and original_shape(path, shape). BUFFERS are patterns of names that hold no weights.
"""
from vmamba_jax.checkpoints.families import convnext, efficientnet_lite, resnet, swin, vim, vit, vmamba

BY_NAME = {"vmamba": vmamba, "vim": vim, "deit": vit, "vit": vit, "resnet": resnet, "efficientnet_lite": efficientnet_lite,
           "swin": swin, "convnext": convnext}
BY_MODEL = {family.MODEL: family for family in BY_NAME.values()}
