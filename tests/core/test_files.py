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
