"""PGD made to transfer to other models: momentum, look-ahead, input diversity, scales, translations, variance tuning, in any combination."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.gradient import input_diversity as gradients
from vmamba_jax.attacks.gradient.pgd import PGD
from vmamba_jax.attacks.restarts import worst_of
from vmamba_jax.core import checks
from vmamba_jax.core.keys import fold_in, per_image_keys
from vmamba_jax.core.records import record

TRANSFER = {
    "mi_fgsm": dict(decay=1.0),
    "ni_fgsm": dict(decay=1.0, nesterov=True),
    "si_ni_fgsm": dict(decay=1.0, nesterov=True, scales=5),
    "di_fgsm": dict(diversity=0.5),
    "ti_fgsm": dict(diversity=0.5, kernel="gaussian"),
    "vmi_fgsm": dict(decay=1.0, neighbours=5),
    "vni_fgsm": dict(decay=1.0, nesterov=True, neighbours=5),
}
"""The published attacks as options of `transfer_pgd`, with torchattacks' defaults (all with eps 8/255, 10 steps of 2/255, linf)."""


@record("eps", "step_size", "decay")
class TransferPGD(PGD):
    """m <- decay * m + g / mean|g|, a steepest ascent step along m, projection; with all switches off, PGD without a random start.

    `transfer_pgd(eps, 10, **TRANSFER["vmi_fgsm"])` is a published attack; options of several combine: the gradient g is the mean over
    `scales` copies of that through the random resizing, plus the variance term, smoothed by the kernel.

    Args:
        decay: weight >= 0 of the accumulated gradients, 1 in the papers (MI, Dong et al. 2018). May be traced.
        nesterov: take the gradient at x + decay * step_size * m (NI, Lin et al. 2020, equation 6).
        scales: copies x, x / 2, x / 4, ... over which the gradient is averaged (SI, same paper).
        diversity: probability of resizing and padding an image before it is shown, drawn anew per image and gradient (DI, Xie et al. 2019).
        resize_rate: < 1: shrink to between this share of the size and all of it, and pad back; > 1: enlarge up to it, as in the paper
            (330 / 299), where the model accepts other sizes.
        kernel: None, "gaussian", "linear" or "uniform": the gradient is smoothed by it (TI, Dong et al. 2019).
        kernel_size: its odd side in pixels. kernel_sigma: standard deviations of the Gaussian within half a side.
        neighbours: points around x whose mean gradient less g is added to the next g (VMI, VNI: Wang & He 2021); 0: none.
        neighbourhood: radius of the neighbours' ball in units of eps. They may leave the box.
        eps, steps, step_size, norm, random_start, restarts, loss, targeted, l1_fraction, projection, bounds: as of `pgd`.
    """
    random_start: bool = False
    _: dataclasses.KW_ONLY
    decay: float = 0.0
    nesterov: bool = False
    scales: int = 1
    diversity: float = 0.0
    resize_rate: float = 0.9
    kernel: str | None = None
    kernel_size: int = 15
    kernel_sigma: float = 3.0
    neighbours: int = 0
    neighbourhood: float = 1.5

    name = "transfer_pgd"

    def __post_init__(self):
        super().__post_init__()
        self._set(decay=checks.number("decay", self.decay, low=0), nesterov=checks.flag("nesterov", self.nesterov),
                  scales=checks.count("scales", self.scales), kernel_size=checks.count("kernel_size", self.kernel_size))
        for name in ("diversity", "resize_rate", "kernel_sigma", "neighbourhood"):
            self._set(**{name: checks.number(name, getattr(self, name), low=0)})
        if self.diversity > 1:
            raise ValueError(f"diversity={self.diversity:g}: expected a probability in [0, 1]")
        if self.resize_rate in (0, 1):
            raise ValueError(f"resize_rate={self.resize_rate:g}: expected a positive share other than 1")
        checks.choice("kernel", self.kernel, (None, *gradients.KERNELS))
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size}: expected an odd number")
        if self.neighbours != 0:
            self._set(neighbours=checks.count("neighbours", self.neighbours))

    @property
    def draws(self):
        return f"diversity={self.diversity:g}, neighbours={self.neighbours}" if self.diversity or self.neighbours else super().draws

    def run(self, logits_fn, images, labels, keys):
        keys = per_image_keys(jax.random.key(0), len(images)) if keys is None else keys  # nothing is drawn from them
        threat, evaluate, _, direction = self._tools(logits_fn, labels)
        gradient, smooth = self._gradient(logits_fn, labels), self._smooth()
        around = gradients.neighbours_mean(gradient, threat, self.neighbourhood, self.neighbours) if self.neighbours else None
        size, decay = jnp.asarray(self.step_size, images.dtype), jnp.asarray(self.decay, images.dtype)

        def climb(start, keys):
            def step(i, state):
                x, m, variance = state
                here, there = (fold_in(fold_in(keys, i), which) for which in (0, 1))
                g = gradient(x + decay * size * m if self.nesterov else x, here)
                m = decay * m + gradients.mean_one(smooth(g + variance))
                variance = around(x, there) - g if around else variance
                return threat.project(images, x + size * direction(m, x)), m, variance
            return lax.fori_loop(0, self.steps, step, (start, 0 * images, 0 * images))[0]

        if not self.random_start:
            return climb(images, keys)
        return worst_of(lambda keys: climb(threat.random_start(images, keys), keys), evaluate, images, keys, self.restarts)

    def _gradient(self, logits_fn, labels):
        """gradient(x, keys) through the random resizing, averaged over the scaled copies."""
        shown = gradients.diverse(logits_fn, self.resize_rate, self.diversity) if self.diversity else lambda x, keys: logits_fn(x)

        def gradient(x, keys):
            return losses.ascent_gradient(losses.objective(lambda x: shown(x, keys), labels, self.loss, self.targeted))(x)
        return gradients.over_scales(gradient, self.scales) if self.scales > 1 else gradient

    def _smooth(self):
        return gradients.smoother(self.kernel, self.kernel_size, self.kernel_sigma) if self.kernel else lambda g: g


transfer_pgd = TransferPGD
