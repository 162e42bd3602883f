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
    """The study's config with one tiny model on 32 x 32 pixels, one epoch."""
    made = dense.get_config()
    made.base.epochs, made.base.batch_size = 1, 8
    made.base.data.options = {"size": 32, "examples": (16, 4, 4)}
    made.base.model.overrides = TINY
    made.runs["vmamba-standard"].model.overrides = TINY
    made.base.validation.every_epochs = 1
    made.study.corruptions.update(names="brightness", severities=(3,))
    made.study.sea.steps, made.study.attacks.pgd.steps = 4, 2
    made.study.update(changes)
    return made


@pytest.mark.parametrize("arg,groups,seeds", [("", 1, 1), ("models=all,objectives=both,seeds=3", 6, 3), ("models=swin,objectives=pgd_at", 1, 1)])
def test_plan(arg, groups, seeds):
    planned = plan.expand(dense.get_config(arg))
    assert len(planned) == groups * seeds and len({each.group for each in planned}) == groups
    for each in planned:
        attacked = each.group.endswith("pgd_at")
        assert bool(each.config.objective.attack) == attacked and each.config.validation.select == ("robust_mIoU" if attacked else "mIoU")
        assert each.config.model == dense.MODELS[each.group.split("-")[0]] or each.config.model.to_dict()["name"].startswith("upernet_")


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
def test_the_study_learns(tmp_path):
    """The committed recipe passes 0.5 mIoU, where background everywhere has about 0.21."""
    made = dense.get_config()
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
