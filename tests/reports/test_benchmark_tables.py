"""Markdown tables of a benchmark's attacks and corruptions: ratios, compile times, stages."""
from vmamba_jax.reports.benchmarks.attacks import attack_tables, corruption_tables


def test_attacks():
    common = {"what": "attack", "name": "net", "attack": "AutoAttack standard", "images": 64, "size": 32, "batch": 16, "eps": 8 / 255, "accuracy": 0.5}
    ours = common | {"backend": "ours", "seconds": 10.0, "images_per_s": 6.4, "compile_s": 31.25, "robust_accuracy": 0.25,
                     "stages": [{"name": "clean", "attacked": 64, "broken": 32, "seconds": 0.1}, {"name": "apgd-ce", "attacked": 32, "broken": 16, "seconds": 2.0}]}
    theirs = common | {"backend": "torch", "seconds": 40.0, "images_per_s": 1.6, "robust_accuracy": 0.25, "agreeing": 64}
    text = "".join(attack_tables({"kind": "benchmark", "records": [{"what": "scan"}, ours, theirs]}))
    assert "| ours | 10 | 6.4 | 4.00 | 31.2 s | 50.0 % | 25.0 % |  |" in text and "| torch | 40 | 1.6 |  |  | 50.0 % | 25.0 % | 64 of 64 |" in text
    assert "eps 8/255" in text and "apgd-ce broke 16 of 32 in 2 s" in text
    assert attack_tables({"kind": "benchmark", "records": [{"what": "scan"}]}) == []


def test_corruptions():
    common = {"what": "corruption", "severity": 3, "size": 224}
    rows = [common | {"name": name, "backend": "ours", "batch": 64, "devices": 2, "images_per_s": rate} | ratio
            for name, rate, ratio in (("fog", 4000.0, {"ratio": 12.25}), ("spatter", 500.0, {"ratio": 5.0}), ("frost", 8000.0, {}))]
    rows += [common | {"name": name, "backend": "imagecorruptions", "batch": 4, "devices": 1, "images_per_s": rate}
             for name, rate in (("fog", 326.5), ("spatter", 100.0))]
    text = "".join(corruption_tables({"kind": "benchmark", "records": [{"what": "scan"}, *rows]}))
    assert "224 x 224 pixels, severity 3" in text and "at least 10 for 1 of 2." in text
    assert "| `fog` | 64 | 2 | 0.25 | 4000 | 326.5 | 12.2 |" in text and "| `frost` | 64 | 2 | 0.125 | 8000 |  |  |" in text
    assert corruption_tables({"kind": "benchmark", "records": [{"what": "scan"}]}) == []
