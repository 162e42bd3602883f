"""A study of two tiny models with random weights on eight digits: cells, reasons of those that do not run, killed and resumed."""
import base64
import io
import json

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

import vmamba_jax
from configs import robustness_study
from experiments import study
from experiments.common import cli, results
from experiments.robustness_study import cells, probes
from experiments.robustness_study import models as study_models
from tests.helpers.tiny_runs import forbidden
from vmamba_jax import attacks, checkpoints, data, evaluation, models, parallel, reports
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.reports.study import claims

MODELS = {"vmamba": ("vmamba_tiny", {"dims": (8,), "depths": (1,), "patch_size": 4, "patch_embed": "v1"}),
          "resnet": ("resnet18", {"layers": (1,), "channels": (8,), "stem": "cifar", "stem_width": 8})}
PGD = {"name": "pgd", "eps": 0.1, "steps": 2, "step_size": 0.05}
PROBES = {
    "clean": {"kind": "clean"},
    "pgd": {"kind": "attack", "attack": PGD},
    "wrong": {"kind": "attack", "attack": {**PGD, "eps": -1.0}},
    "budget": {"kind": "curve", "attack": PGD, "radii": (0.05, 0.1)},
    "components": {"kind": "components", "attack": PGD, "components": ("B",), "blocks": ""},
    "shuffle": {"kind": "disturbance", "group": "shuffle", "title": "patches shuffled", "over": "grid", "steps": ((2, 2),),
                "disturbance": {"name": "patch_shuffle"}},
    "corruption": {"kind": "corruption", "corruption": "contrast", "severities": (5,)},
    "trajectory": {"kind": "trajectory", "grid": 2, "orders": ("reversed",)},
    "centre": {"kind": "centre", "window": 4, "stride": 2},
    "shift": {"kind": "shift", "shift": "imagenet_a", "root": ""}}


def interrupting(*args, **options):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("weights"), robustness_study.get_config()
    for label, (name, overrides) in MODELS.items():
        overrides = {"num_classes": 10, "in_channels": 1, **overrides}
        variables = models.Classifier(vmamba_jax.create_model(name, **overrides), 0.5, 0.5).init(jax.random.key(1), (8, 8, 1))
        checkpoints.save_variables(folder / label, variables, {"model": name, "overrides": overrides, "preprocessing": {"mean": [0.5], "std": [0.5]}})
    made.models, made.train, made.data.limit, made.batch_size = tuple(str(folder / label) for label in MODELS), {}, 8, 8
    made.probes = PROBES
    return made


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """A study that was killed in its fourth cell and resumed."""
    workdir = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(probes.KINDS, "curve", interrupting)
        with pytest.raises(KeyboardInterrupt):
            study.run(config, workdir, progress=False)
    done = {path.name: path.stat().st_mtime_ns for path in (workdir / "cells").iterdir()}
    assert len(done) == 3 and not (workdir / "study.json").exists()
    index = study.run(config, workdir, progress=False)
    assert all((workdir / "cells" / name).stat().st_mtime_ns == time for name, time in done.items() if not name.startswith("wrong"))
    return workdir, index


@pytest.mark.slow
def test_every_model_has_every_probe(finished):
    workdir, index = finished
    assert [(line["model"], line["probe"]) for line in index["cells"]] == [(label, probe) for label in MODELS for probe in PROBES]
    found = {(line["model"], line["probe"]): line["status"] for line in index["cells"]}
    for (model, probe), status in found.items():
        scans = {"vmamba": "done", "resnet": "not applicable"}[model]
        expected = {"wrong": "failed", "shift": "not applicable", "components": scans}.get(probe, "done")
        assert status == expected, (model, probe)
    assert json.loads((workdir / "study.json").read_text()) == json.loads(json.dumps(index))
    assert not list(workdir.rglob("*.part")) and index["data"]["examples"] == 8 and [m["family"] for m in index["models"]] == ["VMamba", "ResNet"]


