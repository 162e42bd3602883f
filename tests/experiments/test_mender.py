"""The mender's study: its plan, what a repair starts from, and the whole program on a tiny model (slow)."""
import json

import numpy as np
import pytest

from configs import base, mender
from experiments import mender as program
from experiments.common import build, cli
from experiments.mending import findings, runs
from experiments.sweeps import plan
from vmamba_jax import data

TINY = {"size": 16, "examples": (180, 12, 66)}


def config(*groups, model="vmamba"):
    """The study's config with these groups, one seed, two epochs of a tiny model on 16 x 16 pixels."""
    made = mender.get_config(f"model={model},seeds=1")
    made.base.data.options = TINY
    made.base.epochs, made.base.batch_size = 2, 64
    made.base.validation.update(every_epochs=2, limit=12)
    made.base.model.overrides = {"dims": (8, 16), "depths": (1, 1), "patch_size": 4, "mlp_ratio": 0.0, "drop_path_rate": 0.0}
    for name in list(made.runs):
        if name not in groups:
            del made.runs[name]
        elif "epochs" in made.runs[name]:
            made.runs[name].epochs = made.runs[name].validation.every_epochs = 1
    made.control = groups[0]
    return made


@pytest.mark.parametrize("arg", ["", "model=vim", "size=large,seeds=5", "model=vim,size=large", "cue=strong"])
def test_plan(arg):
    planned = plan.expand(mender.get_config(arg))
    groups = ["base", "uncued", "adversarial", *mender.CONTROLS]
    assert [each.group for each in planned[:10]] == groups and len(planned) == 10 * (5 if "seeds" in arg else 3)
    assert all(("contrast" in each.config.data.options) == ("strong" in arg) for each in planned)
    sections = {each.group: each.config.objective for each in planned}
    assert sections["external"].internal == 0 and sections["both"].internal > 0 and sections["ce"].external == sections["ce"].internal == 0
    assert sections["random_masks"].random == "masks" and sections["adversarial"].name == "pgd_at"


def test_chosen_groups():
    made = mender.get_config("groups=base+uncued,seeds=2")
    assert [each.name for each in plan.expand(made)] == [f"{group}/seed_{seed}" for seed in (0, 1) for group in ("base", "uncued")] and made.control == ""
    with pytest.raises(ValueError, match="groups='uncut': expected one of base"):
        mender.get_config("groups=uncut")


def test_a_repair_needs_its_base(tmp_path):
    planned = plan.expand(config("base", "both"))[1]
    with pytest.raises(cli.RunError, match="expected a finished run in .*base/seed_0; run the group first"):
        runs.make_repair(planned.config, tmp_path / planned.name)
    planned.config.objective.random = "seeds"
    with pytest.raises(cli.ConfigError, match="random='seeds': expected one of"):
        runs.make_repair(planned.config, tmp_path / planned.name)


def test_training_alone_refuses_a_repair():
    """`experiments.train` has neither masks nor templates."""
    with pytest.raises(cli.ConfigError, match="objective='repair': expected one of"):
        build.build(plan.expand(config("base", "both"))[1].config)


def test_shifted_splits_have_their_cue_for_a_model_trained_without():
    uncued = plan.expand(config("base", "uncued"))[1].config
    assert not build.source(uncued, "test").cue_masks.any() and findings._shifted(uncued, "conflict").cue_masks.any()


def test_share_of_the_correlation_inside_a_mask():
    mask = np.zeros((4, 4), bool)
    mask[:2, :1] = True
    assert findings._inside(np.array([[3.0, 1.0], [0.0, 0.0]]), mask) == pytest.approx(3 / 4 / 2)


@pytest.mark.slow
def test_program(tmp_path):
    """Train, locate, repair with every control, measure and draw; a second call measures nothing; a repaired run starts from its base."""
    study = config("base", "ce", "both", "random_masks", "random_templates", "random_block")
    found = program.run(study, tmp_path, progress=False)
    assert {record["status"] for record in found.values()} == {"done"}, [record.get("reason") for record in found.values()]
    content = json.loads((tmp_path / "both" / "seed_0" / "mender.json").read_text())
    rows = content["location"]["rows"]
    assert [(row["state"], row["block"]) for row in rows] == [(state, block) for state in "csxy" for block in (0, 1)]
    assert all(np.isfinite(row[group]["external"]["score"]) for row in rows for group in ("simple", "difficult"))
    assert list(content["attacked"]["groups"]) == ["clean", "attacked"] and set(content["cue"]) == {f"{row['state']}@{row['block']}" for row in rows}
    assert "claims" in json.loads((tmp_path / "mender.json").read_text()) and (tmp_path / "mender.html").is_file()
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/mender.json")}
    program.run(study, tmp_path, progress=False)
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/mender.json")}

    planned = next(each for each in plan.expand(study) if each.name == "both/seed_0")
    made = runs.make_repair(planned.config, tmp_path / planned.name)
    start = build.trained(plan.expand(study)[0].config, tmp_path / "base" / "seed_0")[1]
    np.testing.assert_array_equal(made.variables["params"]["head"]["kernel"], start["params"]["head"]["kernel"])
    masks = data.load("cued_shapes", "train", **TINY).masks
    np.testing.assert_array_equal(made.batches[0]["mask"], masks[made.batches[0]["index"]])


def test_the_config_has_every_key():
    assert set(base.run()) == set(mender.get_config().base)
