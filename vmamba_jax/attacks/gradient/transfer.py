"""PGD for transfer to other models: momentum, look-ahead, input diversity, scales, translations, variance tuning, in any combination."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.base import Passes, worst_of
from vmamba_jax.attacks.gradient import input_diversity as gradients
from vmamba_jax.attacks.gradient.pgd import PGD
from vmamba_jax.attacks.norms import unit
from vmamba_jax.core import checks
from vmamba_jax.core.keys import fold_in, per_image_keys
from vmamba_jax.core.records import record

TRANSFER = {
    "mi_fgsm": dict(decay=1.0),
    "ni_fgsm": dict(decay=1.0, nesterov=True),
    "si_ni_fgsm": dict(decay=1.0, nesterov=True, scales=5),
    "di_fgsm": dict(diversity=0.5),
    "ti_fgsm": dict(diversity=0.5, kernel="gaussian"),
    "vmi_fgsm": dict(decay=1.0, neighbors=5),
    "vni_fgsm": dict(decay=1.0, nesterov=True, neighbors=5),
}
"""The published attacks as options of `transfer_pgd`, with torchattacks' defaults (all with eps 8/255, 10 steps of 2/255, linf)."""
_PGD_FIELDS = {field.name for field in dataclasses.fields(PGD)}


@record("eps", "step_size", "decay")
class TransferPGD(PGD):
    """PGD with gradients that transfer between models; with the defaults of the transfer options it is PGD without a random start.

    One step: m <- decay * m + g / mean|g|, a steepest ascent step along m, projection. `transfer_pgd(eps, 10, **TRANSFER["vmi_fgsm"])` is a
    published attack. Combined options give the gradient g as the mean over `scales` copies through the random resizing, plus the variance
    term, smoothed by the kernel.

    Args:
        decay: weight >= 0 of the accumulated gradients, 1 in the papers (MI-FGSM, Dong et al. 2018, algorithm 1). May be traced.
        accumulate: what m sums up: "gradients", each divided by its mean magnitude, as in the papers and torchattacks, or "steps", the unit
            steps that plain PGD would take (in linf the signs), as foolbox does.
        nesterov: take the gradient at x + decay * step_size * m (NI, Lin et al. 2020, equation 6).
        scales: number of copies x, x / 2, x / 4, ... over which the gradient is averaged (SI, same paper).
        diversity: probability that an image is resized and padded before the model sees it, drawn per image and gradient (DI, Xie et
            al. 2019).
        resize_rate: < 1: shrink to between this fraction of the size and the full size, and pad back; > 1: enlarge up to it, as in the
            paper (330 / 299), if the model accepts other sizes.
        kernel: None, "gaussian", "linear" or "uniform": smooth the gradient with it (TI, Dong et al. 2019).
        kernel_size: odd side of the kernel in pixels.
        kernel_sigma: standard deviations of the Gaussian within half a side.
        neighbors: number of points around x whose mean gradient minus g is added to the next g (VMI, VNI: Wang & He 2021); 0: none.
        neighborhood: radius of the ball of neighbors in units of eps; neighbors may leave the box.
        eps, steps, step_size, norm, random_start, start, restarts, loss, targeted, l1_fraction, projection, bounds: see `pgd`.
    """
    random_start: bool = False
    _: dataclasses.KW_ONLY
    decay: float = 0.0
    accumulate: str = "gradients"
    nesterov: bool = False
    scales: int = 1
    diversity: float = 0.0
    resize_rate: float = 0.9
    kernel: str | None = None
    kernel_size: int = 15
    kernel_sigma: float = 3.0
    neighbors: int = 0
    neighborhood: float = 1.5

    name = "transfer_pgd"

    def __post_init__(self):
        super().__post_init__()
        self._set(decay=checks.number("decay", self.decay, low=0), nesterov=checks.flag("nesterov", self.nesterov),
                  scales=checks.count("scales", self.scales), kernel_size=checks.count("kernel_size", self.kernel_size),
                  neighbors=checks.count("neighbors", self.neighbors, 0), diversity=checks.number("diversity", self.diversity, 0, 1))
        for name in ("resize_rate", "kernel_sigma", "neighborhood"):
            self._set(**{name: checks.number(name, getattr(self, name), low=0)})
        if self.resize_rate in (0, 1):
            raise ValueError(f"resize_rate={self.resize_rate:g}: expected a positive number other than 1")
        checks.choice("accumulate", self.accumulate, ("gradients", "steps"))
        checks.choice("kernel", self.kernel, (None, *gradients.KERNELS))
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={self.kernel_size}: expected an odd number")

    @property
    def needs_key(self):
        return f"diversity={self.diversity:g}, neighbors={self.neighbors}" if self.diversity or self.neighbors else super().needs_key

    @property
    def passes(self):
        passes = super().passes
        return Passes(passes.forward_backward * self.scales * (1 + self.neighbors), passes.forward)

    @property
    def published(self):
        """The name in `TRANSFER` of the attack with these transfer options, such as "mi_fgsm"; None: none of them."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(TransferPGD) if field.name not in _PGD_FIELDS}
        defaults = {field.name: field.default for field in dataclasses.fields(TransferPGD) if field.name not in _PGD_FIELDS}
        return next((name for name, given in TRANSFER.items() if defaults | given == options), None)

    def run(self, logits_fn, images, labels, keys):
        keys = per_image_keys(jax.random.key(0), len(images)) if keys is None else keys  # unused: `needs_key` is None
        threat, evaluate, _, direction = self._tools(logits_fn, labels)
        gradient, smooth = self._gradient(logits_fn, labels), self._smooth()
        around = gradients.neighbors_mean(gradient, threat, self.neighborhood, self.neighbors) if self.neighbors else None
        size, decay = jnp.asarray(self.step_size, images.dtype), jnp.asarray(self.decay, images.dtype)

        def scaled(g, x):
            return direction(g, x) if self.accumulate == "steps" else unit(g, "l1") * images[0].size

        def ascend(start, keys):
            def step(i, state):
                x, m, variance = state
                here, there = (fold_in(fold_in(keys, i), which) for which in (0, 1))
                g = gradient(x + decay * size * m if self.nesterov else x, here)
                m = decay * m + scaled(smooth(g + variance), x)
                variance = around(x, there) - g if around else variance
                return threat.project(images, x + size * direction(m, x)), m, variance
            return lax.fori_loop(0, self.steps, step, (start, 0 * images, 0 * images))[0]

        if not self.random_start:
            return ascend(images, keys)
        return worst_of(lambda keys: ascend(self._start(images, keys), keys), evaluate, images, keys, self.restarts)

    def _gradient(self, logits_fn, labels):
        """gradient(x, keys) through the random resizing, averaged over the scaled copies."""
        shown = gradients.diverse(logits_fn, self.resize_rate, self.diversity) if self.diversity else lambda x, keys: logits_fn(x)

        def gradient(x, keys):
            return losses.ascent_gradient(losses.objective(lambda x: shown(x, keys), labels, self.loss, self.targeted))(x)
        return gradients.over_scales(gradient, self.scales) if self.scales > 1 else gradient

    def _smooth(self):
        return gradients.smoother(self.kernel, self.kernel_size, self.kernel_sigma) if self.kernel else lambda g: g


def momentum_pgd(eps, steps, step_size=None, norm="linf", random_start=False, *, decay=1.0, accumulate="gradients", restarts=1,
                 start="uniform", loss="cross_entropy", targeted=False, l1_fraction=0.01, projection="nearest", bounds=(0.0, 1.0)):
    """PGD with momentum (MI-FGSM): `transfer_pgd` with decay=1. The arguments are those of `transfer_pgd`.

    The paper takes linf, no random start and step_size = eps / steps.

    Source: Dong et al. 2018, algorithm 1.
    """
    return TransferPGD(eps, steps, step_size, norm, random_start, decay=decay, accumulate=accumulate, restarts=restarts, start=start,
                       loss=loss, targeted=targeted, l1_fraction=l1_fraction, projection=projection, bounds=bounds)


transfer_pgd = TransferPGD
