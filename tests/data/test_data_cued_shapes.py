"""The shapes with a planted cue: exact masks, agreement of cue and label, the shifted splits of the same scenes, seeds."""
import numpy as np
import pytest

from vmamba_jax import data
from vmamba_jax.data.datasets import cued_shapes
from vmamba_jax.data.datasets.cued_shapes import CLASSES, CUES

SMALL = {"examples": (240, 24, 60), "size": 24}


@pytest.fixture(scope="module")
def splits():
    return {split: data.load("cued_shapes", split, **SMALL) for split in ("train", "validation", "test", "conflict", "plain")}


def test_sizes_and_masks(splits):
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [240, 24, 60]
    for source in splits.values():
        assert source.images.shape[1:] == (24, 24, 3) and source.classes == CLASSES and source.masks.shape == source.images.shape[:3]
        assert not (source.masks & source.cue_masks).any() and source.masks.any((1, 2)).all()
        assert np.bincount(source.labels).max() - np.bincount(source.labels).min() <= 1


def test_agreement_and_conflict(splits):
    train, conflict, plain = splits["train"], splits["conflict"], splits["plain"]
    assert 0.9 < (train.cue_labels == train.labels).mean() < 1
    assert not (conflict.cue_labels == conflict.labels).any() and (plain.cue_labels == -1).all() and not plain.cue_masks.any()
    all_agree = data.load("cued_shapes", "train", agreement=1.0, **SMALL)
    assert (all_agree.cue_labels == all_agree.labels).all()


def test_cue_pixels_have_the_cues_color_and_the_scenes_are_the_same(splits):
    test, conflict, plain = splits["test"], splits["conflict"], splits["plain"]
    np.testing.assert_array_equal(test.labels, conflict.labels)
    np.testing.assert_array_equal(test.masks, plain.masks)
    for source in (test, conflict):
        assert source.cue_masks.any((1, 2)).all()
        np.testing.assert_array_equal(source.images[source.cue_masks], np.repeat(CUES[source.cue_labels], source.cue_masks.sum((1, 2)), 0))
        np.testing.assert_array_equal(source.images[~source.cue_masks], plain.images[~source.cue_masks])
    uncued = data.load("cued_shapes", "test", cue=False, **SMALL)
    np.testing.assert_array_equal(uncued.images, plain.images)


def test_a_shape_differs_from_its_surroundings(splits):
    """The mask is where the shape is painted: its mean gray differs from the background's by more than the texture."""
    plain = splits["plain"]
    gray, masks = plain.images.mean(-1), plain.masks
    inside, outside = ((gray * m).sum((1, 2)) / m.sum((1, 2)) for m in (masks, ~masks))
    assert (np.abs(inside - outside) > 20).mean() > 0.9
    faint = data.load("cued_shapes", "test", contrast=0.2, **SMALL)
    np.testing.assert_array_equal(faint.masks, plain.masks)
    gray = data.load("cued_shapes", "plain", contrast=0.2, **SMALL).images.mean(-1)
    fainter_inside, same_outside = ((gray * m).sum((1, 2)) / m.sum((1, 2)) for m in (masks, ~masks))
    np.testing.assert_allclose(same_outside, outside)
    assert np.median(np.abs(fainter_inside - outside) / np.abs(inside - outside)) == pytest.approx(0.2, abs=0.15)


def test_seeds(splits):
    again, other = (data.load("cued_shapes", "train", seed=seed, **SMALL) for seed in (0, 1))
    assert again.fingerprint == splits["train"].fingerprint != other.fingerprint


def test_errors():
    for options, message in (({"split": "val"}, "split='val': expected one of"), ({"size": 8}, "size=8: expected an integer >= 16"),
                             ({"agreement": 1.5}, "agreement=1.5"), ({"contrast": -0.1}, "contrast=-0.1"), ({"examples": (3, 2)}, r"examples=\(3, 2\): expected a number for each")):
        with pytest.raises(ValueError, match=message):
            data.load("cued_shapes", **{"split": "train", **options})


def test_the_cue_never_covers_the_shape():
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 3:17, 3:17] = masks[1] = True
    squares = cued_shapes._squares(masks, 20, np.random.default_rng(0))
    assert not (squares & masks).any() and squares[0].any() and not squares[1].any()
