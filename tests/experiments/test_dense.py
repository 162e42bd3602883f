"""The dense study: its plan, a backbone's weights in a segmenter, and the whole program on a tiny model (slow)."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from configs import ade20k, base, dense
from experiments import dense as program
from experiments.common import build, cli, limits
from experiments.sweeps import plan
from tests.helpers import fake_dense
from vmamba_jax import checkpoints, data, training

TINY = {"channels": 8, "aux_channels": 8, "backbone": {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1), "ssm_ratio": 1.0, "mlp_ratio": 0.0, "drop_path_rate": 0.0}}


def config(**changes):
    """The study's config with one tiny segmenter on 32 x 32 pixels, one epoch."""
    made = dense.get_config("tasks=segmentation")
    made.base.epochs, made.base.batch_size = 1, 8
    made.base.data.options = {"size": 32, "examples": (16, 4, 4)}
    made.base.model.overrides = TINY
    made.runs["vmamba-standard"].model.overrides = TINY
    made.base.validation.every_epochs = 1
    made.study.corruptions.update(names="brightness", severities=(3,))
    made.study.sea.steps, made.study.attacks.pgd.steps = 4, 2
    made.study.update(changes)
    return made


@pytest.mark.parametrize("arg,groups,seeds", [("", 2, 1), ("tasks=segmentation,models=all,objectives=both,seeds=3", 6, 3), ("tasks=segmentation,models=swin,objectives=pgd_at", 1, 1),
                                              ("tasks=detection,objectives=both", 2, 1)])
def test_plan(arg, groups, seeds):
    planned = plan.expand(dense.get_config(arg))
    assert {each.config.epochs for each in planned if not each.group.startswith("mask_rcnn")} <= ({24} if "models=all" in arg else {40})
    assert len(planned) == groups * seeds and len({each.group for each in planned}) == groups
    for each in planned:
        attacked = each.group.endswith("pgd_at")
        detects, model = each.group.startswith("mask_rcnn_"), each.group.removeprefix("mask_rcnn_").split("-")[0]
        assert bool(each.config.objective.attack) == attacked and each.config.validation.select == "robust_" * attacked + ("mask_AP" if detects else "mIoU")
        assert each.config.model.name == f"{'mask_rcnn' if detects else 'upernet'}_{model}_tiny" and each.config.objective.name == (
            "detection" if detects else "segmentation")


def detector(**changes):
    """The study's config with one tiny detector on 32 x 32 pixels, one epoch; with other changes to the group's."""
    made = dense.get_config("tasks=detection")
    made.base.data.options = {"size": 32, "examples": (8, 4, 4)}
    made.study.corruptions.update(names="brightness", severities=(3,))
    made.study.disturbances = {"random": {"name": "random_drop", "grid": 8, "area": 0.25}}
    made.study.update(worst=1, detection_attacks={"pgd": {"name": "detection_pgd", "eps": 0.01, "steps": 2}})
    run = made.runs["mask_rcnn_vmamba-standard"]
    run.update(epochs=1, batch_size=8)
    run.validation.attack.steps = 1
    run.validation.every_epochs = 1
    run.model.overrides.update(backbone=TINY["backbone"], channels=8, rpn_channels=8, fc_channels=8, mask_channels=8, mask_depth=1)
    with run.unlocked():
        run.update(changes)
    return made


def test_detectors(monkeypatch):
    """Batches have the objects; classes are those of instances; an objective of another task, or a set without instances, is an error."""
    made = plan.expand(detector())[0].config
    train = build.source(made, "train")
    classifier = build.classifier(made, train)
    model = classifier.model
    assert model.num_classes == 3 and model.proposals.count == 50 and model.box_sampling.positive == 0.5 and model.box_sampling.count == 32
    batch = build.batches(made, train)[0]
    assert batch["masks"].shape == (8, train.most_instances, 32, 32) and batch["valid"].any() and build.class_names(made, train) == ("disk", "box", "triangle")
    steps = build.objective(made, classifier, build.optimizer(made, 2), 2)
    steps.check_batch(batch)
    made.objective.update(name="segmentation")
    with pytest.raises(cli.ConfigError, match="config.objective.name='segmentation' with config.model.name='mask_rcnn_vmamba_tiny': expected 'detection'"):
        build.objective(made, classifier, build.optimizer(made, 2), 2)
    monkeypatch.setattr(type(train), "has_instances", False)
    monkeypatch.setattr(train, "has_instances", False)
    with pytest.raises(cli.ConfigError, match="expected a set with instances for a detector"):
        build.classifier(made, train)


