"""Sets in .npz files: memory mapping, pickling, and damaged files."""
import pickle

import numpy as np
import pytest

from vmamba_jax import data


def arrays(n):
    images = np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return data.Arrays(images, np.arange(n) % 10, range(10))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    images, labels = arrays(7).images, np.arange(7)
    save(tmp_path / "1m.npz", image=images, label=labels)
    source = data.load("npz", "train", tmp_path, file="1m.npz", classes=range(10))
    assert np.array_equal(source.images, images) and source.labels.tolist() == list(range(7)) and len(source.classes) == 10
    mapped = source.images
    while isinstance(mapped.base, np.ndarray):
        mapped = mapped.base
    assert isinstance(mapped, np.memmap) == (save is np.savez)
    raw = pickle.dumps(source)
    assert len(raw) < 1000 and np.array_equal(pickle.loads(raw).images, images)
    before = source.fingerprint
    save(tmp_path / "1m.npz", image=images[::-1], label=labels)
    assert data.load("npz", "train", tmp_path, file="1m.npz", classes=range(10)).fingerprint != before


def test_bad_npz(tmp_path):
    with pytest.raises(data.DataNotFoundError, match="train.npz: no such file.*image .n, H, W, C. uint8"):
        data.load("npz", "train", tmp_path)
    path = tmp_path / "train.npz"
    for content, message in (({"image": np.zeros(3), "label": np.zeros(3, int)}, "train.npz: images of shape .*: expected"),
                             ({"images": np.zeros(3)}, r"it has no array 'image' but \['images'\]")):
        np.savez(path, **content)
        with pytest.raises(ValueError, match=message):
            data.load("npz", "train", tmp_path)
    for damage in (lambda raw: raw[:300], lambda raw: b"text"):
        np.savez_compressed(path, image=arrays(5).images, label=np.arange(5))
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match="train.npz: expected a whole .npz file"):
            data.load("npz", "train", tmp_path)
