"""The pieces of detectors against MMDetection's and mmcv's, in float64 and float32."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax.models import dense
from vmamba_jax.models.dense.detection import Detections, Proposals, detect, propose

TOLERANCE = {np.float64: 1e-9, np.float32: 2e-5}
STD1, STD01 = (1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)


@pytest.fixture
def parts(golden):
    return golden("dense_detection_parts")


def last(x, dtype):
    return jnp.asarray(np.moveaxis(x, 1, -1), dtype)


def first(x):
    return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parametrize("aligned,ratio,size", [(True, 0, 7), pytest.param(True, 0, 14, marks=pytest.mark.slow), (True, 2, 7), (False, 0, 7),
                                                pytest.param(True, 2, 14, marks=pytest.mark.slow), pytest.param(False, 2, 7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [np.float64, pytest.param(np.float32, marks=pytest.mark.slow)])
def test_roi_align(parts, x64, aligned, ratio, size, dtype):
    """Boxes inside, partly and wholly outside, tiny, twenty images wide, empty; features and their gradient."""
    name = f"roi_{size}_ratio{ratio}_{'aligned' if aligned else 'plain'}"
    suffix = "_f64" if dtype == np.float64 and size == 7 else ""
    features, rois, cotangent = last(parts["roi_features"], dtype), parts["rois"], last(parts[f"roi_cotangent_{size}"], dtype)

    @jax.jit
    def run(features):
        pooled, pull = jax.vjp(lambda x: dense.roi_align(x, jnp.asarray(rois[:, 1:], dtype), jnp.asarray(rois[:, 0], np.int32), size,
                                                         float(parts["roi_scale"]), ratio, aligned), features)
        return pooled, pull(cotangent)[0]
    tolerance = TOLERANCE[dtype] if suffix or dtype == np.float32 else 1e-6                            # the 14 x 14 outputs are stored in float32
    for found, wanted in zip(run(features), (parts[name + suffix], parts[f"{name}_grad{suffix}"]), strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(first(found), wanted, atol=tolerance * np.abs(wanted).max())


def test_roi_align_is_vectorized(parts):
    """Under vmap, and on a pyramid: each box from its level's map alone."""
    rng = np.random.default_rng(0)
    maps = [jnp.asarray(rng.normal(size=(2, side, side + 3, 4)), jnp.float32) for side in (24, 12)]
    boxes = jnp.asarray([[3, 4, 30, 22], [10, 8, 100, 90], [0, 0, 107, 95], [50, 60, 52.5, 61]], jnp.float32)
    index = jnp.asarray([0, 1, 0, 1])
    level = dense.level_of(boxes, 28, 2)
    np.testing.assert_array_equal(level, [0, 1, 1, 0])
    alone = jax.jit(jax.vmap(lambda x, scale: dense.roi_align(x, boxes, index, 7, scale), (None, 0)), static_argnums=())
    by_map = [alone(x, jnp.asarray([1 / stride]))[0] for x, stride in zip(maps, (4, 8), strict=True)]
    found = jax.jit(lambda maps: dense.roi_align_pyramid(maps, boxes, index, 7, (4, 8), 28))(maps)
    np.testing.assert_allclose(found, jnp.where((level == 0)[:, None, None, None], *by_map), atol=1e-6)


def test_levels(parts):
    np.testing.assert_array_equal(dense.level_of(jnp.asarray(parts["level_rois"][:, 1:]), 56, 4), parts["levels"])


def test_anchors(parts):
    found = dense.anchors([(13, 17), (7, 9), (4, 5), (2, 3), (1, 2)], (4, 8, 16, 32, 64), 8, (0.5, 1, 2))
    for i, x in enumerate(found):
        np.testing.assert_array_equal(x, parts[f"anchors{i}"])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name,std", [("std1", STD1), ("std01", STD01)])
