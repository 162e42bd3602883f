"""Saved variables come back equal; nothing is lost, half-written or silently wrong."""
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from vmamba_jax.checkpoints import store
from vmamba_jax.checkpoints.store import load_variables, save_variables

VARIABLES = {"params": {"block": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.arange(3).astype(ml_dtypes.bfloat16)},
                        "scalar": np.float32(3), "count": np.arange(3), "double": np.array(0.1)},
             "batch_stats": {"mean": np.zeros((2, 1))}, "empty": {}}
METADATA = {"model": "vmamba_tiny", "overrides": {"num_classes": 10}, "nested": [1, 2.5, None, True]}


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(y) is np.ndarray and y.dtype == x.dtype and y.shape == x.shape
        np.testing.assert_array_equal(x, y)


def test_round_trip(tmp_path):
    save_variables(tmp_path / "made" / "weights", VARIABLES, METADATA)
    variables, metadata = load_variables(tmp_path / "made" / "weights")
    equal(VARIABLES, variables)
    assert metadata == METADATA
    assert sorted(os.listdir(tmp_path / "made" / "weights")) == ["metadata.json", "variables"]
    assert os.listdir(tmp_path / "made") == ["weights"]
    assert json.loads((tmp_path / "made" / "weights" / "metadata.json").read_text())["model"] == "vmamba_tiny"


def test_relative_paths_and_device_arrays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_variables("weights", {"params": {"w": jnp.arange(4.0), "v": np.arange(8.0).reshape(4, 2).T}})
    variables, metadata = load_variables("weights")
    np.testing.assert_array_equal(variables["params"]["w"], np.arange(4.0))
    np.testing.assert_array_equal(variables["params"]["v"], np.arange(8.0).reshape(4, 2).T)
    assert metadata == {}


def test_existing_folders(tmp_path):
    target = tmp_path / "weights"
    target.mkdir()
    save_variables(target, VARIABLES, {"version": 1})  # an empty folder is free
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_variables(target, VARIABLES, {"version": 2})
    assert load_variables(target)[1] == {"version": 1}
    save_variables(target, {"params": {"w": np.ones(2)}}, {"version": 3}, overwrite=True)
    variables, metadata = load_variables(target)
    assert metadata == {"version": 3} and list(variables["params"]) == ["w"] and os.listdir(tmp_path) == ["weights"]


def test_overwriting_spares_other_files(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not a checkpoint"):
        save_variables(tmp_path, VARIABLES, overwrite=True)
    with pytest.raises(FileExistsError, match="not a checkpoint"):
        save_variables(tmp_path / "notes.txt", VARIABLES, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine" and os.listdir(tmp_path) == ["notes.txt"]


def test_failed_save_keeps_the_old_one(tmp_path, monkeypatch):
    save_variables(tmp_path / "weights", VARIABLES, {"version": 1})

    class Broken:
        def __enter__(self):
            raise OSError("no space left")

        def __exit__(self, *error):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(store, "checkpointer", Broken)
        with pytest.raises(OSError, match="no space left"):
            save_variables(tmp_path / "weights", VARIABLES, {"version": 2}, overwrite=True)
    with monkeypatch.context() as patch:
        rename = pathlib.Path.rename

        def fail(self, target):
            if self.name.endswith(".part"):
                raise OSError("denied")
            return rename(self, target)

        patch.setattr(pathlib.Path, "rename", fail)
        with pytest.raises(OSError, match="denied"):
            save_variables(tmp_path / "weights", VARIABLES, {"version": 2}, overwrite=True)
    assert os.listdir(tmp_path) == ["weights"] and load_variables(tmp_path / "weights")[1] == {"version": 1}


@pytest.mark.parametrize("variables, error, message", [
    ({}, TypeError, "variables=dict: expected"), ([np.ones(2)], TypeError, "nested dict"), ({"params": {"w": "text"}}, TypeError, r"variables\['params'\]\['w'\]=str: expected an array"),
    ({"params": {"w": None}}, TypeError, "NoneType"), ({"params": [np.ones(2)]}, TypeError, "expected dicts with string keys"), ({1: np.ones(2)}, TypeError, "expected dicts with string keys"),
    ({"params": {"w": np.ones((0, 3))}}, ValueError, r"shape \(0, 3\)"), ({"params": {"w": 1.5}}, TypeError, "float")])
def test_other_variables_are_refused(tmp_path, variables, error, message):
    with pytest.raises(error, match=message):
        save_variables(tmp_path / "weights", variables)
    assert os.listdir(tmp_path) == []


def test_other_metadata_is_refused(tmp_path):
    with pytest.raises(TypeError, match="metadata=.*expected JSON"):
        save_variables(tmp_path / "weights", VARIABLES, {"x": np.ones(2)})
    with pytest.raises(ValueError, match="'files'"):
        save_variables(tmp_path / "weights", VARIABLES, {"files": 1})
    assert os.listdir(tmp_path) == []


def test_missing_checkpoints(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match="no checkpoint here"):
            load_variables(path)


def test_damage_is_noticed(tmp_path):
    """Every file of the checkpoint cut, emptied, removed, or one bit of it flipped: an error that names it."""
    target = tmp_path / "weights"
    save_variables(target, VARIABLES, METADATA)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    assert len(files) > 3
    for path in files:
        data = path.read_bytes()
        for damaged in (data[:len(data) // 2], b"?", None, data[:5] + bytes([data[5] ^ 128]) + data[6:]):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises((ValueError, FileNotFoundError), match=f"weights: .*({path.name}|no checkpoint)"):
                load_variables(target)
            path.write_bytes(data)
    equal(VARIABLES, load_variables(target)[0])


def test_swapped_arrays_are_noticed(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        save_variables(tmp_path / name, {"params": {"w": np.full(3, value)}})
    (tmp_path / "a" / "metadata.json").replace(tmp_path / "b" / "metadata.json")
    with pytest.raises(ValueError, match="damaged"):
        load_variables(tmp_path / "b")


def test_arrays_of_more_memory_than_their_files_justify(tmp_path):
    save_variables(tmp_path / "weights", {"params": {"w": np.zeros((3000, 4000), np.float32)}})  # as an array whose chunks are missing
    with pytest.raises(ValueError, match="weights: variables is damaged .*its arrays take 48000000 bytes"):
        load_variables(tmp_path / "weights")
