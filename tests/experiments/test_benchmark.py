"""The benchmark through `run` with tiny models and maps, and its parts one by one."""
import importlib.util
import itertools
import json
import sys
import xml.etree.ElementTree

import jax
import numpy as np
import pytest

from configs import benchmark as benchmark_config
from experiments import benchmark
from experiments.benchmarks import compile as compiling
from experiments.benchmarks import models as benchmark_models
from experiments.benchmarks import scans, timing
from experiments.common import cli
from vmamba_jax import models
from vmamba_jax.reports import benchmarks

TINY = {"dims": (8,), "depths": (1,), "num_classes": 4}  # compiling is what takes the time


def tiny(**fields):
    config = benchmark_config.get_config()
    config.repeats, config.copy_mib, config.devices = 2, 1, 2
    config.scan.update(shapes=((49, 8),), batches=(2,), backends=("pallas", "xla", "associative"))
    config.models.update(overrides=TINY, batches=(2,), size=32)
    config.models.attack.steps = 2
    config.memory.update(variants=("ours", "remat"), batch=2, size=32)
    config.growth.update(sizes=(32, 48), passes=("forward",))
    config.update(fields)
    return config


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "deep" / "tiny.json"
    return out, benchmark.run(tiny(), out, command="python -m experiments.benchmark", progress=False)


@pytest.mark.slow
def test_records(measured):
    _, content = measured
    rows = content["records"]
    of = lambda what, *fields: [tuple(row[field] for field in fields) for row in rows if row["what"] == what]
    assert content["notes"] == []
    assert of("scan", "name", "pass", "backend") == list(itertools.product(scans.OPERATIONS, ("forward", "gradient"), ("xla", "associative")))
    assert len(of("call", "seconds")) == 1 and of("copy", "share_of_copy") == [(1,)] * 4
    assert of("model", "name", "backend", "pass") == [("vmamba_tiny", "ours", which) for which in ("forward", "gradient", "training", "pgd")]
    assert of("memory", "backend") == [("ours",), ("remat",)] and all(temp > 0 for temp, in of("memory", "temp_mib"))
    assert of("growth", "size", "tokens", "devices") == [(32, 4, 1), (48, 9, 1)] and all(gflops > 0 for gflops, in of("growth", "gflops"))
    assert all(row["peak_mib"] >= row["temp_mib"] for row in rows if "temp_mib" in row)
    assert of("model", "devices") == [(2,)] * 4
    for row in rows:
        if row["what"] != "memory":
            times = row["seconds"]
            assert 0 < times["min"] <= times["q1"] <= times["median"] <= times["q3"] and times["repeats"] == 2
        if row["what"] == "model":
            assert row["images_per_s"] == pytest.approx(2 / row["seconds"]["median"], rel=1e-3) and row["dtype"] == "float32"
        if row["what"] == "scan":
            streams, packed = ((3, 8), 2) if row["name"] == "selective_scan" else ((2, 5), 4 * 3)  # rank 1, N = 1
            assert row["bytes"] == 4 * 2 * 49 * {"forward": streams[0] * 8 + packed, "gradient": streams[1] * 8 + 3 * packed}[row["pass"]]


@pytest.mark.slow
def test_files(measured):
    out, content = measured
    assert json.loads(out.read_text()) == content and sorted(path.name for path in out.parent.iterdir()) == ["tiny.json", "tiny.svg"]
    assert content["device"]["platform"] == "cpu" and content["device"]["count"] == 2 and content["device"]["cores"] >= 1
    assert set(content["versions"]) >= {"python", "jax", "jaxlib", "flax", "vmamba_jax"} and content["config"]["models"]["size"] == 32
    assert set(content["load"]) == {"before", "after"} and content["started"] <= content["finished"]
    xml.etree.ElementTree.fromstring(out.with_suffix(".svg").read_text())


@pytest.mark.slow
def test_page(measured, tmp_path):
    out, content = measured
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "tiny.json").write_text(out.read_text())
    text = benchmarks.write_docs(tmp_path / "runs", tmp_path / "page.md").read_text()
    for expected in ("### tiny", "`python -m experiments.benchmark`", "49 x 8", "PGD-2", "training step", "Memory of the input gradient", "to the power"):
        assert expected in text, expected
    assert (tmp_path / "runs" / "tiny.svg").is_file() and "](runs/tiny.svg)" in text


