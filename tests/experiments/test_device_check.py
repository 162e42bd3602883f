"""The device check on a CPU: with programs of one line, and (slow) every program at tiny sizes."""
import json

import jax
import numpy as np
import pytest

from experiments import device_check
from experiments.device_checks import map_plans, preparing, programs, running
from experiments.device_checks.programs import Program, shape
from pallas_kernels.gpu.plan import map_plan
from vmamba_jax.reports import benchmarks


def tiny(platform, sizes, plans=False):
    """A right and a wrong comparison, two programs timed beside each other, one that will be missing, and a training step."""
    double, u = lambda x: {"y": 2 * x["u"]}, {"u": shape(3)}
    yield Program("parity", "right", double, u, {"dtype": "float32"}, double)
    yield Program("parity", "wrong", double, u, {"dtype": "float32"}, lambda x: {"y": 2.1 * x["u"]})
    facts = {"what": "selective_scan", "size": [3], "state": 1, "dtype": "float32", "pass": "forward", "bytes": 24}
    yield Program("times", "ours", lambda x: sum(jax.numpy.sort(x["u"] + i).sum() for i in range(200)), {"u": shape(2000)}, facts | {"by": "ours"})
    yield Program("times", "theirs", double, u, facts | {"by": "theirs"})
    yield Program("times", "missing", double, u, facts | {"by": "ours", "size": [4]})
    x = {"leaves": [shape(2)], "image": shape(16, 8, 8, 1), "label": shape(16, dtype="int32"), "seed": shape(dtype="int32")}
    facts = {"data": "digits", "eps": 0.1, "batch": 16}
    yield Program("training", "train", lambda x: ([x["leaves"][0] + 1], x["image"].mean()), x, facts | {"start": [np.zeros(2, np.float32)]})
    yield Program("training", "evaluate", lambda x: [(x["label"] >= 0).mean(), (x["label"] < 0).mean()], x, facts)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    work = tmp_path_factory.mktemp("check")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "programs", tiny)
        assert device_check.main(["prepare", "--work", str(work), "--dry"]) == 0
    return work


def test_parts_and_report(prepared, monkeypatch, capsys):
    index = json.loads((prepared / "programs.json").read_text())
    (prepared / index["programs"]["missing"]["file"]).unlink()
    monkeypatch.setattr(running.Run, "_train", lambda self, programs, seconds, train=running.Run._train: train(self, programs, 0.01))
    assert device_check.main(["run", "--work", str(prepared)]) == 1                        # one comparison is wrong
    report = json.loads((prepared / "device.json").read_text())
    assert [(row["name"], row["right"], row["same_twice"]) for row in report["parity"]] == [("right", True, True), ("wrong", False, True)]
    assert report["parity"][1]["error"] == pytest.approx(0.1 / 2.1, rel=1e-4)
    assert [row["by"] for row in report["times"]] == ["ours", "theirs"] and all(row["share_of_copy"] > 0 for row in report["times"])
    [loss] = report["losses"]
    assert loss["by"] == "theirs" and loss["ours_over_theirs"] > 1
    [note] = report["notes"]
    assert note.startswith("missing: FileNotFoundError")
    trained = report["training"]
    assert (trained["clean"], trained["pgd20"], trained["data"]) == (1, 0, "digits") and trained["steps"] >= 1
    assert (report["kind"], report["platform"], report["dry"]) == ("device_check", "cpu", True)
    assert "1 of 2 comparisons right, 2 times, 1 notes" in capsys.readouterr().out


def test_plans_of_a_map_hold_the_chosen_one():
    """What `--plans` times on a GPU contains what the kernels take."""
    for batch in map_plans.BATCHES:
        for _, side, channels, _ in programs.FULL.maps:
            chosen, timed = map_plan(batch, side, side, channels, 1), dict(map_plans.plans(batch, side, channels))
            assert (chosen is None and (batch, side) == (32, 56)) or chosen in timed.values()
            assert len(timed) == len(set(timed.values())) >= 4
    names = [program.name for program in programs.programs("cuda", programs.DRY, plans=True)]
    assert len(names) == len(set(names)) and any("four scans, gradient" in name for name in names)


def test_stops_at_the_budget(prepared):
    check = running.Run(prepared, 0.0)
    check.index["dry"] = False
    with check.step("theirs"):
        check._times("theirs", check.index["programs"]["theirs"], {})
    assert "not timed: -" in check.report["notes"][0] and not check.report["times"]
    assert json.loads((prepared / "device.json").read_text())["notes"] == check.report["notes"]


@pytest.mark.parametrize("change,words", [
    ({"jax": "0.1"}, "lowered by jax 0.1: expected jax"), ({"platform": "cuda"}, "lowered for cuda: expected cpu"), (None, "got no programs.json")])
def test_errors(prepared, tmp_path, capsys, change, words):
    if change:
        (tmp_path / "programs.json").write_text(json.dumps(json.loads((prepared / "programs.json").read_text()) | change))
    assert device_check.main(["run", "--work", str(tmp_path)]) == 2
    _, err = capsys.readouterr()
    assert words in err and err.count("\n") == 1


def test_inputs_are_repeatable_and_plausible():
    shapes = programs.scan_shapes(2, 5, 3)
    one, again, other = preparing.draw(shapes, 1), preparing.draw(shapes, 1), preparing.draw(shapes, 2)
    assert all((one[name] == again[name]).all() and (one[name] != other[name]).any() for name in shapes)
    assert (one["A"] < 0).all() and (one["u"] != one["delta"]).any()


@pytest.mark.slow
def test_every_program_at_tiny_sizes(tmp_path):
    assert device_check.main(["prepare", "run", "--work", str(tmp_path), "--dry"]) == 0
    report = json.loads((tmp_path / "device.json").read_text())
    assert report["notes"] == [] and len(report["parity"]) == 4 and len(report["times"]) == 12
    assert 0 <= report["training"]["pgd20"] <= report["training"]["clean"] <= 1


def test_report_is_a_section_of_the_benchmarks_page(prepared, monkeypatch):
    monkeypatch.setattr(running.Run, "_train", lambda *_: {"data": "digits", "eps": 0.1, "steps": 3, "images_per_s": 20.0, "clean": 1.0, "pgd20": 0.5, "test_images": 16})
    report = running.Run(prepared, 60.0, say=lambda line: None).run()
    text = benchmarks.page([benchmarks.named("gpu_x", report | {"device": report["device"] | {"platform": "cuda", "kind": "X"}})])
    assert "## X x 1" in text and "| wrong | 4.8e-02 | NO | yes |" in text and "#### Where we lose" in text and "| theirs |" in text
    assert "20 images/s over 3 steps; 100.0 % clean and 50.0 % under PGD-20 on 16 test images" in text
