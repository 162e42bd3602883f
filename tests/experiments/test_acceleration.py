"""The rungs from the vanilla VMamba to the released one: the paper's parameters and multiply-adds, from shapes alone; the benchmark's part and table."""
import pytest

import vmamba_jax
from configs import acceleration
from experiments import benchmark
from experiments.benchmarks import ladder
from experiments.common import cli
from vmamba_jax.reports import benchmarks

FAST = ("d",)


@pytest.mark.parametrize("rung", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in acceleration.RUNGS])
def test_published(rung):
    parameters, gflops, *_ = acceleration.RUNGS[rung][2]
    found = vmamba_jax.cost(ladder.create(acceleration.get_config().ladder, rung), 224)
    assert found.parameters / 1e6 == pytest.approx(parameters, abs=0.06)  # one digit after the point; (d.2) has 28.257, published as 28.2
    assert found.gflops == pytest.approx(gflops, abs=0.00501)


def test_config():
    config = acceleration.get_config("machine=accelerator")
    assert config.ladder.names == acceleration.TIMED == ("vanilla", "c", "d", "d1", "d2", "e", "e1", "e2", "f", "g")
    assert ladder.create(config.ladder, "vanilla").scan_implementation == "reference" and ladder.create(config.ladder, "c").scan_implementation is None
    assert ladder.create(config.ladder, "g").dtype.name == "bfloat16" and config.ladder.batch == 128
    with pytest.raises(cli.ConfigError, match=r"config\.ladder\.names='h': expected some of"):
        ladder.create(config.ladder, "h")
    config.ladder.models.g.fields = {"depht": 2}
    with pytest.raises(cli.ConfigError, match=r"config\.ladder\.models\.g: depht=2: expected fields"):
        ladder.create(config.ladder, "g")


@pytest.mark.slow
def test_measured(tmp_path):
    config = acceleration.get_config()
    config.ladder.update(names=("c", "g"), size=32)
    for rung in config.ladder.models.values():
        rung.fields = {**rung.fields.to_dict(), "dims": (8,), "depths": (1,), "num_classes": 4}
    config.repeats = 2
    content = benchmark.run(config, tmp_path / "ladder.json", progress=False)
    rows = content["records"]
    assert [(row["name"], row["pass"]) for row in rows] == [("c", "forward"), ("g", "forward"), ("c", "training"), ("g", "training")]
    assert all(row["images_per_s"] > 0 and row["peak_mib"] >= row["temp_mib"] > 0 and row["gflops"] > 0 for row in rows)
    assert "| g | ratio 1, layers 2, 2, 8, 2 | 0.0 (30.2) |" in benchmarks.markdown([benchmarks.named("ladder", content)])
