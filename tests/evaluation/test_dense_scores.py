"""Segmentation over a set: exact counts on several devices, attacked, corrupted and disturbed images, the worst case over attacks, hostile input."""
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks, data, evaluation
from vmamba_jax.evaluation import dense

KEY = jax.random.key(0)
RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 256, (11, 16, 16, 3)).astype(np.uint8)
LABELS = RNG.integers(0, 3, (11, 16, 16))
LABELS[2, :4] = 255


def logits_fn(x):
    """The class of the largest color channel."""
    return 8 * x


@pytest.fixture(scope="module")
def clean():
    return dense.segmentation(logits_fn, (IMAGES, LABELS), batch_size=8, show=(2, 9))


def test_counts(clean):
    prediction = IMAGES.argmax(-1)
    wanted = evaluation.segmentation.mean_iou(list(zip(prediction, LABELS, strict=True)), 3)
    assert clean["examples"] == 11 and clean["confusion"].shape == (11, 3, 4) and clean["confusion"].sum() == (LABELS != 255).sum()
    for name in ("mIoU", "aAcc", "mAcc"):
        assert clean[name] == pytest.approx(wanted[name], abs=1e-15)
    np.testing.assert_array_equal(clean["IoU"], wanted["IoU"])
    np.testing.assert_array_equal(clean["adversarial"], np.float32(IMAGES[[2, 9]]) / np.float32(255))
    one = dense.segmentation(logits_fn, (IMAGES, LABELS), batch_size=3)
    np.testing.assert_array_equal(one["confusion"], clean["confusion"])
    low, high = clean["interval"]
    assert low < clean["mIoU"] < high < low + 0.1
    alone = dense.image_scores(clean["confusion"])
    np.testing.assert_allclose(alone["mIoU"][4], evaluation.segmentation.mean_iou([(prediction[4], LABELS[4])], 3)["mIoU"])
    np.testing.assert_allclose(alone["aAcc"][2], (prediction[2] == LABELS[2])[4:].mean())


def test_a_source_and_its_attack(clean):
    source = data.DenseArrays(IMAGES, LABELS, ("a", "b", "c"))
    attack = attacks.dense_pgd(0.1, 3, 0.05)
    found = dense.segmentation(logits_fn, source, attack=attack, key=KEY, batch_size=8, show=(10,))
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(11))
    adversarial = attack(logits_fn, jnp.asarray(IMAGES, jnp.float32) / 255, jnp.asarray(LABELS), keys)
    np.testing.assert_allclose(found["adversarial"][0], adversarial[10], atol=1e-6)
    assert found["mIoU"] < clean["mIoU"] - 0.05 and found["attack"]["name"] == "dense_pgd"


def test_corrupted_and_disturbed(clean):
    """The same draws as classification: its functions, applied to the whole set at once."""
    found = dense.corruption_scores(logits_fn, (IMAGES, LABELS), key=KEY, corruptions=("brightness", "contrast"), severities=(1, 5), clean=clean["mIoU"])
    means = np.array([row["mIoU"] for row in found["rows"]]).reshape(2, 2)
    assert found["mPC"] == pytest.approx(means.mean(1).mean()) and found["rPC"] == pytest.approx(found["mPC"] / clean["mIoU"])
    assert [(row["corruption"], row["severity"]) for row in found["rows"]] == list(itertools.product(("brightness", "contrast"), (1, 5)))
    disturbance = evaluation.disturbances.create("random_drop", grid=4, area=0.5)
    shown = dense.segmentation(logits_fn, (IMAGES, LABELS), change=dense.disturbing(disturbance, KEY), show=(3,))
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(11))
    np.testing.assert_allclose(shown["adversarial"][0], disturbance(jnp.asarray(IMAGES, jnp.float32) / 255, keys)[3], atol=1e-6)
    assert shown["mIoU"] < clean["mIoU"] + 0.05
    with pytest.raises(ValueError, match="expected one without the model"):
        dense.disturbing(evaluation.disturbances.create("salient_drop", area=0.5), KEY)


def test_a_pixel_that_is_not_finite_is_wrong():
    found = dense.segmentation(lambda x: jnp.where(x.sum(-1, keepdims=True) > 1.5, jnp.nan, 8 * x), (IMAGES, LABELS))
    lost = (IMAGES.astype(np.float32) / 255).sum(-1) > 1.5
    right = (IMAGES.argmax(-1) == LABELS) & ~lost
    assert found["aAcc"] == pytest.approx(right.sum() / (LABELS != 255).sum()) and found["confusion"][..., 3].sum() == (lost & (LABELS != 255)).sum()


def test_worst_case():
    """Pixel accuracy per image, and mIoU no higher than any attack's nor than the worst choice of a search over all of them by much."""
    confusions = RNG.integers(0, 40, (3, 4, 3, 3))
    found = dense.worst_case(confusions)
    right, total = np.diagonal(confusions, axis1=2, axis2=3).sum(2), confusions.sum((2, 3))
    assert found["aAcc"] == pytest.approx((right / total).min(0).mean())
    score = lambda choice: dense.of_confusion(confusions[list(choice), np.arange(4)])["mIoU"]
    everything = {choice: score(choice) for choice in itertools.product(range(3), repeat=4)}
    assert found["mIoU"] == pytest.approx(score(found["choice"])) and found["mIoU"] <= min(everything[(k,) * 4] for k in range(3))
    best = min(everything.values())
    assert found["mIoU"] == pytest.approx(best, abs=0.01)
    for i in range(4):                                                                   # no change of one image lowers it
        assert all(score([*found["choice"][:i], k, *found["choice"][i + 1:]]) >= found["mIoU"] - 1e-12 for k in range(3))
    assert dense.worst_case(confusions, rounds=0)["choice"].tolist() == [0] * 4
    np.testing.assert_array_equal(dense.worst_case(confusions, seed=0)["confusion"], found["confusion"])


def test_class_weights():
    weights = dense.class_weights((IMAGES, LABELS), classes=4)
    counts = np.bincount(LABELS[LABELS != 255], minlength=4)
    np.testing.assert_allclose(np.array(weights)[:3] * counts[:3], weights[0] * counts[0])
    assert weights[3] == 0 and np.mean(weights) == pytest.approx(1)
    with pytest.raises(ValueError, match="labels=2 .the highest. of images 0 to 10: expected less than 2"):
        dense.class_weights((IMAGES, LABELS), classes=2)


@pytest.mark.parametrize("labels,message", [
    (np.where(np.arange(11)[:, None, None] == 7, 3, LABELS), "label map of image 7: expected classes from 0 to 2 or ignore=255"),
    (LABELS[:, :8], "expected .n, H, W, C. images and .n, H, W. label maps"), (LABELS - 1, "label map of image 0"),
])
def test_wrong_labels(labels, message):
    with pytest.raises(ValueError, match=message):
        dense.segmentation(logits_fn, (IMAGES, labels))
    with pytest.raises(ValueError, match="logits_fn returned shape"):
        dense.segmentation(lambda x: x[:, ::2], (IMAGES, LABELS))
    with pytest.raises(ValueError, match="expected an untargeted attack"):
        dense.segmentation(logits_fn, (IMAGES, LABELS), attack=attacks.dense_pgd(0.1, 2, targeted=True), key=KEY)
