"""Published ImageNet recipes at linf 4/255 of one to three attack steps: `pgd_at` with the attacks of their programs."""
from vmamba_jax import attacks
from vmamba_jax.training.objectives.pgd_at import pgd_at

EPS = 4 / 255


def light(classifier, optimizer, *, eps_schedule, eps=EPS, steps=1, **options):
    """`pgd_at` with PGD of one step (two for XCiT-L12) of 1.5 eps / steps.

    Not set here: crops and flips only, weight decay 0.5, drop path 0.05, AdamW at 5e-4 for 100 + 10 epochs.

    Args:
        classifier, optimizer: as of `pgd_at`.
        eps_schedule: the radius, not the step size, grows linearly over the first 10 epochs: `schedules.ramp(10 * steps_per_epoch)`.
        eps: linf radius, in pixel units.
        steps: of the attack, >= 1.
        **options: as of `pgd_at`.

    Source: "A light recipe to train robust vision transformers", Debenedetti et al. 2023.
    """
    if eps_schedule is None:
        raise ValueError("eps_schedule=None: expected a function of the step, such as schedules.ramp(10 * steps_per_epoch)")
    attack = attacks.pgd(eps, steps=steps, step_size=1.5 * eps / steps)
    return pgd_at(classifier, optimizer, attack=attack, eps_schedule=eps_schedule, scheduled=("eps",), **options)


def singh(classifier, optimizer, *, eps=EPS, steps=2, label_smoothing=0.1, **options):
    """`pgd_at` with APGD of two steps from the clean image, which returns its iterate of highest loss.

    Not set here: a clean pretrained model to begin with, heavy augmentation, weight averaging, AdamW at 1e-3, weight decay 0.05.

    Args:
        classifier, optimizer: as of `pgd_at`.
        eps: linf radius, in pixel units.
        steps: of the attack, >= 1.
        label_smoothing: in [0, 1).
        **options: as of `pgd_at`.

    Source: "Revisiting adversarial training for ImageNet", Singh et al. 2023.
    """
    attack = attacks.apgd(eps, steps=steps, random_start=False, keep="highest_loss")
    return pgd_at(classifier, optimizer, attack=attack, label_smoothing=label_smoothing, **options)


def ares(classifier, optimizer, *, eps=EPS, steps=3, eps_schedule=None, **options):
    """`pgd_at` with PGD of three steps of 2 eps / 3.

    The released program keeps each image's worst iterate; here the last one is used. Not set here, for Swin-B: mixup 0.8, CutMix 1,
    RandAugment, weight averaging 0.9998, AdamW at 5e-4, weight decay 0.05, 300 epochs.

    Args:
        classifier, optimizer: as of `pgd_at`.
        eps: linf radius, in pixel units.
        steps: of the attack, >= 1.
        eps_schedule: in the released program the step size, not the radius, grows linearly over the first 5 epochs.
        **options: as of `pgd_at`.

    Source: "A comprehensive study on robustness of image classification models" (ARES), Liu et al. 2023.
    """
    attack = attacks.pgd(eps, steps=steps, step_size=2 * eps / steps)
    return pgd_at(classifier, optimizer, attack=attack, eps_schedule=eps_schedule, scheduled=("step_size",), **options)