def test_recipes():
    """The released numbers of ADE20K, and those of PIR-AT."""
    made = ade20k.get_config()
    limits.check_run(made)
    assert made.epochs * (ade20k.IMAGES // 16) == pytest.approx(160_000, rel=0.005) and made.optimizer.decay_rule == "norms" and not made.objective.attack
    assert round(made.schedule.warmup * 160_000) == 1500 and made.schedule.learning_rate == 6e-5 and made.transform.scale == (2048, 512)
    robust = ade20k.get_config("objective=pir_at,model=convnext_tiny")
    assert robust.objective.attack.steps == 5 and robust.schedule.learning_rate == 1e-4 and robust.model.name == "upernet_convnext_tiny"


@pytest.mark.parametrize("name,set_name", [("vmamba_tiny", "dense_shapes"), ("upernet_vmamba_tiny", "digits")])
def test_dense_models_and_sets_belong_together(name, set_name):
    made = base.run()
    made.model = {"name": name, "overrides": {}}
    made.data.update(name=set_name, options={"size": 16, "examples": (1, 1, 1)} if set_name == "dense_shapes" else {})
    with pytest.raises(cli.ConfigError, match=f"config.model.name='{name}' with config.data.name='{set_name}': expected a dense model"):
        build.classifier(made, build.source(made, "train"))


def test_batches_and_validation_set():
    """A joint transform makes a `DensePipeline`; a subset of the validation split stays dense."""
    made = plan.expand(config())[0].config
    source = build.source(made, "train")
    assert type(build.batches(made, source)) is data.Batches and build.batches(made, source)[0]["label"].shape == (8, 32, 32)
    made.transform = {"name": "segmentation", "size": 24, "scale": (64, 32)}
    found = build.batches(made, source)
    assert isinstance(found, data.DensePipeline) and found[0]["label"].shape == (8, 24, 24)
    limits.check_run(made)
    assert isinstance(build.source(made, "validation", 3), data.DenseSource) and len(build.source(made, "validation", 3)) == 3


def test_a_robust_backbone_starts_a_segmenter(monkeypatch):
    """Only the norms of the maps and the heads are random; a backbone with other blocks is an error."""
    made = plan.expand(config())[0].config
    made.init.checkpoint = "somewhere"
    model = build.classifier(made, build.source(made, "train"))
    weights = {"patch_embed": 1.0, "layers_0": 2.0, "classifier": 9.0}
    monkeypatch.setattr(checkpoints, "read_variables", lambda model, *args, **options: {"params": dict(weights)} | {"seen": model})
    fresh = {"params": {"backbone": {"patch_embed": 0.0, "layers_0": 0.0, "outnorm0": 5.0}, "decode_head": 7.0}, "batch_stats": {"decode_head": 3.0}}
    monkeypatch.setattr(type(model), "init", lambda self, key, shape: {name: dict(tree) if isinstance(tree, dict) else tree for name, tree in fresh.items()})
    found = build.variables(made, model)
    backbone = {name: float(value) for name, value in found["params"]["backbone"].items()}
    assert backbone == {"patch_embed": 1.0, "layers_0": 2.0, "outnorm0": 5.0} and float(found["params"]["decode_head"]) == 7
    assert float(found["batch_stats"]["decode_head"]) == 3
    del weights["layers_0"]
    with pytest.raises(cli.ConfigError, match="somewhere: expected the weights of the backbone, layers_0 are absent"):
        build.variables(made, model)


@pytest.mark.slow
def test_backbone_of_a_saved_classifier(tmp_path):
    """A classifier's own weights, through its files, in a segmenter of the same backbone."""
    made = plan.expand(config())[0].config
    backbone = {"in_channels": 3, **TINY["backbone"]}
    plain = vmamba_jax.create_model("vmamba_tiny", num_classes=4, **backbone)
    variables = plain.init(jax.random.key(5), jnp.zeros((1, 32, 32, 3)))
    checkpoints.save_variables(tmp_path / "robust", variables, {"model": "vmamba_tiny"})
    made.init.checkpoint = str(tmp_path / "robust")
    model = build.classifier(made, build.source(made, "train"))
    found = build.variables(made, model)
    for name in found["params"]["backbone"]:
        if not name.startswith("outnorm"):
            np.testing.assert_array_equal(*(np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree[name])])
                                            for tree in (found["params"]["backbone"], variables["params"])))


@pytest.mark.slow
def test_the_program(tmp_path):
    """Train, measure and draw; a second call does nothing, and another probe is measured without training."""
    made = config()
    program.run(made, tmp_path, progress=False)
    folder = tmp_path / "vmamba-standard" / "seed_0"
    content = json.loads((folder / "dense.json").read_text())
    assert content["sea"]["worst"]["mIoU"] <= min(part["mIoU"] for part in content["sea"]["parts"]) + 1e-9 and len(content["sea"]["parts"]) == 3
    assert set(content["disturbances"]) == set(made.study.disturbances) and content["corruptions"]["rows"][0]["corruption"] == "brightness"
    assert content["examples"] == 4 and 0 < content["clean"]["mIoU"] < 1 and (tmp_path / "dense.html").read_text().count("data:image/png") == 5 * 8
    with training.Checkpoints(folder / "checkpoints", read_only=True) as saved:
        assert set(saved.metrics("best")) >= {"validation/mIoU", "validation/robust_mIoU", "validation/accuracy"}
    before = (folder / "dense.json").stat().st_mtime_ns, (folder / "results.json").stat().st_mtime_ns
    program.run(made, tmp_path, progress=False)
    assert before == ((folder / "dense.json").stat().st_mtime_ns, (folder / "results.json").stat().st_mtime_ns)


