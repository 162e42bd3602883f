"""Atomic writes: the old content or all of the new one, and no temporary files."""
import hashlib
import os

import pytest

from vmamba_jax.core import files


def test_atomic_file(tmp_path):
    path = tmp_path / "new" / "x.txt"
    for content in ("one", "two"):
        with files.atomic(path) as draft:
            draft.write_text(content)
            assert draft.parent == path.parent and (content == "one") == (not path.exists())
        assert path.read_text() == content and os.listdir(path.parent) == ["x.txt"]
    with pytest.raises(RuntimeError), files.atomic(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text() == "two" and os.listdir(path.parent) == ["x.txt"]


def test_file_and_folder_reach_the_disk(tmp_path, monkeypatch):
    """The file before it is renamed, the folder after: a power loss leaves the old content or the new one."""
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))) or fsync(descriptor))
    monkeypatch.setattr(os, "replace", lambda old, new: calls.append("replace") or replace(old, new))
    files.write_json(tmp_path / "x.json", {"a": 1})
    assert len(calls) == 3 and calls[0].startswith(".x.json.") and calls[1:] == ["replace", tmp_path.name]
    assert files.read_json(tmp_path / "x.json") == {"a": 1} and files.read_json(tmp_path / "none.json") is None
    calls.clear()
    with files.atomic_folder(tmp_path / "folder") as draft:
        (draft / "a.json").write_text("{}")
    assert calls[0] == "a.json" and calls[1].startswith(".folder.") and calls[-1] == tmp_path.name


@pytest.mark.parametrize("content", ["", "{", "\0" * 100, "[" * 10 ** 5])
def test_damaged_json_is_named(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match="x.json: expected a JSON file .*; restore it, or move it away"):
        files.read_json(tmp_path / "x.json")


def test_two_writers_of_one_file(tmp_path):
    with files.atomic(tmp_path / "x") as one, files.atomic(tmp_path / "x") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "x").read_text() == "one" and os.listdir(tmp_path) == ["x"]


def test_atomic_folder(tmp_path):
    path = tmp_path / "new" / "folder"
    for name in ("a", "b"):
        with files.atomic_folder(path) as draft:
            (draft / name).touch()
        assert os.listdir(path) == [name] and os.listdir(path.parent) == ["folder"]
    with pytest.raises(RuntimeError), files.atomic_folder(path) as draft:
        (draft / "c").touch()
        raise RuntimeError
    assert os.listdir(path) == ["b"] and os.listdir(path.parent) == ["folder"]


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"content")
    assert files.sha256(tmp_path / "x") == hashlib.sha256(b"content").hexdigest()
