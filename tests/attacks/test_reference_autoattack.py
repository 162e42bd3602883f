"""The reference AutoAttack (pyautoattack, PyTorch) attacks our model through a bridge; both find the same images robust."""
import jax
import numpy as np
import pytest

import vmamba_jax
from experiments.benchmarks import torch_attacks
from vmamba_jax import attacks, data, evaluation
from vmamba_jax.models import Classifier

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def subject():
    """A ResNet of a few thousand weights, and digits with its own predictions as labels."""
    model = vmamba_jax.create_model("resnet18", stem="cifar", layers=(1,), channels=(8,), stem_width=8, num_classes=10, in_channels=1)
    classifier = Classifier(model, (0.3,), (0.35,))
    variables = classifier.init(jax.random.key(0), (8, 8, 1))
    images = (data.load("digits", "test").gather(np.arange(16))[0] / 255).astype(np.float32)
    logits_fn = vmamba_jax.logits_fn(classifier, variables)
    return logits_fn, images, np.asarray(logits_fn(images)).argmax(1).astype(np.int32)


def test_bridge_has_our_logits_and_gradients(subject):
    import torch
    logits_fn, images, _ = subject
    x = torch.from_numpy(images[:5].transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = torch_attacks.bridge(logits_fn, 8)(x)
    gradient, = torch.autograd.grad((logits ** 2).sum(), x)
    np.testing.assert_allclose(logits.detach(), logits_fn(images[:5]), atol=1e-6)
    np.testing.assert_allclose(gradient.permute(0, 2, 3, 1), jax.grad(lambda x: (logits_fn(x) ** 2).sum())(images[:5]), atol=1e-6)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.3)])
def test_flags_agree(subject, norm, eps):
    logits_fn, images, labels = subject
    attack = attacks.autoattack(eps, norm=norm)
    ours = evaluation.robust_accuracy(logits_fn, (images, labels), attack, key=jax.random.key(0), batch_size=16)
    theirs, flags = torch_attacks.attacked("autoattack", attack, torch_attacks.bridge(logits_fn, 16), images, labels, 16, seed=0)
    assert 0 < ours["robust_accuracy"] < 1
    np.testing.assert_array_equal(flags, ours["robust"])
