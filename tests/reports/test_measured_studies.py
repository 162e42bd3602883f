"""The pages of the studies of certificates and of adaptation, from stand-ins for their runs."""
import functools
import json
import pathlib

import numpy as np
import pytest

from configs import adaptation, certify
from tests.helpers import fake_sweep
from vmamba_jax import reports
from vmamba_jax.reports import measured


def certificates(config, folder, *, progress=True):
    """Write evaluation.json and certify.json of one run."""
    folder = pathlib.Path(folder)
    fake_sweep.evaluate(config, folder)
    noise, group = float(np.random.default_rng(config.seed).uniform(0, 0.01)), folder.parent.name
    curve = lambda high: [{"radius": radius, "certified_accuracy": max(high - radius + noise, 0)} for radius in (0.0, 0.25, 0.5)]
    row = lambda certified, **more: {"certified": certified + noise, "looseness": 50.0, "outside": 0, **more}
    bounds = group == "interval"
    content = {"clean": 0.95 + noise, "examples": {"certified": 180, "attacked": 90}, "smoothing": {
        sigma: {"accuracy": 0.9, "abstention": 0.05, "curve": curve(0.9 if group.startswith("noise") else 0.5)} for sigma in ("0.25", "0.5")},
        "interval": {"0.001": row(0.9 * bounds, robust=0.92 + noise, broken=0), "0.002": row(0.8 * bounds)}}
    (folder / "certify.json").write_text(json.dumps(content))


def adaptations(config, folder, *, progress=True):
    """Write evaluation.json and adapt.json of one run."""
    folder = pathlib.Path(folder)
    fake_sweep.evaluate(config, folder)
    noise = float(np.random.default_rng(config.seed).uniform(0, 0.01))
    accuracy = {"none": 0.5, "tent": 0.7, "sar": 0.49, "statistics": 0.72}
    streams = {setting: {m: {"fog": a + noise * (m == "tent") - 0.1 * (setting == "continual" and m == "tent"), "brightness": a} for m, a in accuracy.items()}
               for setting in ("continual", "reset")}
    attacked = {m: {"clean": 0.9, "before": 0.5 + noise + 0.2 * (m == "tent"), "through": 0.3 if m == "tent" else 0.5 + noise,
                    "known": 0.3 if m == "tent" else 0.5 + noise} for m in ("none", "tent")}
    poisoned = {m: {"without": 0.9 + noise, "with": 0.8 if m == "tent" else 0.9 + noise} for m in ("none", "tent")}
    (folder / "adapt.json").write_text(json.dumps({"streams": streams, "attacked": attacked, "poisoned": poisoned}))


@functools.cache
def folders(tmp):
    fake_sweep.study(certify.get_config(), tmp / "certify", ("standard", "noise_025", "interval"), (0, 1), certificates)
    fake_sweep.study(adaptation.get_config(), tmp / "adapt", ("batch_norm",), (0, 1), adaptations)
    return tmp / "certify", tmp / "adapt"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("studies"))


def verdicts(folder, name):
    return {each["sentence"]: each["verdict"] for each in json.loads((folder / f"{name}.json").read_text())["claims"]}


def test_certificates(studies):
    folder, _ = studies
    page = reports.write_certify(folder, commands=("python -m experiments.certify",)).read_text()
    found = verdicts(folder, "certify")
    assert found["Training on bounds raises the accuracy that bounds certify at linf radius 0.001"] == "seen"
    assert found["Noise in training raises certified accuracy at l2 radius 0.25 (noise 0.25 in training and smoothing)"] == "seen"
    assert found["Training on bounds lowers clean accuracy"] == "not seen"
    assert found["Bounds certify less than AutoAttack leaves at linf radius 0.001"] == "seen"
    assert page.count("<svg") == 1 and "Looseness of the bounds by linf radius (0 certified images broken" in page
    assert "python -m experiments.certify" in page and "6 of 6 runs done" in page
    study = reports.read_certify(folder)
    assert {"Claims", "Interval bounds: certified accuracy by linf radius"} <= set(study.tables()) and study.html() == reports.write_certify(folder).read_text()
    text = reports.certify_text(study)
    assert "AutoAttack 0.001" in text and (folder / "certify.md").read_text().startswith("## Claims")


def test_adaptation(studies):
    _, folder = studies
    page = reports.write_adapt(folder).read_text()
    found = verdicts(folder, "adapt")
    assert found["tent raises mean accuracy under corruption above that without adaptation (reset)"] == "seen"
    assert found["sar raises mean accuracy under corruption above that without adaptation (reset)"] == "not seen"
    assert found["tent raises mean accuracy under corruption above that of the batch's statistics alone (reset)"] == "not seen"
    assert found["Adaptation by tent raises accuracy under an attacker who does not know it"] == "seen"
    assert found["Adaptation by tent lowers accuracy under an attacker who knows it"] == "seen"
    assert found["The reset at each corruption is more accurate than the continual stream: tent"] == "seen"
    assert found["The attack through tent is stronger than the one on the model before it adapts"] == "seen"
    assert found["Poisoned images lower the accuracy on the others: tent"] == "seen"
    assert page.count("<svg") == 1 and "batch_norm: accuracy under corruption, continual" in page
    table = (folder / "adapt.md").read_text().split("## batch_norm: accuracy under corruption, reset")[1]
    assert table.index("| none") < table.index("| statistics") < table.index("| sar")
    assert "attacked through" in reports.adapt_text(reports.read_adapt(folder))


def test_one_seed_and_no_run(tmp_path, studies):
    study = reports.read_certify(studies[0])
    claim = measured.Claim("x", lambda content: content["clean"], "interval", "standard")
    alone = measured.Study(study.sweep, [each for each in study.findings if each.seed == 0])
    assert claim.judge(alone)["verdict"] == "inconclusive" and claim.judge(measured.Study(study.sweep, [])) is None
    sweep = json.loads((studies[0] / "sweep.json").read_text())
    (tmp_path / "sweep.json").write_text(json.dumps(sweep))
    assert "No run is done" in reports.write_certify(tmp_path).read_text()
    with pytest.raises(FileNotFoundError):
        reports.read_adapt(tmp_path / "nothing")
