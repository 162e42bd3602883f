"""The front door for anyone's classifier: stated preprocessing, checked on two images, accepted by every attack and evaluation."""
import functools
import sys
import warnings

import jax
from jax.tree_util import Partial

from vmamba_jax.bridges import frameworks
from vmamba_jax.bridges.checked import check
from vmamba_jax.bridges.preprocessing import Applied, Preprocessing
from vmamba_jax.core import checks


def classifier(model, variables=None, *, mean=None, std=None, bounds=(0, 1), num_classes=None, name=None, image_shape=None, layout=None):
    """A function of [0, 1] images (b, H, W, C) that returns logits (b, classes), for every attack and evaluation, from any kind of model.

    It is checked once on two images: shape of the logits, finite values, number of classes, gradient, determinism, and that an image's logits
    do not depend on its batch. One line on standard error says what was found; doubtful findings are warnings.

    Args:
        model: one of
            a Linen module, with its `variables`;
            an NNX module, whose weights are read at each use;
            an Equinox module, with a `layout`; its weights are those of now;
            a Haiku transform, with its parameters as `variables`, or (parameters, state);
            a torch module (`bridges.torch`, slow), whose weights are read at each use;
            a function of images, or of (variables, images);
            the path of a file of `checkpoints.export_model` or `jax.export`, or the loaded program;
            a `models.Classifier` with its `variables`, or a name of the catalog with its `variables`, both with preprocessing of their own.
            Modules are called in evaluation mode.
        variables: the weights; None for models that hold their own.
        mean, std: numbers, or one per channel, in the units of `bounds`; None: no normalization. Modules of the catalog's families need them.
        bounds: the model's pixel values for black and white, (0, 255) for a model of grey levels; mean and std apply after it.
        num_classes: expected number of classes; None: whatever the model returns.
        name: name of the classifier and its weights in saved results and state files, beside a digest of the weights; None: the digest only.
        image_shape: (H, W, C) for the check; None: stated by a catalog name or an exported program, else that of the first images.
        layout: axes of the model's input, "NHWC", "NCHW", or "HWC", "CHW" for a model of one image, which is mapped over the batch. None: "NCHW"
            for torch, "NHWC" for others, and an error for Equinox.

    Raises:
        TypeError, ValueError: a model of no known kind, missing or superfluous `variables`, preprocessing that contradicts the model's own, or a failed
            check; the message names the model.
    """
    if isinstance(model, CheckedClassifier):
        raise TypeError(f"model={model!r}: expected a model, not a classifier made of one")
    found = frameworks.read(model, variables, mean)
    layout = layout or found.layout
    if layout is None:
        raise ValueError(f"layout=None with a model of kind {found.kind}: expected 'CHW' for equinox.nn's layers, or another of HWC, NCHW, NHWC")
    stated = Preprocessing(mean, std, bounds, layout)
    if found.preprocessing is not None and stated not in (Preprocessing(), *([] if found.inside else [found.preprocessing])):
        raise ValueError(f"{stated} stated for {found.kind}: expected mean=None, std=None, bounds=(0, 1), as it has its own ({found.preprocessing})")
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"name={name!r}: expected a string, or None")
    if num_classes is not None:
        checks.count("num_classes", num_classes, 2)
    applied = Applied(found.apply, Preprocessing() if found.inside else found.preprocessing or stated)
    function = applied
    if frameworks.compiles(found.apply):
        # Equal functions share one compiled program; one that refers to an object of its own is freed with its classifier.
        function = jax.jit(applied) if isinstance(found.apply, (frameworks.Plain, frameworks.Program)) else _compiled(applied)
    made = CheckedClassifier(function, found.weights, _Facts(found.kind, name, found.preprocessing or stated, num_classes))
    shape = found.image_shape if image_shape is None else tuple(image_shape)
    if shape is not None:
        made.check(shape)
    return made


class CheckedClassifier:
    """Callable [0, 1] images (b, H, W, C) -> logits (b, classes); a pytree whose leaves are the weights. Made by `classifier`.

    Attributes:
        kind: what the model is, in words.
        name: as given, or None.
        preprocessing: what is done to the images.
        checked: `Checked`, what the check found; None before the first images.
        weights: the weights of now, a tree of arrays; empty for functions and torch modules.
    """

    def __init__(self, function, weights, facts):
        self._function, self._weights, self._facts = function, weights, facts

    kind = property(lambda self: self._facts.kind)
    name = property(lambda self: self._facts.name)
    preprocessing = property(lambda self: self._facts.preprocessing)
    checked = property(lambda self: self._facts.checked)
    num_classes = property(lambda self: self.checked.num_classes if self.checked else self._facts.num_classes, doc="Number of classes, or None.")
    weights = property(lambda self: self._weights() if callable(self._weights) else self._weights)
    partial = property(lambda self: Partial(self._function, self.weights), doc="The same function as a `jax.tree_util.Partial`.")

    def __call__(self, images):
        if self.checked is None and not checks.traced(images) and getattr(images, "ndim", 0) == 4:
            self.check(images.shape[1:])
        return self._function(self.weights, images)

    def check(self, image_shape):
        """`Checked` for images of `image_shape` (H, W, C); done once, prints one line to standard error, warns of doubtful findings.

        Raises:
            ValueError: the model does not return finite logits of the expected classes for such images.
        """
        if self.checked is None:
            if len(image_shape) != 3 or min(image_shape) < 1:
                raise ValueError(f"image_shape={tuple(image_shape)}: expected (height, width, channels), each at least 1")
            self._facts.checked = check(self.partial, image_shape, self._facts.num_classes, f"classifier {self.name or self.kind}")
            if jax.process_index() == 0:
                print(repr(self), file=sys.stderr)
            for fault in self.checked.faults:
                warnings.warn(f"classifier {self.name or self.kind}: {fault}", UserWarning, stacklevel=3)
        return self.checked

    def identity(self):
        """Text that other processes compute for the same classifier: its name, and a digest of its code and weights of now.

        None for a classifier without a name whose code no other process can recognize; with a name, the digest is then one of the weights.
        """
        from vmamba_jax.evaluation import identity
        digest, unknown = identity.of(self.partial)
        if unknown:
            return self.name and f"{self.name} {identity.of((self.weights, self.preprocessing))[0][:32]}"
        return f"{self.name or self.kind} {digest[:32]}"

    def __repr__(self):
        named = f"{self.name!r}, " if self.name else ""
        return f"classifier({named}{self.kind}; {self.preprocessing}; {self.checked or 'not checked yet: no image_shape'})"


class _Facts:
    """What a classifier is and was found to be. Equal to all others: facts are no part of a compiled program."""

    def __init__(self, kind, name, preprocessing, num_classes):
        self.kind, self.name, self.preprocessing, self.num_classes, self.checked = kind, name, preprocessing, num_classes, None

    def __eq__(self, other):
        return isinstance(other, _Facts)

    def __hash__(self):
        return 0


jax.tree_util.register_pytree_node(
    CheckedClassifier, lambda c: ((c.weights,), (c._function, c._facts)), lambda aux, children: CheckedClassifier(aux[0], children[0], aux[1]))


@functools.lru_cache(maxsize=64)
def _compiled(applied):
    return jax.jit(applied)
