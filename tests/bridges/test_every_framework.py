"""The same weights in every framework give the same verdicts, through one front door."""
import functools

import jax
import numpy as np
import pytest

import vmamba_jax
from tests.helpers import one_net
from vmamba_jax import attacks, checkpoints, evaluation, parallel
from vmamba_jax.evaluation import disturbances

KEY = jax.random.key(3)
STATED = dict(mean=one_net.MEAN, std=one_net.STD, num_classes=5, image_shape=(8, 8, 3))
ONE = parallel.data_mesh(jax.devices()[:1])
PGD = attacks.pgd(0.02, 4)
IMAGES = np.random.default_rng(1).random((12, 8, 8, 3), np.float32)


def _shipped(folder):
    """A file of `export_model`, whose program includes the preprocessing."""
    path = folder / "model.zip"
    classifier = vmamba_jax.models.Classifier(one_net.LinenNet(), one_net.MEAN, one_net.STD)
    checkpoints.export_model(path, classifier, {"params": one_net.PARAMS}, (8, 8, 3), batch_size=4, platforms=("cpu",), gradients=True)
    return vmamba_jax.classifier(str(path), num_classes=5)


KINDS = {
    "linen": lambda folder: vmamba_jax.classifier(one_net.LinenNet(), {"params": one_net.PARAMS}, **STATED),
    "function": lambda folder: vmamba_jax.classifier(one_net.plain, **STATED),
    "of weights": lambda folder: vmamba_jax.classifier(one_net.apply, one_net.PARAMS, **STATED),
    "partial": lambda folder: vmamba_jax.classifier(jax.tree_util.Partial(one_net.apply, one_net.PARAMS), **STATED),
    "nnx": lambda folder: vmamba_jax.classifier(one_net.nnx_net(), **STATED),
    "equinox": lambda folder: vmamba_jax.classifier(one_net.equinox_net(), layout="CHW", **STATED),
    "haiku": lambda folder: vmamba_jax.classifier(*one_net.haiku_net(), **STATED),
    "haiku with rng": lambda folder: vmamba_jax.classifier(*one_net.haiku_net(rng=True), **STATED),
    "jax.export": lambda folder: vmamba_jax.classifier(one_net.exported(folder / "net.export"), **STATED),
    "export_model": _shipped,
    "torch": lambda folder: vmamba_jax.classifier(one_net.torch_net(), **STATED),
}
PEERS = [pytest.param(name, marks=pytest.mark.peers) if name == "torch" else name for name in KINDS]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The classifier of a kind, made once."""
    return functools.cache(lambda name: KINDS[name](tmp_path_factory.mktemp("kinds")))


@pytest.fixture(scope="module")
def labels(made):
    labels = np.array(made("linen")(IMAGES).argmax(-1))
    labels[-2:] = (labels[-2:] + 1) % 5
    return labels


@pytest.fixture(scope="module")
def expected(made, labels):
    return np.asarray(PGD.jit(made("linen"))(IMAGES, labels, KEY))


@pytest.mark.parametrize("name", PEERS)
def test_logits_and_pgd(name, made, labels, expected):
    """Also under a jit of the caller's own, which takes the classifier as an argument."""
    classifier = made(name)
    assert classifier.checked.gradient == "nonzero" and classifier.checked.deterministic and classifier.checked.independent
    assert classifier.num_classes == 5 and classifier.checked.faults == []
    np.testing.assert_allclose(classifier(IMAGES), one_net.plain((IMAGES - np.float32(one_net.MEAN)) / np.float32(one_net.STD)), atol=2e-5)
    found = np.asarray(PGD.jit(classifier)(IMAGES, labels, KEY))
    assert np.abs(found - IMAGES).max() <= 0.02 + 1e-6
    np.testing.assert_allclose(found, expected, atol=1e-6)  # signs of gradients: equal steps


@functools.cache
def _verdicts(classifier, labels, full):
    """What evaluations say of a classifier, in plain values."""
    source, options = (IMAGES, np.array(labels)), dict(key=KEY, mesh=ONE)
    corrupted = evaluation.corruption_accuracy(classifier, source, corruptions=("brightness",), severities=(5,), **options)
    found = {"accuracy": evaluation.accuracy(classifier, source, mesh=ONE)["correct"].tolist(), "corrupted": corrupted[0]["accuracy"]}
    if full:
        result = evaluation.robust_accuracy(classifier, source, "autoattack", eps=0.01, steps=4, queries=5, n_targets=2, **options)
        signs = evaluation.gradient_masking_signs(classifier, *source, eps=0.01, key=KEY, result=result)
        drop = disturbances.create("random_drop", area=0.4, grid=4)
        disturbed = evaluation.disturbed_accuracy(classifier, source, drop, **options)
        found |= {"broken_by": result["broken_by"].tolist(), "signs": [sign["sign"] for sign in signs], "disturbed": disturbed["correct"].tolist()}
    return found


@pytest.mark.parametrize("name", ["function", "nnx"])
def test_accuracy_and_corruptions(name, made, labels):
    assert _verdicts(made(name), tuple(labels.tolist()), False) == _verdicts(made("linen"), tuple(labels.tolist()), False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("linen", "torch")])
def test_every_verdict(name, made, labels):
    """AutoAttack, corruptions, disturbances and the signs of masked gradients."""
    expected = _verdicts(made("linen"), tuple(labels.tolist()), True)
    assert set(expected["broken_by"]) - {-1, -2} and expected["corrupted"] < 10 / 12
    assert _verdicts(made(name), tuple(labels.tolist()), True) == expected


@pytest.mark.peers
def test_every_verdict_of_torch(made, labels):
    assert _verdicts(made("torch"), tuple(labels.tolist()), True) == _verdicts(made("linen"), tuple(labels.tolist()), True)


def _transfer(names, made, labels):
    return evaluation.transfer_matrix({name: made(name) for name in names}, (IMAGES, labels), attacks.fgsm(0.01), key=KEY, mesh=ONE)


def test_transfer_between_frameworks(made, labels):
    """Equal weights: every model is as robust to any model's images as to its own."""
    matrix = _transfer(("function", "equinox"), made, labels)
    assert 0 < matrix["transfer"]["function"]["function"] < matrix["clean"]["function"] == 10 / 12
    assert (matrix["robust"] == matrix["robust"][0, 0]).all() and (matrix["correct"] == matrix["correct"][0]).all()


@pytest.mark.slow
def test_transfer_between_all_frameworks(made, labels):
    matrix = _transfer([name for name in KINDS if name != "torch"], made, labels)
    assert (matrix["robust"] == matrix["robust"][0, 0]).all() and 0 < matrix["robust"].mean() < 10 / 12


@pytest.mark.peers
def test_transfer_to_torch(made, labels):
    matrix = _transfer(("torch", "linen"), made, labels)
    assert (matrix["robust"] == matrix["robust"][0, 0]).all()
