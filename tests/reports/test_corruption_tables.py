"""Corruptions of a benchmark file as a table: ours beside the package's, with how many are ten times as fast."""
from vmamba_jax.reports.corruption_tables import corruption_tables


def test_tables():
    common = {"what": "corruption", "severity": 3, "size": 224}
    rows = [common | {"name": name, "backend": "ours", "batch": 64, "devices": 2, "images_per_s": rate} | ratio
            for name, rate, ratio in (("fog", 4000.0, {"ratio": 12.25}), ("spatter", 500.0, {"ratio": 5.0}), ("frost", 8000.0, {}))]
    rows += [common | {"name": name, "backend": "imagecorruptions", "batch": 4, "devices": 1, "images_per_s": rate}
             for name, rate in (("fog", 326.5), ("spatter", 100.0))]
    text = "".join(corruption_tables({"records": [{"what": "scan"}, *rows]}))
    assert "224 x 224 pixels, severity 3" in text and "at least 10 for 1 of 2." in text
    assert "| `fog` | 64 | 2 | 0.25 | 4000 | 326.5 | 12.2 |" in text and "| `frost` | 64 | 2 | 0.125 | 8000 |  |  |" in text
    assert corruption_tables({"records": [{"what": "scan"}]}) == []
