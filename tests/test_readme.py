"""The code and commands of the README, and of the page that holds what does not fit into it, do what they say."""
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import vmamba_jax
from tests.helpers.torch_files import write
from vmamba_jax import checkpoints, models
from vmamba_jax.__main__ import main

ROOT = pathlib.Path(__file__).parent.parent
README, OVERVIEW = (ROOT / "README.md").read_text(), (ROOT / "docs" / "overview.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README + OVERVIEW, re.DOTALL)
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", README + OVERVIEW, re.DOTALL) for line in block.strip().splitlines()]
WEIGHTS = "vssm1_tiny_0230s_ckpt_epoch_264.pth"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a real photo, and a file with the released weights' names, shapes and wrapper (the values are random)."""
    folder, rng = tmp_path_factory.mktemp("readme"), np.random.default_rng(0)
    Image.fromarray(load_sample_image("china.jpg")).save(folder / "photo.jpg")
    shapes = checkpoints.original_shapes(vmamba_jax.create_model("vmamba_tiny"))
    weights = {name: np.float32(0.05) * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    write(folder / WEIGHTS, {"model": weights}, "zip")
    return folder


def run(words, folder):
    """What a command prints, in the folder; compiled as users compile it, not as the other tests do."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, f"{words}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_photo_under_attack(folder):
    code = next(code for code in PYTHON if "photo.jpg" in code)
    said = re.fullmatch(r"\[\d+\] -> \[\d+\] changed by ([\d.]+) grey levels\n", run([sys.executable, "-c", code], folder))
    assert said and 0.9 < float(said[1]) < 1.001


@pytest.mark.slow
@pytest.mark.parametrize("code", [code for code in PYTHON if "photo.jpg" not in code], ids=["own model", "models", "maps", "attacks", "scan", "devices"])
def test_python(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    if "Net" in scope:
        stages = scope["result"]["stages"]
        assert [stage["name"] for stage in stages] == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"] and scope["result"]["examples"] == 360
        assert 0 <= scope["result"]["robust_accuracy"] <= scope["result"]["accuracy"] and (tmp_path / "state.npz").is_file()
    elif "metrics" in scope:
        assert np.isfinite(float(scope["metrics"]["loss"])) and int(scope["state"].step) == 1
    elif "states" in scope:
        assert scope["delta"].shape == (2, 4, 8, 12, 16)
    elif "matrix" in scope:
        assert list(scope["survivors"]) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"] and scope["result"]["robust"].sum() == scope["survivors"]["square"]
        assert scope["matrix"]["transfer"]["a"]["b"] == scope["matrix"]["transfer"]["b"]["a"] and len(scope["through"]["components"]) == 2
        assert (np.abs(scope["adversarial"] - scope["images"]).max((1, 3)) > 0).any(-1).all()
    elif "maps" in scope:
        assert [x.shape for x in scope["maps"]] == [(1, 16, 24, 24), (1, 8, 12, 48), (1, 4, 6, 96), (1, 2, 3, 192)]
        assert scope["logits"].shape == (1, 10) and (tmp_path / "model.zip").is_file()
    else:
        assert scope["y"].shape == scope["gradient"].shape == scope["h"].shape == (2, 196, 96) and np.isfinite(scope["gradient"]).all()


@pytest.mark.slow
def test_commands(folder):
    """make's two are what runs this; the others run here, in the order given, in one folder."""
    make = [line for line in COMMANDS if line.startswith("make ")]
    assert make == ["make quickstart", "make test"]
    for target in ("quickstart", "test"):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = [line for line in COMMANDS if line not in make]
    assert len(commands) == 6
    for line in commands:
        words = [sys.executable if word == "python" else word for word in line.split()]
        words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
        words = ["--config.epochs=2" if word.startswith("--config.epochs") else word for word in words]
        words += ["--config.evaluation.limit=60", "--config.evaluation.attacks.pgd.restarts=1"] if "experiments.evaluate" in words else []
        run(words, folder)
    assert (folder / "runs/digits/evaluation.json").is_file() and (folder / "runs/digits/report.html").is_file()
    assert len(list((folder / "runs/digits_study/cells").glob("*.json"))) == 2 and (folder / "runs/digits_study/study.html").is_file()
    variables, metadata = checkpoints.load_variables(folder / "weights/vmamba_tiny")
    assert metadata["model"] == "vmamba_tiny" and metadata["parameters"] == models.entry("vmamba_tiny").parameters


def test_page_of_models(capsys):
    """docs/models.md holds what the command prints, and the overview names every family; the README is short, and names each class of them."""
    for form in ("--markdown", "--download"):
        assert main(["models", form]) == 0
        assert capsys.readouterr().out in (ROOT / "docs" / "models.md").read_text(), f"run python -m vmamba_jax models {form}"
    for name in vmamba_jax.list_models():
        family, _, *rest = [*name.split("_"), ""]
        assert f"`{family}" in OVERVIEW and all(f"_{part}`" in OVERVIEW for part in rest if part), name
    for words in ("VMamba", "Vim", "ViT", "DeiT", "DINOv2", "Swin", "ConvNeXt", "MambaOut", "Spatial-Mamba", "MambaVision", "ResNet", "EfficientNet-Lite"):
        assert words in README
    assert len(README.splitlines()) <= 150


def test_every_folder_named_exists():
    for name in re.findall(r"`((?:vmamba_jax|experiments|configs|pallas_kernels|tests|docs|training|attacks|checkpoints|models)/[\w/.]*)`", README + OVERVIEW):
        assert any((base / name).exists() for base in (ROOT, ROOT / "vmamba_jax")), name