@pytest.mark.parametrize("change, message", [
    (dict(repeats=0), "config.repeats=0: expected at least 1"), (dict(parts=("scans",)), "config.parts"), (dict(devices=99), "config.devices=99"),
    (dict(scan=dict(shapes=((48, 8),))), "length 48 is no square map"), (dict(scan=dict(backends=("nosuch",))), "config.scan.backends[0]='nosuch'"), (dict(models=dict(names=("nosuch",))), "config.models.names='nosuch'"),
    (dict(models=dict(passes=("backward",))), "config.models.passes[0]='backward'"), (dict(growth=dict(names=("nosuch",))), "config.growth.names"),
])
def test_bad_value_is_named(tmp_path, change, message):
    with pytest.raises(cli.ConfigError, match=message.replace("[", r"\[")):
        benchmark.run(tiny(**change), tmp_path / "out.json", progress=False)
    assert not (tmp_path / "out.json").exists()


def test_torch_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(cli.ConfigError, match="^--against torch: torch and timm do not import here") as error:
        benchmark.run(tiny(), tmp_path / "out.json", "torch", progress=False)
    assert "\n" not in str(error.value)
    with pytest.raises(cli.ConfigError, match="--against=flax: expected torch"):
        benchmark.run(tiny(), tmp_path / "out.json", "flax", progress=False)


def test_candidate_that_cannot_run_is_noted(tmp_path, monkeypatch):
    def refuses(*args, **options):
        raise ValueError("too wide\nfor this kernel")

    function = scans.function
    monkeypatch.setattr(scans, "function", lambda *args: refuses if args[1] == "associative" else function(*args))
    content = benchmark.run(tiny(parts=("scan",), scan=dict(passes=("forward",), operations=("selective_scan",))), tmp_path / "out.json", progress=False)
    assert [row["backend"] for row in content["records"] if row["what"] == "scan"] == ["xla"]
    assert content["notes"] == ["selective_scan associative forward 49 8 float32: too wide"]


def test_memory_only(tmp_path):
    config = tiny(parts=("memory",), memory=dict(names=("resnet18",), variants=("associative",)))
    config.models.overrides = {}
    content = benchmark.run(config, tmp_path / "out.json", progress=False)
    assert content["records"] == [] and "the model has no field scan_implementation" in content["notes"][0]
    xml.etree.ElementTree.fromstring((tmp_path / "out.svg").read_text())


def test_replaced_scan_keeps_the_logits():
    classifier = models.Classifier(models.create_model("vmamba_tiny", dims=(8,), depths=(1,), num_classes=4))
    images = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    variables = classifier.init(jax.random.key(0), (16, 16, 3))
    other = jax.jit(benchmark_models._classifier("vmamba_tiny", "associative", "float32", TINY))(variables, images)
    np.testing.assert_allclose(other, jax.jit(classifier)(variables, images), atol=1e-5)


def test_candidates_run_in_turn():
    order = []

    def case(name, **options):
        return timing.Case({"what": name}, lambda: order.append(name), wait=lambda out: None, **options)

    cases = [case("copy", bytes=100), case("scan", bytes=50, images=3), case("other")]
    calls = iter([1.0] * 100)
    for each in cases:
        each.seconds = lambda n, run=each.run: (run(), next(calls))[1]
    ticks = []
    records = timing.measure(cases, 3, 1e9, lambda: ticks.append(1))
    assert order[6:] == ["copy", "scan", "other", "other", "scan", "copy", "copy", "scan", "other"] and len(ticks) == 9
    assert [row.get("share_of_copy") for row in records] == [1.0, 0.5, None] and records[1]["images_per_s"] == 3.0
    order.clear()
    assert timing.measure(cases, 50, 0.0)[0]["seconds"]["repeats"] == timing.LEAST


def test_recorded_command_has_no_paths():
    assert benchmark._command(["--out=a/b.json", "--workdir", "runs/x", "--against", "torch", "--config.parts=('scan',)"]) == \
        "python -m experiments.benchmark --against torch \"--config.parts=('scan',)\""
    assert benchmark._defaults(["--workdir=x"]) == [f"--config={benchmark.CONFIG}", "--workdir=x"]


@pytest.mark.slow
def test_attacks(tmp_path):
    """Whole attacks: the second run is timed, and the first one's extra time is compilation; a wrong name is one line."""
    config = tiny(parts=("attacks",))
    config.attacks.update(images=4, batch=2, size=32)
    content = benchmark.run(config, tmp_path / "attacks.json", progress=False)
    row, = content["records"]
    assert (row["name"], row["attack"], row["backend"], row["images"], row["devices"]) == ("vmamba_tiny", "PGD-10", "ours", 4, 2)
    assert row["accuracy"] == 1 >= row["robust_accuracy"] and row["compile_s"] > 0
    assert row["images_per_s"] == pytest.approx(4 / row["seconds"], rel=1e-2) and "#### Attacks" in benchmarks.markdown([benchmarks.named("attacks", content)])
    config.attacks.attacks = ("deepfool",)
    with pytest.raises(cli.ConfigError, match="config.attacks.attacks='deepfool': expected some of pgd"):
        benchmark.run(config, tmp_path / "attacks.json", progress=False)


