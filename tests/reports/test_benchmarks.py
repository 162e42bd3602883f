"""The page and the figure of benchmark files."""
import json
import pathlib
import re
import xml.etree.ElementTree

import pytest

from vmamba_jax.reports import benchmarks

DOCS = pathlib.Path(__file__).parent.parent.parent / "docs"


def seconds(median):
    return {"median": median, "min": 0.9 * median, "q1": 0.95 * median, "q3": 1.1 * median, "repeats": 5}


def model(name, backend, median, which="forward", **fields):
    return {"what": "model", "name": name, "backend": backend, "pass": which, "batch": 8, "size": 224, "dtype": "float32", "seconds": seconds(median),
            "images_per_s": 8 / median, **fields}


def run(kind="Some Processor", platform="cpu", name="a"):
    rows = [{"what": "copy", "name": "x + 1", "backend": "xla", "pass": "forward", "dtype": "float32", "bytes": 2e9, "seconds": seconds(0.1),
             "share_of_copy": 1.0}, {"what": "call", "name": "x + 1", "backend": "xla", "pass": "forward", "dtype": "float32", "seconds": seconds(2e-5)}]
    rows += [{"what": "scan", "name": "selective_scan", "backend": backend, "pass": which, "batch": 8, "length": 49, "channels": 768, "state": 1,
              "dtype": "float32", "bytes": 3_000_000, "seconds": seconds(0.002), "share_of_copy": 0.075, "temp_mib": 1.5}
             for backend in ("xla", "reference") for which in ("forward", "gradient")]
    rows += [model("vmamba_tiny", "ours", 0.5, temp_mib=100.0), model("swin_tiny", "torch", 0.4), model("convnext_tiny", "torch", 1.0),
             model("vmamba_tiny", "ours", 1.2, "gradient"), model("swin_tiny", "torch", 1.5, "gradient"), model("vmamba_tiny", "ours", 7.0, "pgd", attack="PGD-10")]
    rows += [{"what": "memory", "name": "vmamba_tiny", "backend": backend, "pass": "gradient", "batch": 8, "size": 224, "dtype": "float32", "devices": 2,
              "temp_mib": mib} for backend, mib in (("ours", 400.0), ("reference", 1000.0))]
    rows += [{"what": "growth", "name": "vmamba_tiny", "backend": "ours", "pass": "forward", "batch": 1, "size": size, "dtype": "float32",
              "tokens": (size / 16) ** 2, "seconds": seconds(1e-3 * (size / 16) ** 2)} for size in (224, 1024)]
    return benchmarks.named(name, {
        "kind": "benchmark", "device": {"platform": platform, "kind": kind, "count": 2, "cores": 2}, "versions": {"jax": "0.0.1"}, "commit": "0123abc",
        "command": "python -m experiments.benchmark", "finished": "2026-01-01T00:00:00+00:00", "load": {"before": 0.1, "after": 2.0},
        "notes": ["big one: out of memory"], "records": rows})


def static(name="cycles", kind="TPU v5e"):
    return benchmarks.named(name, {"kind": "tpu_static_cycles", "device": {"kind": kind}, "versions": {"libtpu": "0.0.1"}, "records": [
        {"kernel": "selective_scan", "direction": "forward", "shape": [1, 784, 128], "T": 784, "cycles_per_register": 29.04, "total": 2846}]})


