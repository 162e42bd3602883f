"""Result files: the identity of a result, its digest, and reading a result back only if its identity is the same."""
import json
import shutil

import jax
import pytest

from experiments.common import results
from experiments.common.cli import ConfigError

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
    told = []
    assert results.saved(tmp_path / "result.json", before, told.append)["accuracy"] == 0.5 and not told
    assert results.saved(tmp_path / "result.json", after, told.append) is None
    [line] = told
    assert line.startswith(f"{tmp_path / 'result.json'}: measured anew, since it was measured with other ") and "\n" not in line
    [(name, was, now)] = results.differences(before, after)
    assert f"other {name.removeprefix('settings.')} ({results._brief(was)}, now {results._brief(now)})" in line


@pytest.mark.parametrize("text", [None, "", "[]", '{"accuracy": 0.5}', '{"accuracy": 0.5, "inputs": {}}', '{"identity": null}'])
def test_other_files_are_no_saved_result(tmp_path, text):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    told = []
    assert results.saved(tmp_path / "result.json", results.identity(**GIVEN), told.append) is None
    assert len(told) == (text is not None)


@pytest.mark.parametrize("text", ["", '{"a": 1', "\0\0\0", "[" * 10 ** 5])
def test_damaged_json_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=f"{tmp_path / 'config.json'}: expected a JSON file .*; restore it, or move it away"):
        results.load_json(tmp_path / "config.json")


def test_config_of_a_folder_whose_files_were_deleted(tmp_path):
    """The config is known as long as checkpoints or results are there; without both the folder is free."""
    assert results.saved_config(tmp_path) is None
    for name, content in (("results.json", {"config": {"seed": 1}}), ("checkpoints/about.json", {"config": {"seed": 2}}), ("config.json", {"seed": 3})):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
        assert results.saved_config(tmp_path) == content.get("config", content)
    (tmp_path / "results.json").unlink()
    assert results.saved_config(tmp_path) == {"seed": 3}
    shutil.rmtree(tmp_path / "checkpoints")
    assert results.saved_config(tmp_path) is None


def test_digest_does_not_depend_on_the_order_of_keys():
    identity = results.identity(**GIVEN)
    assert results.digest(dict(reversed(identity.items()))) == results.digest(identity) and len(results.digest(identity)) == 16