def test_cell_has_its_identity(finished, config):
    workdir, index = finished
    read = reports.read_study(workdir)
    cell = read.cell("vmamba", "pgd")
    assert set(cell["identity"]) == {"versions", "weights", "data", "settings"}
    assert set(cell["identity"]["settings"]) == {"model", "probe", "seed", "example"} and cell["identity"]["versions"]["jax"] == jax.__version__
    assert cell["file"] == f"cells/pgd-{results.digest(cell['identity'])}.json" and cell["identity"]["weights"] == index["models"][0]["weights"]
    row, = cell["rows"]
    assert claims.correct(row).mean() == row["accuracy"] <= read.rows("vmamba", "clean")[0]["accuracy"] and row["examples"] == 8
    assert cell["attack"]["steps"] == 2 and cell["label"] == "PGD-2" and cell["pictures"][0]["uri"].startswith("data:image/png;")
    assert [each["x"] for each in read.rows("vmamba", "budget")] == [0.05, 0.1] and read.rows("vmamba", "budget")[1]["accuracy"] == row["accuracy"]


def test_cell_equals_robust_accuracy(finished, config):
    """The same images are robust as in `evaluation.robust_accuracy` on the same subset."""
    workdir, _ = finished
    subject = study_models.read(config.models[0], config)
    result = evaluation.robust_accuracy(vmamba_jax.logits_fn(subject.classifier, subject.variables), subject.source, attacks.create(**PGD),
                                        key=jax.random.key(config.seed), batch_size=8)
    row, = reports.read_study(workdir).rows("vmamba", "pgd")
    assert claims.correct(row).tolist() == result["robust"].astype(int).tolist()


def test_reason_of_a_cell_that_does_not_run(finished):
    found = reports.read_study(finished[0]).cells
    assert found["resnet", "components"]["reason"] == "ResNet has no selective scan to block components of"
    assert found["vmamba", "shift"]["reason"] == "no folder of imagenet_a; set --config.probes.imagenet_a.root=DIR"
    assert "eps=-1.0" in found["vmamba", "wrong"]["reason"] and found["vmamba", "wrong"]["reason"].startswith("ConfigError")


def test_content_of_other_cells(finished):
    read = reports.read_study(finished[0])
    assert [row["x"] for row in read.rows("vmamba", "trajectory")] == ["scan: reversed", "image: reversed"]
    assert [row["x"] for row in read.rows("resnet", "trajectory")] == ["image: reversed"]
    assert read.cell("vmamba", "corruption")["gray"] and [row["x"] for row in read.rows("vmamba", "corruption")] == [5]
    centre, shuffled = read.cell("vmamba", "centre"), read.rows("vmamba", "shuffle")[0]
    assert np.shape(centre["map"]) == (3, 3) and [ring["radius"] for ring in centre["rings"]] == [0.0, 2.0]
    assert shuffled["x"] == "2x2" and shuffled["drop"] == (shuffled["lost"] - shuffled["gained"]) / 8
    assert [row["component"] for row in read.rows("vmamba", "components")] == ["B"]


def test_shift_uses_its_own_classes(tmp_path, config):
    """Two images of ImageNet-A's folder layout; the study's own images are class folders."""
    names, rng = evaluation.shifts.identifiers("imagenet_a")[:2], np.random.default_rng(0)
    for folder in ("imagenet-a", "val"):
        for name in names:
            (tmp_path / folder / name).mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / folder / name / "image.png")
    other = ml_collections.ConfigDict(config.to_dict())
    other.data = {"name": "folder", "root": str(tmp_path), "split": "validation", "limit": 0,
                  "options": {"size": 8, "classes": tuple(identifier for identifier, _ in imagenet.classes())}}
    classifier = models.Classifier(vmamba_jax.create_model("resnet18", layers=(1,), channels=(8,), stem="cifar", stem_width=8))
    variables = classifier.init(jax.random.key(1), (8, 8, 3))
    source = data.load("folder", "validation", str(tmp_path), **other.data.options.to_dict())
    bench = probes.ProbeContext(study_models.StudyModel("tiny", classifier, variables, source, {}), vmamba_jax.logits_fn(classifier, variables),
                                {"key": jax.random.key(0), "batch_size": 8, "mesh": parallel.data_mesh()}, other, None, lambda share, word: None)
    probe = ml_collections.ConfigDict({"kind": "shift", "shift": "imagenet_a", "root": str(tmp_path)})
    cell = probes.run(bench, probe)
    assert cell["classes"] == 200 and cell["rows"][0]["examples"] == cell["validation_examples"] == 2 and "gap" in cell
    known = {name.split(",")[0] for identifier, name in imagenet.classes() if identifier in evaluation.shifts.identifiers("imagenet_a")}
    assert cell["pictures"][0]["read"] in known


