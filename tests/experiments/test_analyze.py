"""The analysis program: config, what applies to which model, and the whole program on tiny models (slow)."""
import json
import types

import jax
import numpy as np
import pytest

import vmamba_jax
from configs import analysis as analysis_config
from experiments import analyze
from experiments.common import cli
from experiments.robustness_study.probes import NotApplicable
from experiments.seeing import parts, subjects
from vmamba_jax import checkpoints, models, reports

TINY = {"vmamba": ("vmamba_tiny", {"dims": (8, 8), "depths": (1, 2), "patch_size": 2, "patch_embed": "v1"}),
        "vit": ("deit_tiny", {"embed_dim": 8, "depth": 2, "num_heads": 2, "patch_size": 2, "image_size": 8}),
        "resnet": ("resnet18", {"layers": (1,), "channels": (8,), "stem": "cifar", "stem_width": 8})}


def config(folder, *names):
    """An analysis of eight digits by tiny models with random weights."""
    made = analysis_config.get_config("data=digits,split=test,images=3,photos=1")
    for label in names:
        name, overrides = TINY[label]
        overrides = {"num_classes": 10, "in_channels": 1, **overrides}
        variables = models.Classifier(vmamba_jax.create_model(name, **overrides), 0.5, 0.5).init(jax.random.key(1), (8, 8, 1))
        checkpoints.save_variables(folder / label, variables, {"model": name, "overrides": overrides, "preprocessing": {"mean": [0.5], "std": [0.5]}})
    made.models = tuple(str(folder / label) for label in names)
    return made


@pytest.mark.parametrize(("field", "value", "message"), [
    ("models", (), r"config.models=\(\): expected catalog names"),
    ("parts", ("erf",), "config.parts"),
    ("steps", ("first",), r"config.steps\[0\]='first': expected one of 'initial', 'all'"),
    ("attention.queries", ((0.5, 1.0),), r"config.attention.queries\[0\]\[1\]"),
    ("attention.queries", ((0.5,),), r"config.attention.queries\[0\]=\(0.5,\): expected \(row, column\)"),
    ("receptive_field.shares", (0.0,), r"config.receptive_field.shares\[0\]")])
def test_bad_configs(tmp_path, field, value, message):
    made = analysis_config.get_config("model=vmamba_tiny,data=digits")
    section, _, name = field.rpartition(".")
    (made[section] if section else made)[name] = value
    with pytest.raises(cli.ConfigError, match=message):
        analyze.run(made, tmp_path, progress=False)


def test_usual_block():
    """The paper's block, stage 2 block 1, or the nearest that the model has; the last one without stages."""
    block = lambda name, **fields: parts._usual_block(vmamba_jax.create_model(name, **fields))
    assert (block("vmamba_tiny"), block("swin_tiny"), block("deit_tiny"), block("vim_tiny")) == (5, 5, 11, 23)
    assert (block("vmamba_tiny", depths=(3,), dims=(8,)), block("vmamba_tiny", depths=(2, 1), dims=(8, 8))) == (1, 2)


def test_parts_that_do_not_apply():
    of = lambda name, **fields: types.SimpleNamespace(classifier=models.Classifier(vmamba_jax.create_model(name, **fields)))
    for part, model, reason in (("attention", of("resnet18"), "ResNet has neither"), ("statistics", of("resnet18"), "ResNet has no scans"),
                                ("statistics", of("swin_tiny"), "Swin has no scans"), ("attention", of("vmamba_tiny", scan_pattern="cascade"), "the cascade")):
        with pytest.raises(NotApplicable, match=reason):
            parts.PARTS[part](model, None, {})


@pytest.mark.slow
def test_program(tmp_path, capsys, monkeypatch):
    """Every part of every model; a second run computes nothing; other weights are a cell of their own; the page from files alone."""
    made, workdir = config(tmp_path, *TINY), tmp_path / "seen"
    made.models = (*made.models, str(tmp_path / "nowhere"))
    index = analyze.run(made, workdir, progress=False, command="python -m experiments.analyze")
    states = {(cell["model"], cell["part"]): cell["status"] for cell in index["cells"]}
    assert states == {("vmamba", "receptive_field"): "done", ("vmamba", "attention"): "done", ("vmamba", "statistics"): "done",
                      ("vit", "receptive_field"): "done", ("vit", "attention"): "done", ("vit", "statistics"): "not applicable",
                      ("resnet", "receptive_field"): "done", ("resnet", "attention"): "not applicable", ("resnet", "statistics"): "not applicable"}
    assert "No such file" in index["models"][-1]["error"]

    found = reports.read_analysis(workdir)
    attended = dict(found.done("attention"))
    assert attended["vmamba"]["places"] == [[1, 1], [0, 0]] and attended["vmamba"]["block"] == 2 and attended["vit"]["grid"] == [4, 4]
    arrays = found.arrays(attended["vmamba"])
    assert {name: x.shape for name, x in arrays.items()} == {
        "photos": (1, 8, 8, 1), "queries": (1, 2, 2, 2), "rollout": (1, 2, 2, 2), "diagonal": (1, 2, 2), "received": (1, 2, 2), "each": (1, 4, 2, 2),
        "forms": (1, 5, 2, 2)}
    np.testing.assert_allclose(arrays["forms"][:, -1], arrays["queries"][:, 0])  # the last form is the one that the maps show

    def forbidden(*args):
        raise AssertionError("computed again")
    monkeypatch.setattr(parts, "PARTS", dict.fromkeys(parts.PARTS, forbidden))
    monkeypatch.setattr(cli, "command", lambda program: "again")
    done = [cell for cell in analyze.run(made, workdir, progress=False)["cells"] if cell["status"] == "done"]
    assert len(done) == 6
    analyze.main(made, workdir, page=True)
    assert (workdir / "analysis.html").is_file() and "vmamba: share of each block's scan output" in capsys.readouterr().out
    assert json.loads((workdir / "analysis.json").read_text())["config"]["models"][-1].endswith("nowhere")


@pytest.mark.slow
def test_checkpoints_of_a_run(tmp_path):
    """Before training and every saved step, with the weights with which the run began."""
    from configs import digits
    from experiments.common import build, training
    recipe = digits.get_config("objective=standard")
    recipe.model = {"name": "resnet18", "overrides": {"layers": (1,), "channels": (8,), "stem": "cifar", "stem_width": 8}}
    recipe.epochs, recipe.batch_size, recipe.checkpoints.keep = 2, 128, 3
    recipe.validation.update(every_epochs=1, limit=64)
    training.run(recipe, tmp_path / "run", progress=False)
    made = analysis_config.get_config("data=digits,split=test,images=2")
    made.steps, made.models = ("initial", "all"), (str(tmp_path / "run"),)
    found = subjects.read(made.models[0], made)
    labels = [model.label for model, _ in found]
    assert labels[:2] == ["run", "run, before training"] and len(labels) >= 3 and "step" in labels[2] and [whole for _, whole in found[:2]] == [True, False]
    expected = found[0][0].classifier.init(build.keys(recipe)[0], (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, found[1][0].variables, expected)
    weights = [model.facts["weights"] for model, _ in found]
    assert len(set(weights)) == len(weights)
