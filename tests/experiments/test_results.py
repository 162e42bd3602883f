"""Result files: the identity of a result, its digest, and reading a result back only if its identity is the same."""
import json

import jax
import pytest

from experiments.common import results

GIVEN = {"weights": "a1", "data": "b2", "settings": {"eps": 0.1, "radii": (0.0, 0.1)}}


def test_identity_survives_json():
    identity = results.identity(**GIVEN)
    assert json.loads(json.dumps(identity)) == identity == results.identity(**GIVEN)
    assert identity["settings"]["radii"] == [0.0, 0.1] and identity["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("change", [{"weights": "a2"}, {"data": "b1"}, {"settings": GIVEN["settings"] | {"eps": 0.2}}, {"settings": GIVEN["settings"] | {"radii": (0.0,)}},
                                    "vmamba_jax", "jax"], ids=str)
def test_each_part_changes_the_identity(tmp_path, monkeypatch, change):
    before = results.identity(**GIVEN)
    results.save_json(tmp_path / "result.json", {"accuracy": 0.5, "identity": before})
    if change == "vmamba_jax":
        monkeypatch.setattr(results, "__version__", "0.0.0")
    elif change == "jax":
        monkeypatch.setattr(jax, "__version__", "0.0.0")
    after = results.identity(**GIVEN | (change if isinstance(change, dict) else {}))
    assert after != before and results.digest(after) != results.digest(before)
    assert results.saved(tmp_path / "result.json", before)["accuracy"] == 0.5 and results.saved(tmp_path / "result.json", after) is None


@pytest.mark.parametrize("text", [None, "", "[]", '{"accuracy": 0.5}', '{"accuracy": 0.5, "inputs": {}}', '{"identity": null}'])
def test_other_files_are_no_saved_result(tmp_path, text):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    assert results.saved(tmp_path / "result.json", results.identity(**GIVEN)) is None


def test_digest_does_not_depend_on_the_order_of_keys():
    identity = results.identity(**GIVEN)
    assert results.digest(dict(reversed(identity.items()))) == results.digest(identity) and len(results.digest(identity)) == 16
