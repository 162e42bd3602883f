"""The released corrupted sets: ImageNet-C's folders and CIFAR-10-C's arrays."""
import numpy as np
import pytest
from PIL import Image

from vmamba_jax import data
from vmamba_jax.data.datasets import imagenet


@pytest.mark.parametrize("above", ["", "weather", "ImageNet-C"])
def test_imagenet_c(tmp_path, above):
    rng = np.random.default_rng(0)
    identifiers = [identifier for identifier, _ in imagenet.classes()]
    for label in (3, 700):
        folder = tmp_path / above / "fog" / "2" / identifiers[label]
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(folder / "ILSVRC2012_val_00000001.JPEG", quality=85)
    source = data.load("imagenet_c", "test", tmp_path, corruption="fog", severity=2)
    images, labels = source.gather([0, 1])
    assert images.shape == (2, 24, 24, 3) and labels.tolist() == [3, 700] and len(source.classes) == 1000
    assert (images[1] == np.asarray(Image.open(folder / "ILSVRC2012_val_00000001.JPEG"))).all() and "imagenet_c/fog/2" in repr(source)
    with pytest.raises(data.DataNotFoundError, match="root=.*: expected a folder fog/3.*zenodo"):
        data.load("imagenet_c", "test", tmp_path, corruption="fog", severity=3)
    with pytest.raises(ValueError, match="split='train': expected 'test'"):
        data.load("imagenet_c", "train", tmp_path, corruption="fog", severity=2)


@pytest.mark.parametrize("above", ["", "CIFAR-10-C"])
def test_cifar10_c(tmp_path, above):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 32, 32, 3), np.uint8), np.tile(np.uint8([1, 9, 0, 4]), 5)
    (tmp_path / above).mkdir(exist_ok=True)
    np.save(tmp_path / above / "fog.npy", images)
    with pytest.raises(data.DataNotFoundError, match="lacks labels.npy"):
        data.load("cifar10_c", "test", tmp_path, corruption="fog", severity=1)
    np.save(tmp_path / above / "labels.npy", labels)
    for severity in (1, 5):
        source = data.load("cifar10_c", "test", tmp_path, corruption="fog", severity=severity)
        part = slice(4 * severity - 4, 4 * severity)
        assert (source.images == images[part]).all() and source.labels.tolist() == [1, 9, 0, 4] and source.classes[9] == "truck"
    for severity in (0, 6):
        with pytest.raises(ValueError, match="severity"):
            data.load("cifar10_c", "test", tmp_path, corruption="fog", severity=severity)
    np.save(tmp_path / above / "labels.npy", labels[:19])
    with pytest.raises(ValueError, match="as many labels"):
        data.load("cifar10_c", "test", tmp_path, corruption="fog", severity=1)
    (tmp_path / above / "labels.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(ValueError, match="labels.npy: expected a whole .npy file"):
        data.load("cifar10_c", "test", tmp_path, corruption="fog", severity=1)
