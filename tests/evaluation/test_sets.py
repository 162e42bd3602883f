"""The sets that evaluations take: labels, classes, types of images, logits that are not finite; and functions that are freed afterwards."""
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import analysis, attacks, data, evaluation, parallel
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.evaluation import loop, programs

KEY = jax.random.key(0)
ONE = parallel.data_mesh(jax.devices()[:1])
N, SIDE, CLASSES = 10, 8, 4
LEVELS = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), np.uint8)
IMAGES = np.divide(LEVELS, np.float32(255), dtype=np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(SIDE * SIDE * 3, CLASSES)).astype(np.float32)


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS


LABELS = np.asarray(linear(IMAGES)).argmax(1).astype(np.int32)
TARGETED = attacks.pgd(0.01, 1, targeted=True)
EVALUATIONS = {
    "accuracy": evaluation.accuracy,
    "robust_accuracy": functools.partial(evaluation.robust_accuracy, attack=attacks.fgsm(0.01), key=KEY),
    "autoattack": functools.partial(evaluation.robust_accuracy, attack=attacks.autoattack(0.01, steps=1, queries=1, n_targets=2), key=KEY),
    "curve": functools.partial(evaluation.accuracy_curve, make_attack=attacks.fgsm, radii=(0.0, 0.01), key=KEY),
    "calibration": evaluation.calibration_error,
    "corruptions": functools.partial(evaluation.corruption_accuracy, key=KEY, corruptions=("brightness",), severities=(1,)),
    "disturbed": functools.partial(evaluation.disturbed_accuracy, disturbance="random_drop", grid=2, key=KEY),
    "salient": functools.partial(evaluation.disturbed_accuracy, disturbance="salient_drop", grid=2, key=KEY),
    "transfer": lambda f, source, **loop: evaluation.transfer_matrix({"a": f, "b": f}, source, attacks.fgsm(0.01), key=KEY, **loop),
    "center": functools.partial(analysis.center_sensitivity, window=4, stride=4),
}
WRONG = {
    "from 1": (LABELS + 1, r"labels\[\d+\]=4: expected a class from 0 to 3"), "ignored": (np.where(np.arange(N) == 7, 255, LABELS), r"labels\[7\]=255"),
    "-1": (np.where(np.arange(N) == 9, -1, LABELS), r"labels\[9\]=-1"), "one-hot": (np.eye(CLASSES)[LABELS], r"labels.shape=\(10, 4\): expected \(10,\)"),
    "a column": (LABELS[:, None], r"labels.shape=\(10, 1\)"), "floats": (LABELS.astype(float), "labels.dtype=float64"),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_labels_are_checked_before_any_work(name, monkeypatch):
    monkeypatch.setattr(loop, "_PROGRAMS", programs.Programs())  # what is made here is not kept
    monkeypatch.setattr(parallel, "map_batch", lambda *args: lambda *batch: pytest.fail("no program runs before the check"))
    for labels, message in WRONG.values():
        with pytest.raises((ValueError, TypeError), match=message):
            EVALUATIONS[name](lambda x: linear(x), (IMAGES, labels), batch_size=4, mesh=ONE)  # a function of its own, whose programs are not kept


def test_targets_and_models_of_other_classes():
    for targets, message in ((LABELS + 1, r"targets\[\d+\]=4"), (LABELS[:, None], r"targets.shape=\(10, 1\)"), (LABELS * 1.0, "targets.dtype")):
        with pytest.raises((ValueError, TypeError), match=message):
            evaluation.transfer_matrix({"a": linear}, (IMAGES, LABELS), TARGETED, key=KEY, targets=targets, mesh=ONE)
    with pytest.raises(ValueError, match="models={'a': 4, 'b': 3}"):
        evaluation.transfer_matrix({"a": linear, "b": lambda x: linear(x)[:, :3]}, (IMAGES, LABELS % 3), attacks.fgsm(0.1), key=KEY, mesh=ONE)


class Lazy:
    """A source without class names whose label 8 is none of the classes."""
    gather = staticmethod(lambda index: (IMAGES[index], np.where(index == 8, 4, LABELS[index])))
    __len__ = lambda self: N


def test_labels_read_with_their_images():
    with pytest.raises(ValueError, match=r"labels\[8\]=4: expected a class from 0 to 3"):
        evaluation.accuracy(linear, Lazy(), batch_size=4, mesh=ONE)


def test_sources_of_other_classes():
    source = data.Arrays(LEVELS, LABELS % 3, ("a", "b", "c"))
    with pytest.raises(ValueError, match=r"3 classes.*'a', 'b', 'c'.*expected the 4 classes of logits_fn$"):
        evaluation.accuracy(linear, source, mesh=ONE)
    with pytest.raises(ValueError, match="expected the 3 classes"):
        evaluation.accuracy(lambda x: linear(x)[:, :3], data.Arrays(LEVELS, LABELS, "abcd"), mesh=ONE)
    numbers = data.Arrays(LEVELS, LABELS % 3)  # label numbers without names, the highest absent
    assert evaluation.accuracy(linear, numbers, mesh=ONE)["examples"] == N


def test_some_classes_of_imagenet():
    """A model that always says class 574, of a folder of three classes: right for all images of that one, by the logits of the three."""
    identifiers = [name for name, _ in imagenet.classes()]
    chosen = (0, 217, 574)
    thousand = lambda x: jnp.zeros((len(x), 1000)).at[:, 574].set(1).at[:, 573].set(2) + 0 * x.sum()
    source = data.Arrays(LEVELS, np.full(N, 2), [identifiers[k] for k in chosen])
    with pytest.raises(ValueError, match=r"over_classes\(logits_fn, source\)"):
        evaluation.accuracy(thousand, source, mesh=ONE)
    over = evaluation.over_classes(thousand, source)
    assert over(IMAGES).shape == (N, 3) and evaluation.accuracy(over, source, mesh=ONE)["accuracy"] == 1
    everything = data.Arrays(LEVELS, LABELS, identifiers)
    assert evaluation.over_classes(thousand, everything) is thousand
    by_number = data.Arrays(LEVELS, np.full(N, 1), sorted(map(str, range(1000))))  # "0", "1", "10", "100", ...
    assert evaluation.over_classes(lambda x: jnp.arange(1000.0)[None] + 0 * x[:, 0, 0, :1], by_number)(IMAGES)[0, :4].tolist() == [0, 1, 10, 100]
    for names, message in ((("n00000000", "x"), "classes=n00000000, x: expected WordNet"), ((identifiers[0],), "at least two classes")):
        with pytest.raises(ValueError, match=message):
            evaluation.over_classes(thousand, data.Arrays(LEVELS[:1], [0], names))


def test_types_of_images():
    """Gray levels of any integer type are divided by 255; other integers, NaN and values outside [0, 1] are refused, wherever they are."""
    expected = evaluation.accuracy(linear, (IMAGES, LABELS), mesh=ONE)["accuracy"]
    assert expected == 1
    for dtype in (np.uint8, np.int32, np.int64, np.uint16):
        assert evaluation.accuracy(linear, (LEVELS.astype(dtype), LABELS), mesh=ONE)["accuracy"] == 1
    small = lambda x: linear(x.astype(jnp.float32))
    assert evaluation.accuracy(small, (jnp.asarray(IMAGES, jnp.bfloat16), LABELS), mesh=ONE)["accuracy"] > 0.5
    for images in ((LEVELS > 127).astype(int), LEVELS.astype(int) - 1, 257 * LEVELS.astype(np.uint16), LEVELS > 127):
        with pytest.raises(TypeError, match="expected uint8, or a floating type"):
            evaluation.accuracy(linear, (images, LABELS), mesh=ONE)
    last = np.where(np.arange(N)[:, None, None, None] == 9, np.nan, IMAGES)
    for name in ("accuracy", "robust_accuracy", "autoattack"):
        with pytest.raises(ValueError, match=r"images=\[nan, nan\]"):
            EVALUATIONS[name](linear, (last, LABELS), batch_size=4, mesh=ONE)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_no_examples(name):
    with pytest.raises(ValueError, match="source has 0 examples"):
        EVALUATIONS[name](linear, (IMAGES[:0], LABELS[:0]), mesh=ONE)


def test_logits_that_are_not_finite_are_counted():
    nan = lambda x: jnp.where(x[:, :1, 0, 0] > jnp.median(IMAGES[:, 0, 0, 0]), jnp.nan, linear(x))
    found = [EVALUATIONS[name](nan, (IMAGES, LABELS), mesh=ONE) for name in ("accuracy", "robust_accuracy", "calibration", "autoattack")]
    assert [each["not_finite"] for each in found[:1] + found[2:]] == [5, 5, 5] and found[1]["not_finite"] >= 5
    assert all(each["accuracy"] == 0.5 for each in found)
    assert evaluation.summary(found[0])["not_finite"] == 5
    assert "not_finite" not in evaluation.accuracy(linear, (IMAGES, LABELS), mesh=ONE)


def test_functions_are_freed(monkeypatch):
    """Functions around their weights, dropped by their caller: none is kept by a program, and one that is kept is compiled once."""
    traces = []

    def closure(seed):
        weights = jax.random.normal(jax.random.key(seed), (SIDE * SIDE * 3, CLASSES))

        def classify(x):
            traces.append(x.shape)
            return x.reshape(len(x), -1) @ weights
        return classify

    def everything(fn):
        source = (IMAGES, LABELS)
        evaluation.accuracy(fn, source, mesh=ONE)
        evaluation.accuracy(Partial(fn), source, mesh=ONE)
        evaluation.robust_accuracy(fn, source, lambda f, x, y, k: x, key=KEY, mesh=ONE)
        evaluation.gradient_masking_signs(fn, IMAGES, LABELS, eps=0.0, key=KEY)

    fn = closure(0)
    reference = weakref.ref(fn)
    everything(fn)
    n, lowered, lower = len(traces), [], jax.stages.Traced.lower
    monkeypatch.setattr(jax.stages.Traced, "lower", lambda *args, **options: lowered.append(args) or lower(*args, **options))
    evaluation.accuracy(fn, (IMAGES, LABELS), mesh=ONE)
    assert len(traces) == n + 2 and not lowered  # its number of classes, and whether it changed; the program is kept with the function
    del fn
    gc.collect()
    assert reference() is None


def test_programs_of_methods_and_of_what_has_no_hash():
    class Model:
        def predict(self, x):
            return linear(x)

    model, made = Model(), programs.Programs()
    assert programs.Held(model.predict) == programs.Held(model.predict) != programs.Held(Model().predict)
    for _ in range(2):
        tree, functions = programs.held(Partial(model.predict))
        assert made.get(object, "key", functions) is made.get(object, "key", programs.held(Partial(model.predict))[1])
    assert made.get(object, "key", ([],)) is not made.get(object, "key", ([],))
    np.testing.assert_array_equal(tree(IMAGES), linear(IMAGES))
