"""Receptive fields against windows counted by hand and the gradient of recorded maps, and the square that holds a share."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.attention_models import IMAGES, MEAN, STD, VIM, VIT, VMAMBA, random_variables
from vmamba_jax import analysis, parallel
from vmamba_jax.core import scan_orders
from vmamba_jax.models.baselines.convnext import ConvNeXt
from vmamba_jax.models.baselines.efficientnet import EfficientNetLite
from vmamba_jax.models.baselines.resnet import ResNet
from vmamba_jax.models.baselines.swin import Swin


class Windows(nn.Module):
    """A map of weighted 3 x 3 sums at every second pixel; not finite for an image whose first pixel is 1."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.ones, (3, 3, 1, 2))
        x = x / (x[:, :1, :1] != 1)
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"))
        self.sow("maps", "last", y)
        return y.mean((1, 2))


WINDOWS = Windows()
SOURCE = np.random.default_rng(0).uniform(0.1, 0.9, (5, 8, 8, 1)).astype(np.float32), np.zeros(5, int)


def test_window_by_hand():
    """Two channels of ones over 3 x 3 pixels around position 2 of 4; a channel whose sum is negative does not count, nor do negative weights."""
    kernel = np.ones((3, 3, 1, 2), np.float32)
    found = analysis.receptive_field(WINDOWS, {"params": {"kernel": kernel}}, SOURCE, batch_size=2)
    expected = np.zeros((8, 8))
    expected[3:6, 3:6] = 2
    np.testing.assert_array_equal(found["map"], expected)
    assert (found["examples"], found["skipped"]) == (5, 0)

    kernel[..., 1] = -1
    kernel[0, 0, 0, 0] = -0.1
    expected[3:6, 3:6] = 1
    expected[3, 3] = 0
    np.testing.assert_array_equal(analysis.receptive_field(WINDOWS, {"params": {"kernel": kernel}}, SOURCE)["map"], expected)


def test_images_that_are_not_finite_are_skipped():
    images = SOURCE[0].copy()
    images[[1, 4], 0, 0] = 1
    variables, said = {"params": {"kernel": np.ones((3, 3, 1, 2), np.float32)}}, []
    found = analysis.receptive_field(WINDOWS, variables, (images, SOURCE[1]), batch_size=8, progress=lambda *a: said.append(a))
    assert found["skipped"] == 2 and found["map"].max() == 2 and said == [(5, 5, {})]
    with pytest.raises(ValueError, match="source of 2 images: expected at least one whose map is finite"):
        analysis.receptive_field(WINDOWS, variables, (images[[1, 4]], SOURCE[1][:2]))


def check(model, last):
    """Against the gradient of the map that `last` takes from the intermediates, of the normalized images, one image at a time."""
    variables = random_variables(model)
    x = (IMAGES - jnp.array(MEAN)) / jnp.array(STD)

    @jax.jit
    @jax.grad
    def expected(x):
        found = last(model.apply(variables, x, mutable=["intermediates"])[1]["intermediates"])
        return jax.nn.relu(found[:, found.shape[1] // 2, found.shape[2] // 2]).sum()
    found = analysis.receptive_field(model, variables, (IMAGES, np.zeros(2, int)), mean=MEAN, std=STD, mesh=parallel.data_mesh(jax.devices()[:1]))
    expected = np.maximum(expected(x), 0).sum(-1).mean(0)
    np.testing.assert_allclose(found["map"], expected, atol=2e-5 * expected.max())
    assert expected.max() > 0 and found["map"].shape == (8, 12)


@pytest.mark.slow   # Vim's is checked in the same way
def test_field_of_vmamba():
    check(VMAMBA.clone(depths=(1,)), lambda found: found["stage0_blocks"][0])


def test_field_of_vim():
    """The central patch of the image, wherever it is read, and not a class token."""
    shuffled = VIM.clone(scan_pattern=scan_orders.Order("random"))
    steps = np.argsort(scan_orders.order(shuffled.scan_pattern, 3, 5))
    check(shuffled, lambda found: found["block0_out"][0][:, 1:-1][:, steps].reshape(2, 3, 5, -1))


@pytest.mark.slow
def test_field_of_vit():
    check(VIT.clone(depth=1), lambda found: found["block0_out"][0][:, 1:].reshape(2, 2, 3, -1))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "last"), [
    (Swin(num_classes=3, embed_dim=4, depths=(2,), num_heads=(2,), window_size=2, patch_size=2, image_size=8), "stage0_blocks"),
    (ConvNeXt(num_classes=3, dims=(4,), depths=(1,), patch_size=2), "stage0_blocks"),
    (ResNet(num_classes=3, layers=(1,), channels=(4,), stem="cifar"), "stage0_blocks")])
def test_field_of_baselines(model, last):
    check(model, lambda found: found[last][0])


def test_a_model_without_a_map():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x.mean((1, 2))
    with pytest.raises(ValueError, match="model Plain: expected one that calls self.sow"):
        analysis.receptive_field(Plain(), {}, SOURCE)


def test_contribution():
    """Rings of equal values around (H // 2, W // 2): 1, 8 and 16 pixels hold 1/25, 9/25 and all."""
    rows = analysis.contribution(np.ones((5, 5)), (0.04, 0.05, 0.36, 0.37, 1.0))
    assert [(row["side"], row["area"]) for row in rows] == [(1, 0.04), (3, 0.36), (3, 0.36), (5, 1.0), (5, 1.0)]
    field = np.zeros((8, 12))
    field[4, 6], field[4, 9] = 1, 1
    assert [row["side"] for row in analysis.contribution(field, (0.5, 0.51))] == [1, 7]
    field[0, 0] = 2   # only a square that is cut by the image reaches it
    assert analysis.contribution(field, (0.99,))[0]["area"] == 1
    for bad in (np.zeros((4, 4)), -np.ones((4, 4)), np.full((4, 4), np.nan)):
        with pytest.raises(ValueError, match=r"field.shape=\(4, 4\), sum .*: expected \(H, W\), not negative, with a positive sum"):
            analysis.contribution(bad)
    with pytest.raises(ValueError, match="share"):
        analysis.contribution(np.ones((4, 4)), (1.5,))


def test_displayed():
    np.testing.assert_allclose(analysis.displayed([[0, 1], [32, 243]]), [[0, 1 / 3], [2 / 3, 1]])
    assert not analysis.displayed(np.zeros((2, 2))).any()


@pytest.mark.slow
def test_last_map_of_efficientnet():
    model = EfficientNetLite(num_classes=3)
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    found = jax.eval_shape(lambda v, x: model.apply(v, x, mutable=["maps"])[1], variables, images)
    assert found["maps"]["last"][0].shape == (2, 2, 3, 320)
