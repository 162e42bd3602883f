"""`python -m vmamba_jax predict` and `export` on weights of every place: what is named, what is printed, and photos that cannot be read."""
import csv
import functools
import io
import json

import numpy as np
import pytest
from PIL import Image

import vmamba_jax
from tests.helpers.command_runs import run_command
from tests.helpers.weight_places import FIELDS, NAMES, vit, write_places
from vmamba_jax import checkpoints, models, prediction
from vmamba_jax.__main__ import main

run = functools.partial(run_command, main)
OVERRIDES = ("--override", *(f"{key}={value}" for key, value in FIELDS.items()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights in every place, photos/ with five photos at two depths, and broken.png, which is none."""
    folder = tmp_path_factory.mktemp("predict")
    write_places(folder)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "inner/c.png", "inner/d.webp", "inner/deep/e.png"):
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), np.uint8)).save(path)
    (folder / "photos" / "notes.txt").write_text("no photo")
    (folder / "broken.png").write_text("no photo")
    return folder


def wanted(folder, path, place="run"):
    """A photo's probabilities in order, computed step by step."""
    opened = checkpoints.open_weights(folder / place)
    pixels = prediction.Decoder(32)((folder / path).read_bytes(), path)[None] / np.float32(255)
    logits = np.asarray(vmamba_jax.logits_fn(models.Classifier(vit(), (0.5,), (0.25,)), opened.content)(pixels))[0]
    return np.exp(logits) / np.exp(logits).sum()


def test_a_run_names_its_model_and_classes(folder, capsys):
    status, out, err = run(capsys, "predict", folder / "photos", "--weights", folder / "run", "--top-k", 2)
    lines, row = out.splitlines(), wanted(folder, "photos/a.png")
    assert (status, err, len(lines)) == (0, "", 15) and [line.removeprefix(str(folder / "photos")) for line in lines[::3]] == [
        "/a.png", "/b.jpg", "/inner/c.png", "/inner/d.webp", "/inner/deep/e.png"]
    best = int(row.argmax())
    assert lines[1] == f"  {100 * row[best]:5.1f} %  {NAMES[best]} (class {best})"


def test_json_and_csv(folder, capsys):
    status, out, err = run(capsys, "predict", folder / "photos" / "b.jpg", folder / "photos" / "inner" / "*", "--weights", folder / "run", "--json", "--top", 3)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (0, "") and [row["photo"].rpartition("/")[2] for row in rows] == ["b.jpg", "c.png", "d.webp"]
    for row in rows:
        probabilities = wanted(folder, row["photo"])
        assert [found["label"] for found in row["classes"]] == np.argsort(-probabilities).tolist()
        assert all(found["name"] == NAMES[found["label"]] for found in row["classes"])
        np.testing.assert_allclose([found["probability"] for found in row["classes"]], np.sort(probabilities)[::-1], atol=1e-5)
    status, out, err = run(capsys, "predict", folder / "photos" / "**" / "*.png", "--weights", folder / "run", "--csv", "--top-k", 1)
    table = list(csv.DictReader(io.StringIO(out)))
    assert (status, err) == (0, "") and [line["photo"].rpartition("/")[2] for line in table] == ["a.png", "c.png", "e.png"]
    assert {line["rank"] for line in table} == {"1"} and all(line["name"] == NAMES[int(line["label"])] for line in table)


def test_classes_without_names(folder, capsys):
    """Converted weights and a released file with three classes, the file with its model on the command line or before it."""
    photo, file = folder / "photos" / "a.png", folder / "weights.safetensors"
    first = run(capsys, "predict", photo, "--weights", file, "--model", "deit_tiny", *OVERRIDES, "--size", 32)
    second = run(capsys, "predict", photo, "--weights", f"deit_tiny@{file}", *OVERRIDES, "--size", 32)
    third = run(capsys, "predict", photo, "--weights", folder / "converted", "--size", 32)
    assert first == second and first[0] == third[0] == 0 and first[2] == third[2] == ""
    for out in (first[1], third[1]):
        assert len(out.splitlines()) == 4 and all("%  class " in line for line in out.splitlines()[1:])


def test_checkpoint_of_a_run(folder, capsys):
    args = ("predict", folder / "photos" / "a.png", "--weights", folder / "run", "--json")
    assert run(capsys, *args)[1] == run(capsys, *args, "--checkpoint", "best")[1] == run(capsys, *args, "--checkpoint", 1)[1]
    status, out, err = run(capsys, *args, "--checkpoint", 7)
    assert (status, out) == (2, "") and "step=7: expected one of [1, 2]" in err and err.count("\n") == 1


def test_names_of_classes():
    row = np.array([0.2, 0.7, 0.1])
    assert [found["name"] for found in prediction.ranked(row, None, 2)] == [None, None]
    assert prediction.ranked(row, ("apple", "n01440764", "cherry"), 2) == [
        {"label": 1, "name": "tench, Tinca tinca", "identifier": "n01440764", "probability": 0.7}, {"label": 0, "name": "apple", "probability": 0.2}]


def test_photos_that_cannot_be_read(folder, capsys):
    """The others are predicted; every bad one is named; the status says whether there were others."""
    args = ("predict", folder / "broken.png", folder / "photos", folder / "none.png", folder / "empty*", "--weights", folder / "run")
    status, out, err = run(capsys, *args, "--top-k", 1)
    assert status == 1 and len(out.splitlines()) == 10
    assert [line.removeprefix(f"error: photo={folder}/").split(":")[0] for line in err.splitlines()] == ["empty*", "broken.png", "none.png"]
    status, out, err = run(capsys, *args, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 1 and len(rows) == 7 and ["error" in row for row in rows] == [True, *[False] * 5, True]
    status, out, err = run(capsys, "predict", folder / "broken.png", folder / "none.png", "--weights", folder / "run")
    assert (status, out) == (2, "") and err.count("\n") == 2
    (folder / "bare").mkdir(exist_ok=True)
    status, out, err = run(capsys, "predict", folder / "bare", "--weights", folder / "run")
    assert (status, out) == (2, "") and "bare: expected image files, got a folder without files that end in .jpeg" in err


@pytest.mark.parametrize("args, words", [
    (("--weights", "weights.safetensors"), "--model: expected the model of "), (("--weights", "nowhere"), "nowhere: No such file or folder"),
    (("--weights", "run", "--json", "--csv"), "--json and --csv: expected one of them"), (("--weights", "run", "--top-k", "0"), "--top-k=0")])
def test_failures(folder, capsys, monkeypatch, args, words):
    monkeypatch.chdir(folder)
    status, out, err = run(capsys, "predict", "photos/a.png", *args)
    assert (status, out) == (2, "") and words in err and err.count("\n") == 1


@pytest.mark.slow
def test_many_photos_in_batches(folder, capsys, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH", 2)
    first = run(capsys, "predict", folder / "photos", "--weights", folder / "run", "--json")
    monkeypatch.undo()
    second = run(capsys, "predict", folder / "photos", "--weights", folder / "run", "--json")
    for one, other in zip(first[1].splitlines(), second[1].splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        assert one["photo"] == other["photo"] and [c["label"] for c in one["classes"]] == [c["label"] for c in other["classes"]]


def test_export_of_a_run(folder, capsys, tmp_path):
    status, out, err = run(capsys, "export", "--weights", folder / "run", "--out", tmp_path / "model.zip", "--platforms", "cpu")
    assert (status, err) == (0, "") and "deit_tiny for cpu, 1 x 32 x 32" in out
    exported = checkpoints.load_exported(tmp_path / "model.zip")
    pixels = prediction.Decoder(32)((folder / "photos" / "a.png").read_bytes(), "a.png")[None] / np.float32(255)
    logits = np.asarray(exported(pixels))[0]
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(), wanted(folder, "photos/a.png"), atol=1e-5)
    assert exported.metadata["class_names"] == list(NAMES)
