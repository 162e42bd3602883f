"""Object detection and instance segmentation: the sum of a detector's losses on the batch's images, or on those that an attack makes of them."""
import jax

from vmamba_jax.models.dense.detection_losses import OBJECTS
from vmamba_jax.models.dense.image_losses import image_losses, padded
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.inner_attack import InnerAttack
from vmamba_jax.training.objectives.step import Cost, Outcome, Rule, Step, descend, make_step


def detection(detector, optimizer, *, attack=None, **options):
    """A step of a detector on batches {"image" (b, H, W, C) in [0, 1], "boxes" (b, g, 4), "labels" or "classes" (b, g), "masks" (b, g, H, W), "valid" (b, g)}.

    With `attack` it is one of adversarial training on the attacked images (PGD-AT). "size" (b, 2), if the batch has it, is the height and width of
    each image without its padding. The step's metrics: loss, each of the detector's losses, grad_norm, learning_rate; eps_scale with a schedule. A
    device's losses are means over its own samples, and their gradients are averaged over the devices.

    Args:
        detector: `models.Classifier` around a `MaskRCNN`; anchors and proposals are sampled with the step's key.
        optimizer: optax transformation.
        attack: None; an attack on detection, such as `attacks.detection_pgd`, or an `InnerAttack` in mode "eval". It sees each image's own losses at
            the current weights.
        **options: eps_schedule, scheduled: see `InnerAttack`, only with an attack; ema_decay, ema_warmup, accumulate, see `step.Step`. augment and mix
            change images alone, so they must be None.

    Source: MMDetection's TwoStageDetector; the adversarial one: Zhang & Wang 2019, arXiv 1907.10310, with one attack on the sum of the losses.
    """
    for name in ("augment", "mix"):
        if options.get(name) is not None:
            raise ValueError(f"{name}={options[name]!r}: expected None, as it changes images without their boxes and masks; use a joint transform of the data")

    prepare, attack_cost = None, Cost
    if attack is not None:
        inner, options = InnerAttack.from_options(attack, options)
        if inner.attack_mode != "eval":
            raise ValueError(f"attack_mode={inner.attack_mode!r}: expected 'eval' for a detector")
        attack_cost = inner.cost

        def prepare(state, batch, keys):
            scaled, metrics = inner.scaled(state)
            fn = image_losses(detector, {"params": state.params, **state.model_state})
            objects = {name: batch[name] for name in (*OBJECTS, "size") if name in batch}
            return {**batch, "image": scaled(fn, batch["image"], objects, keys.attack)}, metrics

    def loss(params, state, batch, keys):
        dropout, sampling = jax.random.split(keys.dropout)
        collections = list(state.model_state)
        found = detector.model.apply({"params": params, **state.model_state}, padded(detector.normalize(batch["image"]), batch.get("size")), batch.get("size"),
                                     objects={name: batch[name] for name in OBJECTS}, train=True, method="losses",
                                     rngs={"dropout": dropout, "sampling": sampling}, mutable=collections or False)
        parts, updates = found if collections else (found, {})
        return sum(parts.values()), Outcome({**state.model_state, **updates}, parts, state.carry)

    rule = Rule(gradient=descend(loss), prepare=prepare, attack_cost=attack_cost, classes=losses.number_of_classes(detector))
    return make_step(optimizer, rule, kind=DetectionStep, **options)


class DetectionStep(Step):
    """A `Step` whose targets are objects."""

    def check_batch(self, batch):
        """Raise a ValueError unless a batch has the objects of its images; the detector checks their shapes and classes."""
        n = len(batch["image"])
        if not n:
            raise ValueError(f'batch["image"].shape={batch["image"].shape}: expected at least one image')
        if n % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate}: expected a divisor of the device's {n} images")
        if "weight" in batch:
            raise ValueError('batch with "weight": expected none, as losses are means over the samples of all images; leave an incomplete batch out')
        if missing := [name for name in OBJECTS if name not in named(batch)]:
            raise ValueError(f"batch with {', '.join(batch)}: expected {', '.join(missing)} too")

    def enter(self, batch, key, axis_name):
        self.check_batch(batch)
        return named(batch), losses.step_keys(key, len(batch["image"]), axis_name)


def named(batch):
    """The batch with its objects' "classes", if it has them, as "labels"."""
    return {**batch, "labels": batch["classes"]} if "classes" in batch else batch
