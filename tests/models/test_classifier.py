"""A model with its preprocessing: which one it gets, types of images, and the logits of some classes."""
import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from vmamba_jax import models

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3), np.uint8)
FLOATS = np.divide(IMAGES, np.float32(255), dtype=np.float32)


class Sums(nn.Module):
    """A module of the user's own, called without `train`: logits k times the sum of the pixels."""
    @nn.compact
    def __call__(self, images):
        scale = self.param("scale", nn.initializers.ones, ())
        return scale * images.sum((1, 2, 3), keepdims=True)[:, 0, 0] * jnp.arange(1.0, 6)


class Modes(Sums):
    @nn.compact
    def __call__(self, images, train=True):
        return super().__call__(images) * (2 if train else 1)


VARIABLES = {"params": {"scale": jnp.float32(1)}}
SUMS = FLOATS.sum((1, 2, 3), keepdims=True)[:, 0, 0] * np.arange(1.0, 6)


@pytest.mark.parametrize("module", [Sums(), Modes()])
def test_no_preprocessing_that_nobody_asked_for(module):
    """A module that is no catalog model gets the images as they are, unless mean or std is given; evaluation mode either way."""
    np.testing.assert_allclose(vmamba_jax.logits_fn(module, VARIABLES)(FLOATS), SUMS, rtol=1e-5)
    np.testing.assert_allclose(vmamba_jax.logits_fn(module, VARIABLES, std=0.5)(FLOATS), 2 * SUMS, rtol=1e-5)
    normalized = vmamba_jax.logits_fn(module, VARIABLES, mean=(0.1, 0.2, 0.3), std=(0.5, 1, 2))(FLOATS)
    expected = ((FLOATS - [0.1, 0.2, 0.3]) / [0.5, 1, 2]).sum((1, 2, 3))
    np.testing.assert_allclose(normalized[:, 0], expected, rtol=1e-5)
    assert models.Classifier(module).init(jax.random.key(0), (3, 3, 3)) == VARIABLES


def test_training_mode_reaches_modules_that_have_it():
    classifier = models.as_classifier(Modes())
    np.testing.assert_allclose(classifier(VARIABLES, FLOATS, train=True), 2 * SUMS, rtol=1e-5)
    np.testing.assert_allclose(models.as_classifier(Sums())(VARIABLES, FLOATS, train=True), SUMS, rtol=1e-5)


def test_preprocessing_of_catalog_modules():
    for name in ("vmamba_tiny", "resnet18", "deit_tiny", "efficientnet_lite0"):
        assert models.as_classifier(vmamba_jax.create_model(name)).mean == models.entry(name).mean
    with pytest.raises(ValueError, match="in_channels=1"):
        models.as_classifier(vmamba_jax.create_model("resnet18", in_channels=1))
    with pytest.raises(TypeError, match="model=.*expected a catalog name, a Linen module or a Classifier"):
        models.as_classifier(lambda x: x)


def test_types_of_images():
    fn = vmamba_jax.logits_fn(models.Classifier(Sums(), 0.5, 0.25), VARIABLES)
    np.testing.assert_array_equal(fn(IMAGES), fn(FLOATS))
    assert fn(FLOATS.astype(jnp.bfloat16)).shape == (2, 5) and fn(FLOATS[:0]).shape == (0, 5)
    for dtype in (np.int32, np.uint16, bool):
        with pytest.raises(TypeError, match=f"images.dtype={np.dtype(dtype)}: expected uint8"):
            fn(IMAGES.astype(dtype))


def test_columns():
    classifier = models.Classifier(Sums(), 0, 1, columns=[4, 1])
    assert hash(classifier) and classifier.columns == (4, 1)
    np.testing.assert_allclose(vmamba_jax.logits_fn(classifier, VARIABLES)(FLOATS), SUMS[:, [4, 1]], rtol=1e-5)
    logits, state = classifier(VARIABLES, FLOATS, mutable=["intermediates"])
    assert logits.shape == (2, 2) and state == {}
    for columns in ((), (-1, 2), (1, 1)):
        with pytest.raises(ValueError, match="expected different integers >= 0"):
            dataclasses.replace(classifier, columns=columns)
    with pytest.raises(ValueError, match="columns=.*5 logits"):
        dataclasses.replace(classifier, columns=(5,))(VARIABLES, FLOATS)
