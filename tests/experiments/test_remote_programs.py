"""Training and evaluation with a workdir in a bucket: the files of a run, the same results as in a folder, and failures in one line."""
import json

import pytest

from experiments import evaluate, train
from experiments.common import cli
from tests.helpers import s3_server
from tests.helpers.tiny_runs import tiny
from vmamba_jax import checkpoints, data, reports


@pytest.fixture
def server(monkeypatch):
    with s3_server.serve("bucket") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.slow
def test_train_and_evaluate(server, tmp_path):
    url, config = "s3://bucket/runs/digits", tiny("pgd_at")
    local, remote = (train.run(config, folder, progress=False) for folder in (tmp_path / "run", url))
    assert local["sha256"] == remote["sha256"] and local["best"] == remote["best"]
    ours, theirs = (evaluate.run(config, folder, progress=False) for folder in (tmp_path / "run", url))
    assert ours["attacks"] == theirs["attacks"] and ours["identity"] == theirs["identity"]
    assert evaluate.run(config, url, progress=False) == theirs  # measured once
    stored = {key.removeprefix("runs/digits/") for key in server.buckets["bucket"]}
    assert {"config.json", "classes.json", "metrics.jsonl", "timing.jsonl", "results.json", "training.html", "evaluation.json", "examples.npz"} <= stored
    assert {key.partition("/")[0] for key in stored} <= {path.name for path in (tmp_path / "run").iterdir()} | {".lock"}
    assert json.loads(server.buckets["bucket"]["runs/digits/config.json"]) == json.loads((tmp_path / "run" / "config.json").read_text())
    assert data.load_class_names(url) == tuple(map(str, range(10))) and checkpoints.open_weights(url).step == remote["best"]["step"]
    found = reports.read_run(url)
    assert found.label == "digits" and reports.write(found.folder / "report.html", [found], title="digits").name == "report.html"
    config.seed += 1
    with pytest.raises(cli.ConfigError, match="workdir=s3://bucket/runs/digits: expected the config that this run started with"):
        train.run(config, url, progress=False)


def test_failures(server):
    config = tiny("standard")
    with pytest.raises(cli.RunError, match="^s3://nowhere: expected a bucket .*NoSuchBucket") as caught:
        train.run(config, "s3://nowhere/run", progress=False)
    assert "\n" not in str(caught.value)
    server.access_key = "another"
    with pytest.raises(cli.RunError, match="^s3://bucket: expected a bucket .*InvalidAccessKeyId"):
        train.run(config, "s3://bucket/run", progress=False)
    with pytest.raises(cli.ConfigError, match="workdir=https://host/run: .*expected a local path, gs://BUCKET/FOLDER"):
        train.run(config, "https://host/run", progress=False)
    with pytest.raises(cli.ConfigError, match="workdir=s3://bucket/sweep: expected a local folder"):
        cli.folder("s3://bucket/sweep")
