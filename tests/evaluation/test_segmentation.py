"""Mean intersection over union against MMSegmentation's counts, and inference in windows."""
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import evaluation
from vmamba_jax.evaluation import segmentation


def pairs(arrays):
    return [(arrays[f"prediction{i}"], arrays[f"label{i}"]) for i in range(4)]


def test_mean_iou(golden):
    arrays = golden("dense_miou")
    found = evaluation.segmentation.mean_iou(pairs(arrays), 9)
    np.testing.assert_allclose(found["IoU"], arrays["per_class_IoU_nan"], rtol=1e-15)
    np.testing.assert_allclose(found["Acc"], arrays["per_class_Acc_nan"], rtol=1e-15)
    assert found["aAcc"] == arrays["per_class_aAcc_nan"] and found["mIoU"] == np.nanmean(arrays["per_class_IoU_nan"])
    assert found["mAcc"] == pytest.approx(np.nanmean(arrays["per_class_Acc_nan"]), abs=1e-15)
    total = sum(segmentation.confusion(*pair, 9) for pair in pairs(arrays))
    np.testing.assert_array_equal(total.sum(0), arrays["area_predicted"])
    np.testing.assert_array_equal(total.sum(1), arrays["area_labelled"])
    batched = evaluation.segmentation.mean_iou([(arrays["prediction0"][None], arrays["label0"][None])], 9)
    np.testing.assert_array_equal(batched["IoU"], evaluation.segmentation.mean_iou(pairs(arrays)[:1], 9)["IoU"])


def test_nothing_labelled_is_nan():
    found = evaluation.segmentation.mean_iou([(np.zeros((2, 2), int), np.full((2, 2), 255))], 3)
    assert np.isnan([found["mIoU"], found["aAcc"], found["mAcc"]]).all()


@pytest.mark.parametrize("pair,error,message", [
    ((np.full((2, 2), 255), np.zeros((2, 2), int)), ValueError, r"pairs\[0\]: prediction 255: expected a class from 0 to 2"),     # swapped
    ((np.zeros((2, 2), int), np.full((2, 2), 3)), ValueError, r"pairs\[0\]: label 3: expected a class from 0 to 2 or ignore=255"),
    ((np.zeros((2, 2), int), np.zeros((2, 3), int)), ValueError, "prediction of shape .2, 2. and label of shape .2, 3."),
    ((np.zeros((2, 2)), np.zeros((2, 2), int)), TypeError, "prediction of dtype float64: expected integers"),
])
def test_mean_iou_errors(pair, error, message):
    with pytest.raises(error, match=message):
        evaluation.segmentation.mean_iou([pair], 3)
    with pytest.raises(ValueError, match="expected at least one pair"):
        evaluation.segmentation.mean_iou([], 3)


@pytest.mark.parametrize("size,crop,stride", [((7, 11), (4, 5), (3, 2)), ((3, 9), (4, 4), 4), ((6, 6), 6, 2), ((5, 8), (5, 3), (2, 3))])
def test_slide(size, crop, stride):
    """The mean over every window that MMSegmentation's loop takes, of logits that depend on the window."""
    images = jnp.asarray(np.random.default_rng(0).random((2, *size, 2)), jnp.float32)
    logits = lambda x: x * x.mean((1, 2), keepdims=True)
    height, width = np.minimum(crop, size)
    rows, columns = (stride, stride) if isinstance(stride, int) else stride
    total, count = np.zeros(images.shape), np.zeros((1, *size, 1))
    for i in range(max(size[0] - height + rows - 1, 0) // rows + 1):
        for j in range(max(size[1] - width + columns - 1, 0) // columns + 1):
            y, x = min(i * rows + height, size[0]) - height, min(j * columns + width, size[1]) - width
            total[:, y:y + height, x:x + width] += logits(images[:, y:y + height, x:x + width])
            count[:, y:y + height, x:x + width] += 1
    assert count.min() > 0
    np.testing.assert_allclose(evaluation.segmentation.slide(logits, images, crop, stride), total / count, rtol=1e-6)


def test_slide_errors():
    images = jnp.zeros((1, 8, 8, 3))
    with pytest.raises(ValueError, match="stride=.5, 5.: expected at most crop=.4, 4."):
        evaluation.segmentation.slide(lambda x: x, images, 4, 5)
    with pytest.raises(ValueError, match="expected .1, 4, 4, classes., the window's size"):
        evaluation.segmentation.slide(lambda x: x[:, ::2], images, 4, 2)
