"""The use of the scans as a number of every evaluation of a VMamba or Vim."""
import json

import numpy as np
import pytest

import vmamba_jax
from configs import base, evaluate_weights
from experiments import evaluate
from experiments.common import build
from tests.helpers import weight_places
from vmamba_jax import analysis, checkpoints, reports

TINY = {"dims": (8,), "depths": (2,), "patch_size": 4, "num_classes": 10, "in_channels": 1}


@pytest.mark.slow
def test_states_of_a_run(tmp_path):
    """Those of the first images, in evaluation.json, in the terminal's tables and on the page; measured once."""
    variables = weight_places.random(vmamba_jax.create_model("vmamba_tiny", **TINY))
    checkpoints.save_variables(tmp_path / "weights", variables, {"model": "vmamba_tiny", "overrides": TINY})
    made = evaluate_weights.get_config("model=vmamba_tiny")
    made.weights, made.data, made.preprocessing = str(tmp_path / "weights"), {"name": "digits", "root": "", "options": {}}, {"mean": (0.5,), "std": (0.5,)}
    made.model.overrides = TINY
    made.evaluation.update(split="test", limit=24, batch_size=16, skip_attacks=True)
    config = base.complete(made)
    assert config.evaluation.states.images == 50
    content = evaluate.run(config, tmp_path / "run", progress=False)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text()) == content

    source = build.source(config, "test", 24)
    found = analysis.state_statistics(build.classifier(config, source), checkpoints.load_variables(config.weights)[0], source.gather(np.arange(24)), batch_size=8)
    assert content["states"]["examples"] == 24 and len(content["states"]["blocks"]) == 2
    for ours, theirs in zip(content["states"]["blocks"], found["blocks"], strict=True):
        assert ours["skip"]["mean"] == pytest.approx(theirs["skip"]["mean"], abs=1e-6) and 0 < ours["skip"]["mean"] <= 1
    run = reports.read_run(tmp_path / "run")
    shares = [reports.tables.percent(row["skip"]["mean"]) for row in content["states"]["blocks"]]
    page = reports.render([run], title="t")
    assert f"by block: {', '.join(shares)}" in reports.tables.text([run]) and "Use of the scans" in page and all(f"<td>{share}" in page for share in shares)

    made.evaluation.states.images = 0
    assert evaluate.run(base.complete(made), tmp_path / "run", progress=False)["states"] is None
