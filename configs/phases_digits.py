"""Adversarial training in two phases of growing images against one phase of equal compute: a small VMamba on scikit-learn's digits, three seeds.

The shape of AdvXL's recipe (Wang et al., "Revisiting adversarial training at scale", arXiv 2401.04727), which trains on small images with few attack steps
first, at a size where nothing of its scale can be expected: 6 and 8 pixels, PGD-2 and PGD-5. A first phase of 4 pixels at twice the batch and learning
rate did not learn anything at this radius, and the phases after it did not recover.

    python -m experiments.sweep --config configs/phases_digits.py --workdir runs/phases_digits

Compute is the product of pixels, passes of the model (attack steps + 1) and epochs: 14 epochs of 36 pixels and 3 passes and 8 of 64 and 6, 4,584 in all;
or 12 of 64 and 6, 4,608. The phases were chosen on one run of another seed (100). Cost: about half a minute for each of the six runs on two CPU cores.
"""
from configs import base, digits, sweeps

PHASES = ({"epochs": 14, "size": 6, "attack": {"steps": 2, "step_size": 0.15}}, {"epochs": 8, "size": 8})
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
        about="VMambas of one architecture, trained adversarially on 8 x 8 images for 12 epochs, or on 6 x 6 and then 8 x 8 images with as many "
              "pixels times passes. Both are evaluated on 8 x 8 images.",
        claims=(("Two phases reach a higher accuracy under PGD than one of equal compute.", "phases", "single", "above"),))
