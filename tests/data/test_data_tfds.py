"""TFDS sets without TensorFlow: a tiny set written by TFDS itself, sets that are not there, and TFDS's own mock."""
import io
import pathlib
import pickle
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vmamba_jax import data


def pixels(i, channels):
    return np.random.default_rng(i).integers(0, 256, (6, 5, channels), dtype=np.uint8)


class TinyShapes(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = pathlib.Path(__file__).parent
    channels = 3

    def _info(self):
        image = tfds.features.Image(shape=(None, None, self.channels), encoding_format="png")
        features = {"image": image, "label": tfds.features.ClassLabel(names=["square", "disc", "star"]), "weight": np.int64}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 9), "test": self._generate_examples(9, 12)}

    def _generate_examples(self, start, stop):
        for i in range(start, stop):
            file = io.BytesIO()
            x = pixels(i, self.channels)
            Image.fromarray(x[..., 0] if self.channels == 1 else x).save(file, "png")
            file.seek(0)
            yield i, {"image": file, "label": i % 3, "weight": i}


class TinyGrey(TinyShapes):
    channels = 1


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    TinyShapes(data_dir=root, file_format="array_record").download_and_prepare()
    TinyGrey(data_dir=root, file_format="parquet").download_and_prepare()
    return root


@pytest.mark.parametrize("name, channels", [("tiny_shapes", 3), ("tiny_grey", 1), ("tiny_shapes:1.0.0", 3)])
def test_prepared_set(root, name, channels):
    source = data.load(f"tfds:{name}", "train", root)
    assert len(source) == 9 and source.classes == ("square", "disc", "star") and source.image_shape is None
    whole = {(pixels(i, channels).tobytes(), i % 3) for i in range(9)}
    assert {(image.tobytes(), label) for image, label in source} == whole
    batch = data.Batches(source, 4)[3]
    assert batch["image"].shape == (4, 6, 5, channels) and (batch["label"] == source.labels[batch["index"]]).all()
    assert np.bincount(source.labels).tolist() == [3, 3, 3]
    assert name.split(":")[0] in repr(source)
    assert "tensorflow" not in sys.modules


def test_splits_and_options(root):
    assert len(data.load("tfds:tiny_shapes", "train[:3]", root)) == 3
    source = data.load("tfds:tiny_shapes", "test", root, size=4)
    assert source.image_shape == (4, 4, 3) and source[0][0].shape == (4, 4, 3)
    cases = (("train", 4), ("train", 4), ("train", 5), ("test", 4))
    prints = [data.load("tfds:tiny_shapes", split, root, size=size).fingerprint for split, size in cases]
    assert prints[0] == prints[1] and len(set(prints)) == 3
    part = data.subset(source, [2, 0])
    assert part.labels.tolist() == source.labels[[2, 0]].tolist() and (part[0][0] == source[2][0]).all()


@pytest.mark.parametrize("name, split, options, error, message", [
    ("tiny_shapes", "validation", {}, ValueError, r"split='validation': expected one of \['test', 'train'\]"),
    ("tiny_shapes", None, {}, TypeError, "split=None: expected a str"),
    ("tiny_shapes", "train", {"label_key": "class"}, ValueError, r"label_key='class': expected a feature .*\['image', 'label', 'weight'\]"),
    ("tiny_shapes", "train", {"label_key": "weight"}, ValueError, "label_key='weight': expected a class label"),
    ("tiny_shapes", "train", {"image_key": "label"}, ValueError, "image_key='label': expected a uint8 image"),
    ("tiny_shapes", "train", {"hue": 1}, TypeError, "hue=1: expected an option"),
    ("mnist", "train", {}, data.DataNotFoundError, "not prepared in .*builder.'mnist'.*array_record.*download_and_prepare"),
    ("mnist:0.0.1", "train", {}, ValueError, "3.0.1"),
    ("imagenet2021", "train", {}, data.DataNotFoundError, "Close names: imagenet2012"),
])
def test_errors(root, name, split, options, error, message):
    with pytest.raises(error, match=message):
        data.load(f"tfds:{name}", split, root, **options)


def test_format_without_random_access(root, tmp_path):
    shutil.copytree(root / "tiny_shapes", tmp_path / "tiny_shapes")
    info = tmp_path / "tiny_shapes" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"').replace("{FILEFORMAT}", "tfrecord"))
    with pytest.raises(ValueError, match="stored as tfrecord, which has no random access.*file_format='array_record'"):
        data.load("tfds:tiny_shapes", "train", tmp_path)


@pytest.mark.parametrize("name, classes, channels", [
    ("cifar10", 10, 3), ("mnist", 10, 1), ("imagenet2012", 1000, 3), ("imagenet2012_corrupted/gaussian_noise_1", 1000, 3),
    ("cifar10_corrupted/brightness_1", 10, 3), ("imagenet_v2", 1000, 3),
])
def test_mocked_sets(name, classes, channels):
    with tfds.testing.mock_data(num_examples=5):
        source = data.load(f"tfds:{name}", "test", size=16, resize=16)
        assert len(source) == 5 and len(source.classes) == classes and source.gather([0, 4])[0].shape == (2, 16, 16, channels)
        assert source.labels.shape == (5,)
        image, label = source.picture(3)
        assert image.mode == {1: "L", 3: "RGB"}[channels] and label == source.labels[3]


def test_a_mocked_set_without_a_crop():
    with tfds.testing.mock_data(num_examples=2):
        assert data.load("tfds:mnist", "train").gather([1])[0].shape == (1, 28, 28, 1)


def test_a_pipeline_of_a_prepared_set(root):
    source = pickle.loads(pickle.dumps(data.load("tfds:tiny_shapes", "train", root)))  # as it goes to a worker
    batch = data.Pipeline(source, 4, seed=1, transform=lambda image, rng: np.asarray(image)[::-1])[0]
    whole = np.stack([source[i][0] for i in batch["index"].tolist()])
    assert np.array_equal(np.round(batch["image"] * 255), whole[:, ::-1]) and (batch["label"] == source.labels[batch["index"]]).all()
