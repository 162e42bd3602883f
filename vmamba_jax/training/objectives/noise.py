"""Noise-augmented training: cross-entropy on images with Gaussian noise, for the smoothed classifiers of `evaluation.certify`."""
import jax

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.standard import classification_loss
from vmamba_jax.training.objectives.step import Rule, descend, make_step


def noise(classifier, optimizer, *, sigma, label_smoothing=0.0, **options):
    """A step of `standard` on images + N(0, sigma^2), without clipping, one draw for each image and step.

    The step's metrics: loss, accuracy on the noisy images, grad_norm, learning_rate.

    Args:
        classifier, optimizer, label_smoothing, options: as of `standard`.
        sigma: standard deviation of the noise in pixel units, >= 0.

    Source: Cohen, Rosenfeld, Kolter 2019, section 3.3, arXiv 1902.02918.
    """
    checks.number("sigma", sigma, low=0)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)

    def prepare(state, batch, keys):
        del state
        x = batch["image"]
        return {**batch, "image": x + sigma * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(keys.attack)}, {}

    rule = Rule(prepare=prepare, gradient=descend(classification_loss(classifier, label_smoothing)), classes=losses.number_of_classes(classifier))
    return make_step(optimizer, rule, **options)
