"""PGD with the start of the programs released with arXiv 2406.05532, which add it twice."""
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax import attacks
from vmamba_jax.attacks.losses import ascent_gradient, objective
from vmamba_jax.core.records import record


@record("eps", "step_size")
class ReleasedPGD(attacks.PGD):
    """PGD in linf whose gradients are taken beside the images that it returns, for comparison with numbers measured so.

    The random start d0 is added to the images (then clipped to the box) and is also the first perturbation d: gradients are taken at
    clip(clip(x + d0) + d), the result is clip(x + d). Fields as of `attacks.pgd`; norm "linf", one run.
    """
    name = "released_pgd"

    def __post_init__(self):
        super().__post_init__()
        if self.norm != "linf" or self.restarts > 1 or not self.random_start:
            raise ValueError(f"norm={self.norm!r}, restarts={self.restarts}, random_start={self.random_start}: the released PGD has "
                             "norm='linf', restarts=1, random_start=True")

    def run(self, logits_fn, images, labels, keys):
        lower, upper = self.bounds
        eps, size = jnp.asarray(self.eps, images.dtype), jnp.asarray(self.step_size, images.dtype)
        if callable(self.start):
            first = self.start(images, keys) - images
        else:
            first = eps * jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype, -1, 1))(keys)
        base = jnp.clip(images + first, lower, upper)
        judge = objective(logits_fn, labels, self.loss, self.targeted)
        gradient = ascent_gradient(lambda x: judge(jnp.clip(x, lower, upper)))
        d = lax.fori_loop(0, self.steps, lambda _, d: jnp.clip(d + size * jnp.sign(gradient(base + d)), -eps, eps), first)
        return jnp.clip(images + d, lower, upper)