def test_coding(parts, x64, dtype, name, std):
    priors, deltas, targets = (jnp.asarray(parts[key], dtype) for key in ("delta_priors", "deltas", "delta_targets"))
    close = lambda found, wanted, tolerance: np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max())
    suffix = "_f64" if dtype == np.float64 else ""
    close(dense.decode(priors, deltas, std), parts[f"decoded_{name}{suffix}"], TOLERANCE[dtype])
    close(dense.decode(priors, deltas, std, tuple(parts["delta_max_shape"])), parts[f"decoded_clipped_{name}{suffix}"], TOLERANCE[dtype])
    encoded = dense.encode(priors, targets, std)
    close(encoded, parts[f"encoded_{name}{suffix}"], 2e-7 if suffix else 2e-5)                                      # stored in float32
    within = np.abs(np.asarray(encoded * jnp.asarray(std))[:, 2:]).max(1) < np.log(1000 / 16)
    assert within.sum() > 30
    close(np.asarray(dense.decode(priors, encoded, std))[within], np.asarray(targets)[within], TOLERANCE[dtype])


def test_empty_boxes_have_finite_deltas():
    gradient = jax.grad(lambda x: dense.encode(x, jnp.zeros((1, 4)), STD01).sum())(jnp.zeros((1, 4)))
    assert np.isfinite(gradient).all() and not dense.encode(jnp.zeros((1, 4)), jnp.ones((1, 4)), STD1).any()


@pytest.mark.parametrize("threshold", [3, 5, 7])
@pytest.mark.parametrize("grouped", [False, True])
def test_nms(parts, threshold, grouped):
    boxes, scores, groups = (jnp.asarray(parts[f"nms_{name}"]) for name in ("boxes", "scores", "groups"))
    wanted = parts[f"nms_keep_{'grouped_' if grouped else ''}{threshold}"]
    kept = np.asarray(dense.nms(boxes, scores, threshold / 10, groups if grouped else None))
    np.testing.assert_array_equal(kept, np.pad(wanted, (0, len(boxes) - len(wanted)), constant_values=-1))
    few = dense.nms(boxes, scores, threshold / 10, groups if grouped else None, count=5)
    np.testing.assert_array_equal(few, wanted[:5])


def test_nms_of_nothing():
    boxes, scores = jnp.asarray([[0.0, 0, 4, 4], [0, 0, 4, 4]]), jnp.asarray([jnp.nan, -jnp.inf])
    np.testing.assert_array_equal(dense.nms(boxes, scores, 0.5), [-1, -1])
    with pytest.raises(ValueError, match=r"boxes.shape=\(2, 4\), scores.shape=\(3,\): expected"):
        dense.nms(boxes, jnp.zeros(3), 0.5)


@pytest.mark.parametrize("name,positive,negative", [("rpn", 0.7, 0.3), ("rcnn", 0.5, 0.5)])
@pytest.mark.parametrize("low", [True, False])
def test_match(parts, name, positive, negative, low):
    priors, boxes = jnp.asarray(parts["match_priors"]), jnp.asarray(parts["match_objects"])
    wanted = parts[f"match_{name}_{'low' if low else 'nolow'}"]
    np.testing.assert_array_equal(dense.match(priors, boxes, positive, negative, low), wanted)
    padded, valid = jnp.concatenate([boxes, priors[:3]]), jnp.arange(len(boxes) + 3) < len(boxes)
    np.testing.assert_array_equal(dense.match(priors, padded, positive, negative, low, valid=valid), wanted)
    assert not dense.match(priors, boxes, positive, negative, low, valid=jnp.zeros(len(boxes), bool)).any()


def test_overlaps(parts, x64):
    boxes, priors = jnp.asarray(parts["match_objects"], jnp.float64), jnp.asarray(parts["match_priors"], jnp.float64)
    np.testing.assert_allclose(dense.overlaps(boxes[:, None], priors), parts["match_overlaps_f64"], atol=1e-12)