@pytest.mark.slow
def test_a_tiny_grid_resumes(tmp_path, monkeypatch):
    """Two models by two objectives by two seeds; stopped after two runs, the same command does the others and no run twice."""
    made = dense.get_config("tasks=segmentation,models=all,objectives=both,seeds=2,epochs=1")
    for name in [name for name in made.runs if name.startswith("swin")]:
        del made.runs[name]
    small = config()
    made.base.batch_size, made.base.data.options, made.base.validation.every_epochs = 8, small.base.data.options, 1
    made.study = small.study
    made.study.update(disturbances={}, sea={}, corruptions={"names": "", "severities": (1,)})
    for name, run in made.runs.items():
        run.model.overrides.update(TINY if name.startswith("vmamba") else {"channels": 8, "aux_channels": 8, "backbone": {"dims": (8, 8, 8, 8), "depths": (1, 1, 1, 1)}})
        if run.objective.attack:
            run.objective.attack.steps = 1
    train, done = program.training.run, []

    def stopping(*args, **options):
        if len(done) == 2:
            raise training.Stopped("stopped")
        done.append(str(args[1]))
        return train(*args, **options)
    monkeypatch.setattr(program.training, "run", stopping)
    with pytest.raises(training.Stopped):
        program.run(made, tmp_path, progress=False)
    assert "2 of 8 runs done" in (tmp_path / "dense.html").read_text()
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*/*/dense.json")}
    monkeypatch.undo()
    program.run(made, tmp_path, progress=False)
    assert len(before) == 2 and all(file.stat().st_mtime_ns == then for file, then in before.items())
    found = json.loads((tmp_path / "dense.json").read_text())
    assert set(found) == set(made.runs) and all(scores["clean"]["n"] == 2 for scores in found.values()) and "8 of 8 runs done" in (tmp_path / "dense.html").read_text()


@pytest.mark.slow
def test_the_program_with_a_detector(tmp_path):
    """Train, validate, measure and draw, and the weights' own classes in `predict`; a second call does nothing."""
    made = detector()
    program.run(made, tmp_path, progress=False)
    folder = tmp_path / "mask_rcnn_vmamba-standard" / "seed_0"
    content = json.loads((folder / "dense.json").read_text())
    assert content["task"] == "detection" and content["classes"] == ["disk", "box", "triangle"] and 0 <= content["clean"]["mask_AP"] <= 1
    assert set(content["attacks"]) == {"pgd"} and set(content["disturbances"]) == {"random"} and content["corruptions"]["rows"][0]["corruption"] == "brightness"
    with training.Checkpoints(folder / "checkpoints", read_only=True) as saved:
        assert set(saved.metrics("best")) >= {"validation/mask_AP", "validation/robust_box_AP", "validation/box_AP50"}
    assert "Mask AP on the test images" in (tmp_path / "dense.html").read_text()
    opened = checkpoints.open_weights(folder)
    assert opened.class_names(3) == ("disk", "box", "triangle") and opened.create_model().num_classes == 3
    before = (folder / "dense.json").stat().st_mtime_ns
    program.run(made, tmp_path, progress=False)
    assert before == (folder / "dense.json").stat().st_mtime_ns


@pytest.mark.slow
def test_the_study_learns(tmp_path):
    """The committed recipe passes 0.5 mIoU, where background everywhere has about 0.21."""
    made = dense.get_config("tasks=segmentation")
    made.study = dense.probes() | {"sea": {}, "attacks": {}, "disturbances": {}, "corruptions": {"names": "", "severities": (1,)}}
    program.run(made, tmp_path, progress=False)
    content = json.loads((tmp_path / "vmamba-standard" / "seed_0" / "dense.json").read_text())
    assert content["clean"]["mIoU"] > 0.5 > 0.25 > content["background"]


def test_the_page_is_drawn_again_from_files_alone(tmp_path):
    """--page, with another command than a run's; without a study there it is an error."""
    fake_dense.study(tmp_path, seeds=1)
    program.main(None, tmp_path, page=True)
    assert "python -m experiments.dense --config configs/dense.py --workdir" in (tmp_path / "dense.html").read_text()
    with pytest.raises(cli.ConfigError, match="--page: .*runs.json: expected the folder of a study"):
        program.main(None, tmp_path / "other", page=True)