def test_finished_cells_are_not_repeated(finished, config, monkeypatch):
    workdir, index = finished
    for kind in ("clean", "curve", "disturbance"):
        monkeypatch.setitem(probes.KINDS, kind, forbidden)
    again = study.run(config, workdir, progress=False)
    assert again["cells"] == index["cells"]


def test_other_settings_make_other_cells(finished, config, monkeypatch):
    workdir, index = finished
    other = ml_collections.ConfigDict(config.to_dict())
    other.seed, other.probes = 1, {"clean": PROBES["clean"]}
    monkeypatch.setitem(probes.KINDS, "clean", lambda bench, probe: {"rows": [cells.row(np.ones(8, bool))]})
    lines = study.run(other, workdir, progress=False)["cells"]
    assert {line["status"] for line in lines} == {"done"} and not {line["file"] for line in lines} & {line["file"] for line in index["cells"]}
    study.run(config, workdir, progress=False)


def test_page_is_drawn_from_the_folder(finished, config, capsys):
    workdir, _ = finished
    study.main(config, workdir, True)
    text = (workdir / "study.html").read_text()
    assert "ResNet has no selective scan" in text and "One image through every probe" in text
    assert f"report: {workdir / 'study.html'}" in capsys.readouterr().out


def test_autoattack_state_stays_until_the_cell_is_done(config, tmp_path, monkeypatch):
    states, small = [], ml_collections.ConfigDict(config.to_dict())
    small.models = config.models[:1]
    small.probes = {"autoattack": {"kind": "attack", "attack": {"name": "autoattack", "eps": 0.1, "steps": 2, "queries": 2}}}

    def killed(*args, state, **options):
        states.append(state)
        state.parent.mkdir(exist_ok=True)
        state.write_bytes(b"half way")
        if len(states) == 1:
            raise KeyboardInterrupt
        return {"robust": np.ones(8, bool), "attack": {}, "stages": []}
    monkeypatch.setattr(evaluation, "robust_accuracy", killed)
    with pytest.raises(KeyboardInterrupt):
        study.run(small, tmp_path, progress=False)
    assert states[0].exists()
    assert study.run(small, tmp_path, progress=False)["cells"][0]["status"] == "done"
    assert states[0] == states[1] and not states[0].exists()


def test_missing_model_is_recorded_and_the_study_continues(config, tmp_path, monkeypatch):
    monkeypatch.setitem(probes.KINDS, "clean", lambda bench, probe: {"rows": [cells.row(np.ones(8, bool))]})
    other = ml_collections.ConfigDict(config.to_dict())
    other.models, other.probes = ("nowhere", config.models[1]), {"clean": PROBES["clean"]}
    index = study.run(other, tmp_path, progress=False)
    assert [line["status"] for line in index["cells"]] == ["not applicable", "done"] and "nowhere" in index["models"][0]["error"]
    assert "nowhere" in reports.render_study(reports.read_study(tmp_path))


def test_row_has_one_bit_per_image_with_the_first_highest():
    made = cells.row([True, False, False, False, False, False, True, True, False, True], x=0.5)
    assert made["right"] == "8340" and claims.correct(made).tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 0, 1]
    assert (made["x"], made["accuracy"], made["examples"]) == (0.5, 0.4, 10) and made["interval"][0] < 0.4 < made["interval"][1]


