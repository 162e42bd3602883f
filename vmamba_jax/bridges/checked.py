"""What a classifier does on two images: the facts that every attack and evaluation relies on, measured once."""
import dataclasses

import jax
import numpy as np

SAME = 1e-3  # largest difference of an image's logits beside another image, in units of the largest logit


@dataclasses.dataclass(frozen=True)
class Checked:
    """Measurements on two images of uniform noise.

    Attributes:
        image_shape: (H, W, C) of the images.
        num_classes: number of logits.
        gradient: "nonzero", "zero", "not finite", or "none: ..." with the error of the derivative.
        deterministic: two passes returned the same logits.
        independent: the logits of an image do not depend on the other image of its batch.
        probabilities: the outputs are within [0, 1] and sum to 1.
    """
    image_shape: tuple
    num_classes: int
    gradient: str
    deterministic: bool
    independent: bool
    probabilities: bool

    @property
    def faults(self):
        """What makes results of attacks or evaluations doubtful, a list of sentences."""
        return [text for wrong, text in (
            (self.gradient != "nonzero", f"gradient {self.gradient}: gradient attacks measure nothing"),
            (not self.deterministic, "two passes differ: attack the average of several (attacks.expected_logits)"),
            (not self.independent, "an image's logits depend on the other images of its batch: is batch norm in training mode?"),
            (self.probabilities, "outputs are probabilities: attacks need logits")) if wrong]

    def __str__(self):
        h, w, c = self.image_shape
        return f"{self.num_classes} classes, images {h} x {w} x {c}, " + ("; ".join(self.faults) or "gradient nonzero, deterministic")


def check(fn, image_shape, num_classes, named):
    """`Checked` of a function [0, 1] images -> logits.

    Args:
        fn: a pytree with its weights.
        image_shape: (H, W, C).
        num_classes: expected number of logits; None: any of at least 2.
        named: what the errors call the classifier.

    Raises:
        TypeError, ValueError: the function fails on these images, or returns something other than finite logits (2, classes).
    """
    first, second = np.random.default_rng(0).random((2, *image_shape), np.float32)
    pair, twins = np.stack([first, second]), np.stack([first, first])
    shapes = f"images of shape {pair.shape}"
    try:
        out = jax.eval_shape(lambda f, x: f(x), fn, pair)
    except Exception as error:  # of any framework
        raise ValueError(f"{named} fails on {shapes}: {_first_line(error)}") from error
    if len(getattr(out, "shape", ())) != 2 or out.shape[0] != 2:
        raise ValueError(f"{named} returned {getattr(out, 'shape', type(out).__name__)} for {shapes}: expected logits (2, classes)")
    count = out.shape[1]
    if count < 2 or num_classes not in (None, count):
        raise ValueError(f"{named} has {count} classes: expected {'at least 2' if num_classes is None else f'num_classes={num_classes}'}")

    def with_gradient(f, x):
        (_, logits), gradient = jax.value_and_grad(lambda x: (lambda z: (z.max(-1).sum(), z))(f(x)), has_aux=True)(x)
        return logits, (gradient != 0).any(), jax.numpy.isfinite(gradient).all()
    try:
        run = jax.jit(with_gradient)
        logits, nonzero, finite = run(fn, pair)
        gradient = ("nonzero" if nonzero else "zero") if finite else "not finite"
    except Exception as error:
        run = jax.jit(lambda f, x: (f(x),))
        logits, gradient = run(fn, pair)[0], f"none: {_first_line(error)}"
    logits, again, beside = np.asarray(logits), np.asarray(run(fn, pair)[0]), np.asarray(run(fn, twins)[0])
    if not np.isfinite(logits).all():
        raise ValueError(f"{named} returned logits that are not finite for {shapes}")
    scale = SAME * max(float(np.abs(logits).max()), 1e-30)
    deterministic = bool(np.array_equal(logits, again))
    return Checked(tuple(image_shape), count, gradient, deterministic, not deterministic or bool(np.abs(beside[0] - logits[0]).max() <= scale),
                   bool(logits.min() >= 0 and np.abs(logits.sum(-1) - 1).max() < 1e-5))


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"
