"""Published recipes of one to three attack steps, for ImageNet at linf 4/255: PGD training with the attack their programs use."""
from vmamba_jax import attacks
from vmamba_jax.core import checks
from vmamba_jax.training.objectives.pgd_at import pgd_at

EPS = 4 / 255


def light(classifier, optimizer, *, eps_schedule, eps=EPS, steps=1, **options):
    """"A light recipe to train robust vision transformers" (Debenedetti et al. 2023): PGD of one step (two for XCiT-L12) of 1.5 eps / steps.

    eps_schedule: the radius, not the step, grows linearly over the first 10 epochs: `schedules.ramp(10 * steps_per_epoch)`.
    Their setting besides: crops and flips only, weight decay 0.5, drop path 0.05, AdamW at 5e-4 for 100 + 10 epochs.
    classifier, optimizer, options: as of `pgd_at`.
    """
    checks.require(eps_schedule is not None, "eps_schedule=None: expected a function of the step, such as schedules.ramp(10 * steps_per_epoch)")
    attack = attacks.pgd(eps, steps=steps, step_size=1.5 * eps / steps)
    return pgd_at(classifier, optimizer, attack=attack, eps_schedule=eps_schedule, scheduled=("eps",), **options)


def singh(classifier, optimizer, *, eps=EPS, steps=2, label_smoothing=0.1, **options):
    """"Revisiting adversarial training for ImageNet" (Singh et al. 2023): APGD of two steps from the image itself; its iterate of highest loss.

    Their setting besides: from a clean pretrained model, heavy augmentation, weight averaging, AdamW at 1e-3, weight decay 0.05.
    classifier, optimizer, options: as of `pgd_at`.
    """
    attack = attacks.apgd(eps, steps=steps, random_start=False, keep="highest_loss")
    return pgd_at(classifier, optimizer, attack=attack, label_smoothing=label_smoothing, **options)


def ares(classifier, optimizer, *, eps=EPS, steps=3, eps_schedule=None, **options):
    """"A comprehensive study on robustness of image classification models" (Liu et al. 2023, ARES): PGD of three steps of 2 eps / 3.

    eps_schedule: in their program the step size, not the radius, grows linearly over the first 5 epochs.
    Their program keeps each image's worst iterate, here the last counts; for Swin-B it trains with mixup 0.8, cutmix 1, RandAugment, weight
    averaging 0.9998, AdamW at 5e-4, weight decay 0.05, for 300 epochs. classifier, optimizer, options: as of `pgd_at`.
    """
    attack = attacks.pgd(eps, steps=steps, step_size=2 * eps / steps)
    return pgd_at(classifier, optimizer, attack=attack, eps_schedule=eps_schedule, scheduled=("step_size",), **options)
