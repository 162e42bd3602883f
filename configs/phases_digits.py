"""Adversarial training in three phases of growing images against one phase of equal compute: a small VMamba on scikit-learn's digits, three seeds.

The shape of AdvXL's recipe (Wang et al., "Revisiting adversarial training at scale", arXiv 2401.04727), which trains on small images with few attack steps
first, at a size where nothing of its scale can be expected: 4, 6 and 8 pixels, PGD-2, PGD-3 and PGD-5.

    python -m experiments.sweep --config configs/phases_digits.py --workdir runs/phases_digits

Compute is the product of pixels, passes of the model (attack steps + 1) and epochs, 4,608 for each group: 24 epochs of 16 pixels and 3 passes, 8 of 36 and 4,
6 of 64 and 6; or 12 of 64 and 6. Cost: about half a minute for each of the six runs on two CPU cores.
"""
from configs import base, digits, sweeps

PHASES = ({"epochs": 24, "size": 4, "batch_size": 128, "learning_rate": 6e-3, "attack": {"steps": 2, "step_size": 0.15}},
          {"epochs": 8, "size": 6, "attack": {"steps": 3, "step_size": 0.12}},
          {"epochs": 6, "size": 8, "learning_rate": 3e-3})
EPOCHS = 12  # of the single phase


def get_config(arg=None):
    """Argument: `seeds=3`, the number of seeds, from 0."""
    arg = base.parse_arg(arg, seeds=3)
    config = digits.get_config("objective=pgd_at")
    config.epochs, config.objective.ramp = EPOCHS, 0.25
    config.validation.update(every_epochs=3)
    config.evaluation.update(base.evaluation(0.2, (0.0, 0.1, 0.2, 0.3), steps=10, restarts=2, batch_size=180))
    config.evaluation.states = {"images": 0}
    return sweeps.sweep(
        config, seeds=range(arg["seeds"]), control="single", runs={"single": {}, "phases": {"epochs": 0, "phases": PHASES}},
        title="Growing images and attacks against one phase of equal compute: a small VMamba on handwritten digits",
        about="VMambas of one architecture, trained adversarially on 8 x 8 images for 12 epochs, or on 4 x 4, 6 x 6 and 8 x 8 images in turn with as many "
              "pixels times passes. Both are evaluated on 8 x 8 images.",
        claims=(("Three phases reach a higher accuracy under PGD than one of equal compute.", "phases", "single", "above"),))
