"""AutoAttack: a sequence of searches, each on the images that are still robust."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.attacks import randomized
from vmamba_jax.attacks.autoattack.apgd import APGD
from vmamba_jax.attacks.autoattack.fab import FAB
from vmamba_jax.attacks.autoattack.pma import PMA
from vmamba_jax.attacks.autoattack.search import Search
from vmamba_jax.attacks.autoattack.square import Square
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core import checks
from vmamba_jax.core.keys import fold_in
from vmamba_jax.core.records import record

VERSIONS = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
    "pma+": ("pma", "apgd-t"),
}


def check_stages(stages, images, classes, random=False):
    """Raise an error if any stage of an attack cannot run on a classifier, which would otherwise show after hours of the earlier ones.

    Args:
        stages: [(name, attack), ...].
        images: `jax.ShapeDtypeStruct` of a batch.
        classes: number of classes.
        random: whether the classifier is `Randomized`.

    Raises:
        ValueError, TypeError: the stage's own error, after its name.
    """
    for name, stage in stages:
        try:
            _check(stage, images, classes, random)
        except (ValueError, TypeError) as error:
            raise type(error)(f"stage {name}: {error}") from error


def _check(stage, images, classes, random):
    """Trace an attack on a stand-in classifier, which costs a fraction of the model's own trace."""
    def logits_fn(images, *_):
        return images.mean((1, 2, 3))[:, None] * jnp.arange(1, classes + 1)
    subject = randomized.Randomized(logits_fn) if random else logits_fn
    labels, keys = (jax.ShapeDtypeStruct(images.shape[:1], dtype) for dtype in (jnp.int32, jax.random.key(0).dtype))
    jax.eval_shape(lambda images, labels, keys: stage(subject, images, labels, keys), images, labels, keys)


@record("eps")
class AutoAttack(Search):
    """AutoAttack with the reference program's stages and defaults.

    Per image it returns the first misclassified image of any stage, or the clean image if there is none or if it is misclassified already.
    A stage ends once every image of the batch is misclassified; `evaluation.robust_accuracy` runs the stages over a set on the images that
    are still robust.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        norm: "linf", "l2" or "l1".
        version: "standard"; "plus", with more restarts and untargeted stages; "rand", for `Randomized` classifiers; "pma+", the probability
            margin attack and then targeted APGD (Xie et al. 2024, arXiv 2411.15210).
        n_targets: number of classes that the targeted stages attack towards; None: as the reference, 9 (in l1 5 for APGD of "standard"). A
            classifier of n < 10 classes needs n_targets <= n - 1; the error comes before any work.
        steps: gradient steps of a run of APGD, FAB and PMA.
        queries: queries of Square.
        eot: number of gradients averaged at each iterate, version "rand" only.
        bounds: lowest and highest value of a pixel.

    Source: Croce & Hein 2020, section 5; in l1 Croce & Hein 2021.
    """
    eps: float
    norm: str = "linf"
    version: str = "standard"
    _: dataclasses.KW_ONLY
    n_targets: int | None = None
    steps: int = 100
    queries: int = 5000
    eot: int = 20
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "autoattack"
    needs_key = "its searches start at random points"

    def __post_init__(self):
        super().__post_init__()
        checks.choice("version", self.version, tuple(VERSIONS))
        if self.n_targets is not None:
            self._set(n_targets=checks.count("n_targets", self.n_targets))
        self._set(**{name: checks.count(name, getattr(self, name)) for name in ("steps", "queries", "eot")})
        self.stages()  # checks the fields they use

    def stages(self):
        """[(name, attack), ...] in the order they run; stage s uses the keys `fold_in(keys, s)`."""
        many, radii = self.version == "plus", self.norm == "l1" and self.version == "standard"
        common = {"eps": self.eps, "norm": self.norm, "bounds": self.bounds}
        apgd = common | {"steps": self.steps, "large_eps": radii}
        untargeted = apgd | {"restarts": 5 if many or radii else 1, "eot": self.eot if self.version == "rand" else 1}
        fab = common | {"steps": self.steps, "keep": "first_hit"}
        make = {
            "apgd-ce": lambda: APGD(**untargeted),
            "apgd-dlr": lambda: APGD(**untargeted, loss="dlr"),
            "apgd-t": lambda: APGD(**apgd, loss="dlr_targeted", n_targets=self.n_targets or (5 if radii else 9)),
            "pma": lambda: PMA(**common, steps=self.steps),
            "fab": lambda: FAB(**fab, restarts=5),
            "fab-t": lambda: FAB(**fab, n_targets=self.n_targets or 9),
            "square": lambda: Square(**common, queries=self.queries),
        }
        return [(name, make[name]()) for name in VERSIONS[self.version]]

    def search(self, logits_fn, images, labels, keys, clean, active):
        if isinstance(logits_fn, randomized.Randomized) and self.version != "rand":
            raise TypeError(f"version={self.version!r} with a Randomized logits_fn: expected version='rand'")
        stages = self.stages()
        check_stages(stages, jax.ShapeDtypeStruct(images.shape, images.dtype), clean.shape[1], isinstance(logits_fn, randomized.Randomized))
        adversarial, success = images, active & False
        for s, (_, attack) in enumerate(stages):
            found, now = attack.search(logits_fn, images, labels, fold_in(keys, s), clean, active & ~success)
            adversarial, success = jnp.where(per_image(now, images), found, adversarial), success | now
        return adversarial, success


autoattack = AutoAttack
