"""The PyTorch bridge: gradients, mode, layout and weights of the module itself."""
import jax
import numpy as np
import pytest

import vmamba_jax
from tests.helpers import one_net
from vmamba_jax import bridges
from vmamba_jax.evaluation import identity

pytestmark = pytest.mark.peers
torch = pytest.importorskip("torch")
IMAGES = np.random.default_rng(1).random((6, 8, 8, 3), np.float32)


def test_gradients_are_those_of_autograd():
    net = one_net.torch_net()
    fn = bridges.torch.logits_fn(net)
    found = jax.jit(jax.grad(lambda x: jax.nn.logsumexp(fn(x), -1).sum()))(IMAGES)
    x = torch.tensor(IMAGES).permute(0, 3, 1, 2).requires_grad_()
    net.eval()
    torch.logsumexp(net(x), -1).sum().backward()
    np.testing.assert_allclose(found, x.grad.permute(0, 2, 3, 1), atol=1e-6)
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad()
    jax.grad(lambda x: fn(x).sum())(IMAGES)
    assert all(p.grad is None for p in net.parameters())


def test_modes_are_restored_and_never_used():
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.9), torch.nn.Flatten(), torch.nn.Linear(192, 3))
    net[0].eval()
    before = net[0].running_mean.clone()
    fn = bridges.torch.logits_fn(net)
    first, second = fn(IMAGES), fn(IMAGES)
    np.testing.assert_array_equal(first, second)
    assert [each.training for each in net] == [False, True, True, True] and net.training and torch.equal(before, net[0].running_mean)


def test_layout():
    class Last(torch.nn.Module):
        def forward(self, x):
            return x.reshape(len(x), -1)[:, :4]
    np.testing.assert_allclose(bridges.torch.logits_fn(Last(), "NHWC")(IMAGES), IMAGES.reshape(6, -1)[:, :4])
    np.testing.assert_allclose(bridges.torch.logits_fn(Last())(IMAGES), IMAGES.transpose(0, 3, 1, 2).reshape(6, -1)[:, :4])
    classifier = vmamba_jax.classifier(Last(), layout="NHWC", image_shape=(8, 8, 3))
    np.testing.assert_allclose(classifier(IMAGES), IMAGES.reshape(6, -1)[:, :4])


def test_weights_of_now_and_their_digest():
    net = one_net.torch_net()
    classifier = vmamba_jax.classifier(net, image_shape=(8, 8, 3), name="net")
    before, named, plain = classifier(IMAGES), classifier.identity(), identity.of(lambda x: net)
    assert named == vmamba_jax.classifier(one_net.torch_net(), image_shape=(8, 8, 3), name="net").identity() and named.startswith("net ")
    with torch.no_grad():
        net[3].weight.neg_()
        net[3].bias.neg_()
    np.testing.assert_allclose(classifier(IMAGES), -before, atol=1e-5)
    assert classifier.identity() != named and identity.of(lambda x: net) != plain


def test_errors():
    with pytest.raises(TypeError, match="module=function: expected a torch.nn.Module"):
        bridges.torch.logits_fn(lambda x: x)
    with pytest.raises(TypeError, match=r"parameters of type torch.float64: expected torch.float32 \(module.float\(\)\)"):
        bridges.torch.logits_fn(one_net.torch_net().double())
    with pytest.raises(ValueError, match="layout='HWC': expected one of 'NCHW', 'NHWC'"):
        bridges.torch.logits_fn(one_net.torch_net(), "HWC")
    with pytest.raises(Exception, match=r"the module returned \(1, 3, 8, 8\): expected one tensor of logits"):
        bridges.torch.logits_fn(torch.nn.Identity())(IMAGES)