def test_models_of_one_name_have_different_labels(config, tmp_path, monkeypatch):
    monkeypatch.setitem(probes.KINDS, "clean", lambda context, probe: {"rows": [cells.row(np.ones(8, bool))]})
    other = ml_collections.ConfigDict(config.to_dict())
    other.models, other.probes = (config.models[1],) * 2, {"clean": PROBES["clean"]}
    index = study.run(other, tmp_path, progress=False)
    assert [line["model"] for line in index["cells"]] == [model["label"] for model in index["models"]] == ["resnet", config.models[1]]


def test_probes_are_chosen_by_name_or_kind():
    made = robustness_study.get_config("probes=curve+clean+corruption_contrast")
    assert list(made.to_dict()["probes"]) == ["budget", "clean", "corruption_contrast"] and len(robustness_study.get_config().probes) > 20
    with pytest.raises(ValueError, match="probes='clean.nosuch': expected names or kinds of probes, not nosuch"):
        robustness_study.get_config("probes=clean+nosuch")
    with pytest.raises(ValueError, match="pixels=20: expected at least 28"):
        robustness_study.get_config("data=folder,pixels=20")


def test_a_study_that_computed_nothing_is_an_error(config, tmp_path, monkeypatch, capsys):
    """With the reasons, and its page for the others; one finished cell is enough for exit status 0."""
    other = ml_collections.ConfigDict(config.to_dict())
    other.models, other.probes = ("nowhere", config.models[1]), {"shift": PROBES["shift"], "components": PROBES["components"]}
    with pytest.raises(cli.RunError, match="none of the 4 cells was computed: nowhere: .*nowhere: No such file or folder") as error:
        study.main(other, tmp_path, False)
    assert error.value.details == ("resnet: no folder of imagenet_a; set --config.probes.imagenet_a.root=DIR",
                                   "resnet: ResNet has no selective scan to block components of")
    assert (tmp_path / "study.html").is_file()
    monkeypatch.setitem(probes.KINDS, "components", lambda context, probe: {"rows": []})
    monkeypatch.setattr(reports, "study_text", lambda found: "text")
    study.main(other, tmp_path, False)
    assert "skipped nowhere: model 'nowhere': nowhere: No such file or folder" in capsys.readouterr().out


def test_study_without_models_is_refused(config, tmp_path):
    other = ml_collections.ConfigDict(config.to_dict())
    other.models = ()
    with pytest.raises(cli.ConfigError, match="config.models=\\(\\): expected runs"):
        study.run(other, tmp_path, progress=False)


@pytest.mark.parametrize("name, side", [("digits", 8), ("cifar10", 32), ("imagenet", 224), ("folder", 224), ("folder", 32), ("folder", 100)])
@pytest.mark.parametrize("size", ["small", "full"])
def test_every_probe_of_the_config_is_valid(name, side, size):
    made = robustness_study.get_config(f"data={name},size={size},models=a+b" + f",pixels={side}" * (name == "folder"))
    assert made.models == ("a", "b") and not made.train and name in robustness_study.SETS
    images = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    for label, probe in made.probes.items():
        assert probe.kind in probes.KINDS, label
        if "attack" in probe:
            attacks.create(**probe.attack.to_dict())
        for value in probe.get("steps", ()):
            disturb = evaluation.disturbances.create(**probe.disturbance.to_dict(), **{probe.over: value})
            if not disturb.needs_model:
                assert jax.eval_shape(disturb, images, jax.random.key(0)).shape == images.shape


def test_pictures_of_photos_are_small():
    """Small images are stored without loss, photographs at most 112 pixels wide, in less than half the space."""
    rng = np.random.default_rng(0)
    small, photo = rng.random((32, 32, 3), np.float32), np.asarray(load_sample_image("flower.jpg"), np.float32)[:400, :400] / 255
    kept, shrunk = (Image.open(io.BytesIO(base64.b64decode(cells.picture(image)["uri"].split(",")[1]))) for image in (small, photo))
    np.testing.assert_array_equal(np.asarray(kept), np.round(small * 255))
    assert shrunk.size == (112, 112) and len(cells.picture(photo)["uri"]) < 8000
    assert np.abs(np.asarray(shrunk, float).mean((0, 1)) - 255 * photo.mean((0, 1))).max() < 3
