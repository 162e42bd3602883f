"""VMamba's original parameter names: where each Flax leaf lies in a state dict, and older spellings made modern."""
import re

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
RESHAPED = ("x_proj_weight", "dt_projs_weight")  # the single-file release stores both flattened to two axes

PATCH_EMBED = {"conv1": "0", "norm1": "2", "conv2": "5", "norm2": "7"}
DOWNSAMPLE = {"conv": "1", "norm": "3"}
TOP = {"norm": "classifier.norm", "head": "classifier.head"}

OLDER = (  # v0 files, and the single-file release's `x_proj.weight`
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"^(layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"^(layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
    (r"\.op\.(x_proj|dt_projs)\.weight$", r".op.\1_weight"),
)
SINGLE_FILE_MERGING = (  # patch merging is a Sequential(_, norm, reduction) there
    (r"^(layers\.\d+\.downsample)\.1\.", r"\1.norm."),
    (r"^(layers\.\d+\.downsample)\.2\.", r"\1.reduction."),
)


def original_name(model, path):
    """State-dict name of the Flax leaf at `path` (a tuple of names, the collection left out)."""
    *modules, leaf = path
    leaf = LEAVES.get(leaf, leaf)
    if not modules:
        return leaf
    head, *rest = modules
    if head in TOP:
        parts = [TOP[head]]
    elif head == "patch_embed":
        parts = ["patch_embed", PATCH_EMBED[rest[0]]]
    elif head.startswith("downsample_"):
        merging = model.downsample == "v1"
        parts = [f"layers.{head.removeprefix('downsample_')}.downsample", rest[0] if merging else DOWNSAMPLE[rest[0]]]
    elif head.startswith("layers_"):
        parts = [head.replace("_", "."), rest[0].replace("_", "."), *_block(model, rest[1:])]
    else:
        parts = modules
    return ".".join([*parts, leaf])


def _block(model, modules):
    if modules[:2] == ["op", "conv2d"] and model.ssm == "mamba2":
        return ["op.conv2d.1"]
    if modules[:2] == ["op", "out_norm"] and model.out_norm == "layer_norm_dwconv3":
        return ["op.out_norm.0"]
    if modules[:2] == ["op", "out_norm_conv"]:
        return ["op.out_norm.2" if model.out_norm == "layer_norm_dwconv3" else "op.out_norm.1"]
    return modules


def modern(state_dict):
    """The same weights under the names of the repository's head."""
    rules = OLDER
    if any(re.search(r"^layers\.\d+\.downsample\.2\.weight$", name) for name in state_dict):
        rules += SINGLE_FILE_MERGING
    renamed = {}
    for name, x in state_dict.items():
        for pattern, new in rules:
            name = re.sub(pattern, new, name)
        renamed[name] = x
    if len(renamed) != len(state_dict):
        raise ValueError("state_dict has two spellings of the same weight; expected either the old names or the new ones")
    return renamed