def test_corruptions(tmp_path):
    config = tiny(parts=("corruptions",))
    config.corruptions.update(names=("contrast", "gaussian_noise"), size=32, batch=4, package_images=1)
    content = benchmark.run(config, tmp_path / "corruptions.json", progress=False)
    ours = {row["name"]: row for row in content["records"] if row["backend"] == "ours"}
    assert list(ours) == ["contrast", "gaussian_noise"]
    text = benchmarks.markdown([benchmarks.named("corruptions", content)])
    for name, row in ours.items():
        assert (row["batch"], row["devices"], row["size"], row["severity"]) == (4, 2, 32, 3) and row["images_per_s"] > 0
        assert f"| `{name}` | 4 | 2 |" in text
    if importlib.util.find_spec("imagecorruptions"):
        theirs = {row["name"]: row for row in content["records"] if row["backend"] == "imagecorruptions"}
        for name, row in ours.items():
            assert row["ratio"] == pytest.approx(row["images_per_s"] / theirs[name]["images_per_s"], rel=1e-3)
    else:
        assert content["notes"] == [f"{name}: imagecorruptions is not installed (extra [corruptions])" for name in ours]
    for change in ({"names": ("mist",)}, {"severity": 6}):
        config.corruptions.update(change)
        with pytest.raises(cli.ConfigError, match="config.corruptions"):
            benchmark.run(config, tmp_path / "corruptions.json", progress=False)


@pytest.mark.slow
def test_scaling(tmp_path):
    config = tiny(parts=("scaling",), devices=8)
    config.scaling.models = {"vit_tiny": {"embed_dim": 8, "depth": 1, "num_heads": 1, "patch_size": 4, "image_size": 8}}
    config.scaling.update(devices=(1, 4, 16), batch=16, size=8)
    content = benchmark.run(config, tmp_path / "scaling.json", progress=False)
    assert [(row["mode"], row["devices"], row["batch"]) for row in content["records"]] == [
        ("global", 1, 16), ("global", 4, 16), ("per_device", 1, 1), ("per_device", 4, 4)]
    assert content["notes"] == ["vit_tiny on 16 devices: only 8 are available (on a CPU, JAX_NUM_CPU_DEVICES sets the number)"] * 2
    text = benchmarks.markdown([benchmarks.named("scaling", content)])
    assert "Scaling, vit_tiny, training step on PGD-2" in text and "| constant batch per device | 4 | 4 |" in text and "the overhead of sharding a step" in text
    for change in ({"devices": (2, 4)}, {"batch": 9}, {"models": {"nosuch": {}}}):
        wrong = tiny(parts=("scaling",), devices=8)
        wrong.scaling.update(change)
        with pytest.raises(cli.ConfigError, match="config.scaling"):
            benchmark.run(wrong, tmp_path / "wrong.json", progress=False)


@pytest.mark.slow
def test_compile(tmp_path):
    """Trace and lowering time with the kernels of each platform, and the first training step, each in its own process."""
    config = tiny(parts=("compile",))
    config.compile.update(models=("vmamba_tiny",), backends=("ours",), platforms=("cpu", "tpu"), size=32, first_steps=(compiling.DIGITS,), repeats=1)
    content = benchmark.run(config, tmp_path / "compile.json", progress=False)
    cpu, tpu, step = content["records"]
    assert (cpu["platform"], cpu["kernels"], tpu["platform"]) == ("cpu", 0, "tpu") and tpu["kernels"] > 0
    assert min(cpu["trace_cpu_s"], cpu["lower_cpu_s"], tpu["trace_cpu_s"], tpu["lower_cpu_s"]) > 0
    assert step["what"] == "first_step" and step["batch"] == 64 and step["total_cpu_s"] >= step["compile_cpu_s"] > 0
    text = benchmarks.markdown([benchmarks.named("compile", content)])
    assert "#### Trace and lowering" in text and "#### Time to the first training step" in text
    config.compile.platforms = ("metal",)
    with pytest.raises(cli.ConfigError, match="config.compile.platforms='metal'"):
        benchmark.run(config, tmp_path / "compile.json", progress=False)
