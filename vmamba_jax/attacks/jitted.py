"""The compiled form of an attack for one classifier, whatever kind of callable the classifier is."""
import jax
from jax.tree_util import Partial

from vmamba_jax.attacks.randomized import Randomized
from vmamba_jax.core import checks, closures


class JittedAttack:
    """Compiled function `(images, labels, key=None, **inputs) -> adversarial` of an attack and a classifier; made by `attack.jit(logits_fn)`.

    Arguments, result and errors are those of the attack, and labels that are no classes of the classifier are errors too. Inside `jax.jit`,
    `jax.vmap` and `jax.grad` it is the attack itself.

    Attributes:
        attack: the attack.
        logits_fn: the classifier.
    """

    def __init__(self, attack, logits_fn):
        if not callable(logits_fn):
            raise TypeError(f"logits_fn={logits_fn!r}: expected a function of images")
        self.attack, self.logits_fn = attack, logits_fn
        self._classes, self._compiled, self._programs = {}, None, closures.Programs()

    def __call__(self, images, labels, key=None, **inputs):
        if any(map(checks.traced, jax.tree.leaves((images, labels, key, inputs)))):
            return self.attack(self.logits_fn, images, labels, key, **inputs)
        checks.batch(images, labels, *self.attack.bounds)
        if not len(images):
            return images
        fn = closures.argument(self.logits_fn, images.shape[1:])
        constant = closures.all_constant((self.attack, fn))
        fn = fn if jax.tree.leaves(fn) else Partial(self._classify)
        self._check_classes(fn, images, labels)
        args = fn, images, labels, key, inputs
        if not constant:
            return self._programs.get(self._jitted(), *args)(*args)
        self._compiled = self._compiled or self._jitted()
        return self._compiled(*args)

    def __repr__(self):
        return f"{self.attack!r}.jit({self.logits_fn!r})"

    def _classify(self, images, *keys):
        return self.logits_fn(images, *keys)

    def _jitted(self):
        return jax.jit(lambda logits_fn, images, labels, key, inputs: self.attack(logits_fn, images, labels, key, **inputs))

    def _check_classes(self, fn, images, labels):
        if isinstance(self.logits_fn, Randomized):
            return
        if images.shape not in self._classes:
            self._classes[images.shape] = getattr(jax.eval_shape(lambda fn, x: fn(x), fn, images), "shape", ())[-1:]
        checks.classes(labels, len(images), *self._classes[images.shape])
