"""The page of a run's training: numbers, figures, and runs that lack some metrics."""
import json

import pytest

from tests.helpers import fake_runs
from vmamba_jax import reports
from vmamba_jax.reports.training import overfitting

ROWS = [{"step": s, "loss": 2.0 - s / 100, "accuracy": 0.3 + s / 200, "grad_norm": 1.0, "learning_rate": 0.1, "skipped": 2 * (s == 40)}
        for s in range(10, 101, 10)]
ROWS += [{"step": s, "validation/accuracy": clean, "validation/robust_accuracy": robust} for s, clean, robust in
         ((20, 0.6, 0.4), (40, 0.7, 0.52), (60, 0.8, 0.52), (80, 0.85, 0.48), (100, 0.9, 0.45))]
TIMING = [{"step": s, "seconds": 1.0, "images_per_second": 640.0, "input_share": 0.1} for s in range(10, 101, 10)]


def write(folder, rows, timing=(), **results):
    folder = fake_runs.write(folder, "pgd_at", examples=False, metrics=False)
    for name, content in (("metrics", rows), ("timing", timing)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
    (folder / "evaluation.json").unlink()
    saved = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(saved | {"steps": 100, "validation_attack": "PGD-10", "parameters": 77130} | results))
    return folder


@pytest.fixture
def run(tmp_path):
    return reports.read_run(write(tmp_path, ROWS, TIMING), evaluated=False)


def test_overfitting_in_numbers(run):
    """Ten steps an epoch; the first of two equal validations is the best; the last epoch's one line of training has 80 %."""
    found = overfitting(run)
    assert found["best"] == {"epoch": 4, "clean": 0.7, "robust": 0.52} and found["last"] == {"epoch": 10, "clean": 0.9, "robust": 0.45}
    assert found["lost"] == pytest.approx(0.07) and found["train"] == pytest.approx(0.8) and found["train_gap"] == pytest.approx(0.35)


def test_page(run, tmp_path):
    path = reports.write_training(tmp_path / "training.html", run, commands=["make it"])
    text = path.read_text()
    for expected in ("Under PGD-10, validation accuracy was highest at epoch 4, 52.0 %, and 45.0 % at the end: 7.0 points lost to robust",
                     "2 steps with a non-finite loss or gradient were skipped.", "best, epoch 4",
                     "last, epoch 10", "\u22127.0", "as trained on; 35.0 points above the last validation", "80.0 %",
                     "Training vmamba_tiny", "77,130 parameters, objective pgd_at, 10 epochs of 10 steps.",
                     "make it", 'href="pgd_at/timing.jsonl"', "cpu x 2"):
        assert expected in text, expected
    assert text.count("<svg") == text.count("</svg>") == 3 and "<script" not in text and "url(http" not in text
    for drawn in ("validation, PGD-10", "Training loss", "Gradient norm", "Learning rate", "waiting for input", "training batches, as trained on"):
        assert drawn in text, drawn
    assert text == reports.render_training(run, folder=tmp_path, commands=["make it"])


def test_page_without_overfitting_and_skips(tmp_path):
    rows = [row | {"skipped": 0} if "loss" in row else row for row in ROWS if row["step"] <= 40]
    text = reports.render_training(reports.read_run(write(tmp_path, rows), evaluated=False))
    assert "highest at the end, 52.0 %: no robust overfitting." in text and "No step was skipped." in text
    assert "Images per second" not in text and text.count("<svg") == 3  # the learning rate has no neighbor


def test_standard_training_compares_clean_accuracy(tmp_path):
    folder = write(tmp_path, ROWS)
    (folder / "config.json").write_text(json.dumps({"objective": {"name": "standard"}}))
    run = reports.read_run(folder, evaluated=False)
    assert overfitting(run)["best"]["epoch"] == 10 and overfitting(run)["train_gap"] == pytest.approx(-0.1)
    text = reports.render_training(run)
    assert "Clean validation accuracy was highest at the end, 90.0 %: no overfitting." in text and "10.0 points below the last validation" in text


def test_run_with_losses_alone(tmp_path):
    run = reports.read_run(write(tmp_path, [{"step": 5, "loss": 1.0}], timing=[]), evaluated=False)
    text = reports.render_training(run)
    assert overfitting(run) is None and text.count("<svg") == 1 and "No step was skipped." in text


def test_missing_metrics_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected metrics\.jsonl in it"):
        reports.read_run(tmp_path, evaluated=False)