def rows_of(text, first):
    """Cells of the table lines that begin with `first`."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith(f"| {first} |")]


def test_committed_page_matches_the_committed_files():
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert page == benchmarks.page(benchmarks.read(DOCS / "benchmarks")), "python -m experiments.benchmark --docs"
    for link in re.findall(r"\]\((benchmarks/[^)]*)\)", page):
        assert (DOCS / link).exists(), link


def test_tables():
    text = benchmarks.page([run()])
    assert rows_of(text, "49 x 768")[0] == ["49 x 768", "forward", "xla", "2", "1.9 to 2.2", "1.8", "1.5", "8 %", "1.5"]
    assert rows_of(text, "49 x 768")[3][1:3] == ["forward + gradient", "`lax.scan` + autodiff"]
    models = rows_of(text, "vmamba_tiny")
    assert models[0] == ["vmamba_tiny", "forward", "8", "500", "475 to 550", "450", "16", "100"] and models[2][1] == "PGD-10"
    assert ["vmamba_tiny", "forward", "8", "224", "float32", "1.25", "0.50"] in models and ["vmamba_tiny", "forward + gradient", "8", "224", "float32", "0.80", ""] in models
    assert rows_of(text, "`lax.scan` + autodiff") == [["`lax.scan` + autodiff", "1000", "2.50"]]
    for expected in ("length to the power 1.00", "load 0.1 before and 2.0 after", "jax 0.0.1", "20 to 20 GB/s", "the 20 microseconds of an empty call", "commit 0123abc", "2 JAX devices (cpu)",
                     "Skipped: `big one: out of memory`", "## CPU Some Processor, 2 cores", "swin_tiny (torch)"):
        assert expected in text, expected


def test_sections_by_device():
    runs = [run(name="one"), run("NVIDIA X", "gpu", "two"), static(), run(name="three")]
    text = benchmarks.page(runs)
    sections = {part.splitlines()[0]: re.findall(r"^### (.*)", part, re.MULTILINE) for part in text.split("\n## ")[1:]}
    assert sections == {"CPU Some Processor, 2 cores": ["one", "three"], "NVIDIA X x 2": ["two"], "TPU v5e (compiled for, not run)": ["cycles"]}
    tables = text.split("\n### ")[1:]
    assert all(table.count("#### Models") == (not table.startswith("cycles")) for table in tables)
    assert rows_of(text, "selective_scan") == [["selective_scan", "forward", "1 x 784 x 128", "784", "29.04", "2,846"]]
    assert "not timings" in tables[-1]


def test_page_without_measurements(tmp_path):
    assert benchmarks.write_docs(tmp_path, tmp_path / "benchmarks.md").read_text() == benchmarks.HEAD + benchmarks.EMPTY


def test_written_page_and_figures(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for each in (run(), static()):
        (folder / f"{each['file']}.json").write_text(json.dumps(each))
    attacks = run() | {"records": [{"what": "attack", "name": "net", "attack": "PGD-10", "backend": "ours", "images": 4, "size": 32, "eps": 0.1,
                                    "seconds": 2.0, "images_per_s": 2.0, "compile_s": 1.0, "accuracy": 1.0, "robust_accuracy": 0.5}]}
    (folder / "attacks.json").write_text(json.dumps(attacks))
    text = benchmarks.write_docs(folder, tmp_path / "page.md").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.svg", "attacks.json", "cycles.json"]   # a run of attacks has no figure
    assert "| `net`, 32 px | PGD-10" in text and "attacks.svg" not in text
    assert "![a](files/a.svg)" in text and "[cycles.json](files/cycles.json)" in text and text == benchmarks.page(benchmarks.read(folder), "files")


def test_figure_panels():
    whole = benchmarks.figure(run())
    for part in (whole, benchmarks.figure(run() | {"records": []})):
        xml.etree.ElementTree.fromstring(part)
    assert all(word in whole for word in ("share of copy bandwidth", "images per second", "slope 1.00", "Some Processor", "swin_tiny, torch"))
    assert whole == benchmarks.figure(run())


def test_slope():
    assert benchmarks.slope([1, 2, 4], [3, 12, 48]) == pytest.approx(2) and benchmarks.slope([196, 4096], [1, 4096 / 196]) == pytest.approx(1)


@pytest.mark.parametrize("content, message", [({"kind": "nosuch"}, "x.json: kind='nosuch': expected one of benchmark"), ([], "kind='list'"), ({}, "kind=None")])
def test_other_kinds_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        benchmarks.named("x", content)


def test_cost_against_resolution():
    """Slopes of several models in one table, and a panel each for memory and multiply-adds; one model has neither."""
    rows = [{"what": "growth", "name": name, "backend": "ours", "pass": "forward", "batch": 1, "size": size, "dtype": "float32", "tokens": (size / 16)**2,
             "gflops": 1e-3 * size**2, "temp_mib": 1e-3 * size**(2 * power), "peak_mib": 2e-3 * size**(2 * power), "seconds": seconds(1e-6 * size**(2 * power)),
             "images_per_s": 5.0} for name, power in (("linear", 1), ("quadratic", 2)) for size in (224, 448, 896)]
    content = run() | {"records": rows}
    assert rows_of(benchmarks.page([content]), "quadratic") == [["quadratic", "forward", "1", "1.00 (1.00)", "2.00 (2.00)", "2.00 (2.00)"]]
    assert rows_of(benchmarks.page([content]), "linear")[0][3:] == ["1.00 (1.00)"] * 3
    figure = benchmarks.figure(content)
    assert "Growth of temporary memory" in figure and "Growth of multiply-adds" in figure and "slope 2.00" in figure
    alone = content | {"records": rows[:3]}
    assert "Cost against resolution" not in benchmarks.page([alone]) and "| 224 x 224 | 196 | 50.2 | 5 |" in benchmarks.page([alone])
