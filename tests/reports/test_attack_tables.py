"""Attacks of a benchmark file as a table: ours beside torch's of the same attack, compiling apart, survivors by stage."""
from vmamba_jax.reports.attack_tables import attack_tables


def test_tables():
    common = {"what": "attack", "name": "net", "attack": "AutoAttack standard", "images": 64, "size": 32, "batch": 16, "eps": 8 / 255, "accuracy": 0.5}
    ours = common | {"backend": "ours", "seconds": 10.0, "images_per_s": 6.4, "compile_s": 31.25, "robust_accuracy": 0.25,
                     "stages": [{"name": "clean", "attacked": 64, "broken": 32, "seconds": 0.1}, {"name": "apgd-ce", "attacked": 32, "broken": 16, "seconds": 2.0}]}
    theirs = common | {"backend": "torch", "seconds": 40.0, "images_per_s": 1.6, "robust_accuracy": 0.25, "agreeing": 64}
    text = "".join(attack_tables({"records": [{"what": "scan"}, ours, theirs]}))
    assert "| ours | 10 | 6.4 | 4.00 | 31.2 s | 50.0 % | 25.0 % |  |" in text and "| torch | 40 | 1.6 |  |  | 50.0 % | 25.0 % | 64 of 64 |" in text
    assert "eps 8/255" in text and "apgd-ce broke 16 of 32 in 2 s" in text
    assert attack_tables({"records": [{"what": "scan"}]}) == []