def test_sample():
    """At most a share of positives, the rest negatives, never an ignored one; every candidate about equally often."""
    matched = jnp.asarray([0] * 20 + [-1] * 10 + [1, 2, 3, 1, 2, 3])
    draw = jax.jit(jax.vmap(lambda key: dense.sample(key, matched, 8, 0.5)))
    found = np.asarray(draw(jax.random.split(jax.random.key(0), 300)))
    assert found.shape == (300, 8) and all(len(set(row)) == 8 for row in found)
    assert (found[:, :4] >= 30).all() and (found[:, 4:] < 20).all()
    counts = np.bincount(found.ravel(), minlength=36)
    assert not counts[20:30].any() and 40 < counts[:20].min() and counts[:20].max() < 85 and 160 < counts[30:].min() and counts[30:].max() < 240
    few = dense.sample(jax.random.key(0), jnp.asarray([-1, 0, 2, 0, -1]), 8, 0.5)
    assert few[0] == 2 and set(few[1:3].tolist()) == {1, 3} and (few[3:] == -1).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_paste(parts, x64, dtype):
    masks, boxes = jnp.asarray(parts["paste_masks"], dtype), jnp.asarray(parts["paste_boxes"], dtype)
    found = dense.paste(masks, boxes, *map(int, parts["paste_size"]))
    np.testing.assert_array_equal(found >= 0.5, parts["pasted"])
    inside = np.abs(parts["pasted_f64"]) > 0                                              # the original leaves pixels away from the box at zero
    np.testing.assert_allclose(np.where(inside, found, 0), parts["pasted_f64"], atol=2e-7 if dtype == np.float64 else 2e-5)
    assert (np.asarray(found)[~inside] < 0.5).all()


def test_crop(parts):
    found = dense.crop(jnp.asarray(parts["crop_masks"]), jnp.asarray(parts["crop_index"]), jnp.asarray(parts["crop_boxes"]), 28)
    np.testing.assert_array_equal(found, parts["cropped"])


def test_detect():
    """Scores above the limit only, suppression within a class, places without a detection, none from an invalid proposal; the scores have gradients."""
    proposals = jnp.asarray([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10]])
    logits = jnp.log(jnp.asarray([[0.6, 0.3, 0.1], [0.5, 0.02, 0.48], [0.9, 0.05, 0.05]]))
    args = jnp.zeros((3, 2, 4)), proposals, jnp.asarray([True, True, False]), STD01, (8, 20), Detections(0.05, 4, 0.5)
    boxes, scores, labels, valid = jax.jit(lambda logits: detect(logits, *args))(logits)
    np.testing.assert_allclose(scores, [0.6, 0.3, 0, 0], atol=1e-6)
    assert labels.tolist() == [0, 1, -1, -1] and valid.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(boxes, [[0, 0, 10, 8]] * 2 + [[0] * 4] * 2)
    gradient = jax.jit(jax.grad(lambda logits: detect(logits, *args)[1].sum()))(logits)
    assert np.abs(gradient[0]).min() > 0.01 and not gradient[1:].any()


def test_propose():
    """The best anchors of each level, without those that are empty inside the image; no suppression across levels."""
    anchors = [jnp.asarray([[0.0, 0, 8, 8], [0, 0, 8, 9], [4, 0, 12, 8]]), jnp.asarray([[0.0, 0, 8, 8], [30, 30, 40, 40]])]
    logits = [jnp.asarray([1.0, 2.0, 0.0]), jnp.asarray([0.5, 3.0])]
    boxes, scores, valid = propose(logits, [jnp.zeros((3, 4)), jnp.zeros((2, 4))], anchors, STD1, (20, 20), Proposals(2, 3, 0.7))
    np.testing.assert_array_equal(boxes, [[0, 0, 8, 9], [0, 0, 8, 8], [0, 0, 0, 0]])
    np.testing.assert_allclose(scores, [jax.nn.sigmoid(2.0), jax.nn.sigmoid(0.5), 0], atol=1e-6)
    assert valid.tolist() == [True, True, False]
