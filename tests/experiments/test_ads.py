"""The study of Adaptive Scaling: its grids, what it measures, and the whole program on two tiny models (slow)."""
import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import ads_study, base
from experiments import ads as program
from experiments.ads_study import findings
from experiments.common import build, cli
from experiments.sweeps import plan
from vmamba_jax import evaluation, logits_fn
from vmamba_jax.models.sequence import SequenceClassifier


def config(*groups):
    """The study's config with these groups, one seed, two epochs of the small models."""
    made = ads_study.get_config("seeds=1")
    made.base.update(epochs=2)
    made.base.validation.update(every_epochs=1, limit=36)
    made.base.evaluation.update(batch_size=36, limit=36)
    for name in [name for name in made.runs if name not in groups]:
        del made.runs[name]
    made.control = groups[0]
    made.study.update(images=16, train_images=36, batch_size=16)
    made.study.autoattack.update(steps=2, queries=2)
    return made


@pytest.mark.parametrize(("arg", "groups"), [("", 13), ("data=mnist,grid=at", 4), ("data=cifar10,grid=vmamba", 2), ("data=mnist,size=released,grid=wide", 25),
                                             ("data=tiny_imagenet,size=released,grid=full", 175)])
def test_grids(arg, groups):
    planned = plan.expand(ads_study.get_config(arg + ",seeds=1"))
    assert len(planned) == groups
    for each in planned:
        name, ads, objective = each.group.split("-")
        overrides = each.config.model.overrides
        assert (overrides.ads, overrides.get("activation")) == (("none", "gelu") if ads == "gelu" else (ads, None))
        assert each.config.objective.name == objective
        assert each.config.model.name == ("vmamba_tiny" if name == "vmamba" else f"{name}_{arg.partition('data=')[2].partition(',')[0] or 'mnist'}")
        assert each.config.validation.select == ("accuracy" if objective == "standard" else "robust_accuracy")


def test_settings_of_the_paper():
    """Radius, step size, steps, TRADES weight and epochs of the released programs, on AutoAttack's default size and 2,000 images."""
    for data, eps, size, beta, epochs in (("mnist", 0.3, 0.04, 1, 100), ("cifar10", 0.031, 0.007, 6, 180), ("tiny_imagenet", 0.031, 0.007, 6, 180)):
        made = ads_study.get_config(f"data={data},size=released,grid=full,seeds=1")
        section = made.runs["s4-relu-trades"].objective
        assert (section.attack.eps, section.attack.step_size, section.attack.steps, section.beta, made.base.epochs) == (eps, size, 10, beta, epochs)
        assert made.study.images == 2000 and set(made.study.autoattack) == {"name", "eps"} and made.runs["dss-none-free"].objective.replays == 4
    assert set(base.run()) == set(made.base)


@pytest.mark.parametrize("arg", ["data=imagenet", "size=huge", "grid=some", "data=digits,size=released"])
def test_bad_argument_is_named(arg):
    with pytest.raises(ValueError, match=f"config argument {arg.split(',')[0].split('=')[0]}="):
        ads_study.get_config(arg)


def test_a_sweep_without_a_study_is_refused(tmp_path):
    made = config("s4-none-pgd_at")
    del made.study
    with pytest.raises(cli.ConfigError, match="config.study is missing"):
        program.run(made, tmp_path)


def test_kernels(monkeypatch):
    """Worst case and energy of each layer, means over the channels."""
    monkeypatch.setattr(findings.analysis, "layer_kernels", lambda *_: {"layers_0": jnp.array([[3.0, -4.0], [0.0, 1.0]]), "layers_1": jnp.ones((2, 4))})
    source = type("Source", (), {"image_shape": (8, 8, 1)})
    made = lambda layer: type("Classifier", (), {"model": SequenceClassifier(layer=layer)})
    assert findings.kernels(made("s4"), {}, source) == [{"worst": 4.0, "energy": 3.0}, {"worst": 4.0, "energy": 2.0}]
    assert findings.kernels(made("s5"), {}, source) == []


@pytest.mark.slow
def test_program(tmp_path):
    """Train, measure and draw two groups; the figures are those of the checkpoints; a second call measures nothing, another study section does."""
    study = config("s4-none-pgd_at", "s4-attention-pgd_at")
    found = program.run(study, tmp_path, progress=False)
    assert {record["status"] for record in found.values()} == {"done"}, [record.get("reason") for record in found.values()]
    folder, planned = tmp_path / "s4-attention-pgd_at" / "seed_0", plan.expand(study)[1].config
    content = json.loads((folder / "ads.json").read_text())
    classifier, variables, _ = build.trained(planned, folder)
    source = build.source(planned, "test", 36)
    assert content["last"]["clean"] == evaluation.accuracy(logits_fn(classifier, variables), source, batch_size=36)["accuracy"]
    assert content["last"]["step"] == json.loads((folder / "results.json").read_text())["steps"] and content["best"]["step"] <= content["last"]["step"]
    assert content["best"]["pgd"] == json.loads((folder / "evaluation.json").read_text())["attacks"]["pgd"]["robust_accuracy"]
    assert not (folder / "examples.npz").exists()  # config.evaluation.examples=0: an empty batch would reach the attention
    assert content["examples"] == {"test": 36, "first": 16, "train": 36} and len(content["kernels"]) == 2
    assert "layers_0/attention" in content["rates"]["components"] and np.isfinite(content["rates"]["mse_after"]).all()
    assert (tmp_path / "ads.html").is_file() and "s4-attention" in (tmp_path / "ads.md").read_text()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/ads.json")}
    program.run(study, tmp_path, progress=False)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/ads.json")}
    study.study.images = 8
    program.run(study, tmp_path, progress=False)
    assert json.loads((folder / "ads.json").read_text())["examples"]["first"] == 8
