"""Average precision of a detector over a set, by a stand-in that knows the images: clean, attacked, corrupted, with an interval."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import data
from vmamba_jax.evaluation import detection, detectors
from vmamba_jax.models import Classifier


class Known(nn.Module):
    """Detections of the image whose mean is nearest, from a table in place of weights."""
    num_classes: int = 3

    @nn.compact
    def __call__(self, images):
        table = self.get_variable("params", "table")
        at = jnp.abs(images.mean((1, 2, 3))[:, None] - table["mean"]).argmin(1)
        return {name: x[at] for name, x in table.items() if name != "mean"}


@pytest.fixture(scope="module")
def source():
    return data.load("dense_shapes", "test", size=32, examples=(1, 1, 11))


@pytest.fixture(scope="module")
def known(source):
    """(detector, variables) with the true boxes; masks fill them."""
    examples = [detectors._objects(source.example(i), source.most_instances) for i in range(len(source))]
    table = {name: np.stack([each[name] for each in examples]) for name in ("boxes", "labels", "valid")}
    table |= {"mean": source.images.mean((1, 2, 3)) / 255, "scores": 0.9 * table["valid"], "masks": np.ones((*table["valid"].shape, 28, 28), np.float32)}
    return Classifier(Known(), 0.0, 1.0), {"params": {"table": jax.tree.map(jnp.asarray, table)}}


def test_clean_and_attacked(source, known):
    """Eleven images in batches of eight on eight devices: each counts once. The attack gets the objects, and its images are returned."""
    found = detectors.average_precision(*known, source, batch_size=8)
    assert found["bbox"]["AP"] == pytest.approx(1) and 0.2 < found["AP"] == found["segm"]["AP"] < 1 and found["examples"] == 11
    assert len(found["detections"]) == sum(len(source.example(i)["classes"]) for i in range(11)) and "attack" not in found
    low, high = found["interval"]
    assert low <= found["AP"] <= high and high - low > 0.01

    def attack(losses_fn, images, objects, keys):
        assert objects["masks"].shape == (1, source.most_instances, 32, 32) and keys.shape == (1,)
        return jnp.where(objects["valid"].sum(1)[:, None, None, None] > 1, 1 - images, images)
    attacked = detectors.average_precision(*known, source, attack=attack, key=jax.random.key(0), batch_size=8, show=(9, 2), resamples=0)
    assert attacked["bbox"]["AP"] < 0.9 and attacked["interval"] is None and "attack" in attacked
    for i, image in zip((9, 2), attacked["adversarial"], strict=True):
        clean = source.example(i)["image"] / np.float32(255)
        np.testing.assert_allclose(image, 1 - clean if len(source.example(i)["classes"]) > 1 else clean, atol=1e-6)


def test_corruptions(source, known):
    scores = detectors.corruption_scores(*known, source, key=jax.random.key(0), corruptions=("brightness",), severities=(1, 5), clean=0.5, batch_size=16)
    first, last = scores["rows"]
    assert last["AP"] <= first["AP"] and last["interval"] is None and scores["mPC"] == pytest.approx((first["AP"] + last["AP"]) / 2)
    assert scores["rPC"] == pytest.approx(scores["mPC"] / 0.5) and first["corruption"] == "brightness"


def test_annotations(source):
    """Those that the set itself writes, but for the numbers of images and categories."""
    found, wanted = detectors.annotations_of(source), source.coco()
    for one, other in zip(found["annotations"], wanted["annotations"], strict=True):
        assert one["image_id"] + 1 == other["image_id"] and one["category_id"] + 1 == other["category_id"]
        assert {name: one[name] for name in ("bbox", "area", "segmentation", "iscrowd")} == {name: other[name] for name in ("bbox", "area", "segmentation", "iscrowd")}
    assert detection.coco_ap(found, [], "segm").AP == 0


def test_errors(known):
    plain = data.DenseArrays(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), int), ("a",))
    with pytest.raises(TypeError, match="expected a data.DenseSource with instances"):
        detectors.average_precision(*known, plain)
