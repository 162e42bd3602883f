"""The training step of a detector: on a stand-in, and of a small Mask R-CNN that learns to find discs."""
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vmamba_jax
from vmamba_jax import attacks, evaluation, models, training
from vmamba_jax.data.annotations import encode_rle
from vmamba_jax.evaluation.detection import detections_of
from vmamba_jax.models.dense.detection import Proposals
from vmamba_jax.models.dense.detection_losses import Sampling
from vmamba_jax.models.dense.image_losses import image_losses
from vmamba_jax.training import objectives


class StandIn(nn.Module):
    """Two losses of one parameter, with the arguments of a detector's."""
    num_classes: int = 3

    def setup(self):
        self.w = self.param("w", nn.initializers.ones, ())
        self.seen = self.variable("batch_stats", "seen", jnp.zeros, ())

    def __call__(self, images):
        return self.w * images

    def losses(self, images, sizes=None, objects=None, samples=None, train=False):
        del samples
        if train and not self.is_initializing():
            self.seen.value += 1
        noise = jax.random.uniform(self.make_rng("sampling")) + 0 * jax.random.uniform(self.make_rng("dropout"))
        counted = jnp.where(objects["valid"], objects["labels"], 0).sum()
        return {"one": self.w * images.mean() * counted, "two": self.w**2 + noise + (0 if sizes is None else sizes.sum())}

    def pyramid(self, images):
        return self.w * images

    def proposed(self, maps, sizes):
        return jnp.zeros((len(maps), 1, 4)), jnp.ones((len(maps), 1), bool)

    def losses_of(self, maps, sizes, objects, samples=None, proposals=None, keys=None):
        sign = jnp.where(objects["labels"][:, 0] == 1, 1, -1)
        return {"one": sign * maps.mean((1, 2, 3)) + 0 * jax.vmap(jax.random.uniform)(keys)}


@pytest.fixture(scope="module")
def stand_in():
    return models.Classifier(StandIn(), mean=0.5, std=0.5)


def batch(n=2):
    return {"image": jnp.full((n, 8, 8, 3), 0.75), "boxes": jnp.zeros((n, 2, 4)), "labels": jnp.asarray([[1, 2]] * n), "masks": jnp.zeros((n, 2, 8, 8), bool),
            "valid": jnp.asarray([[True, False]] * n)}


def test_step(stand_in):
    """Gradient of the sum of the losses on normalized images, metrics of each, batch statistics, and other samples with another key."""
    optimizer = optax.sgd(0.1)
    step = objectives.detection(stand_in, optimizer)
    state = training.create_state(stand_in, optimizer, jax.random.key(0), (8, 8, 3))
    after, metrics = step(state, batch(), jax.random.key(1))
    assert float(after.params["w"]) == pytest.approx(1 - 0.1 * (0.5 * 2 + 2)) and float(after.model_state["batch_stats"]["seen"]) == 1
    assert float(metrics["one"]) == pytest.approx(1) and float(metrics["loss"]) == pytest.approx(float(metrics["one"] + metrics["two"]))
    assert {"loss", "one", "two", "grad_norm"} <= metrics.keys()
    _, others = step(state, batch(), jax.random.key(2))
    assert others["two"] != metrics["two"]
    renamed = {name.replace("labels", "classes"): x for name, x in batch().items()}
    _, same = step(state, renamed | {"label": jnp.zeros((2, 8, 8), int), "size": jnp.full((2, 2), 8)}, jax.random.key(1))
    assert float(same["two"]) == pytest.approx(float(metrics["two"]) + 32)


def test_adversarial_step(stand_in):
    """The update is at the images that ascend each image's own losses at the current weights, with the radius of the schedule; images of label 2 descend."""
    optimizer, given = optax.sgd(0.1), batch(3) | {"labels": jnp.asarray([[1, 2], [1, 2], [2, 2]])}
    attack = attacks.detection_pgd(0.1, 2, 0.1, random_start=False, bounds=(0, 1))
    step = objectives.detection(stand_in, optimizer, attack=attack, eps_schedule=lambda step: 0.5, scheduled=("eps",))
    state = training.create_state(stand_in, optimizer, jax.random.key(0), (8, 8, 3))
    _, metrics = step(state, given, jax.random.key(1))
    assert float(metrics["one"]) == pytest.approx((1 + 1 + 2) * ((0.8 + 0.8 + 0.7) / 3 - 0.5) / 0.5, rel=1e-4) and float(metrics["eps_scale"]) == 0.5
    _, clean = objectives.detection(stand_in, optimizer)(state, given | {"image": given["image"].at[:2].add(0.05).at[2].add(-0.05)}, jax.random.key(1))
    assert float(metrics["loss"]) == pytest.approx(float(clean["loss"]), rel=1e-4) and step.cost.forward_backward == 3
    with pytest.raises(ValueError, match="attack_mode='train': expected 'eval'"):
        objectives.detection(stand_in, optimizer, attack=attack, attack_mode="train")


@pytest.mark.parametrize("change,message", [({"weight": jnp.ones(2)}, 'batch with "weight": expected none'),
                                            ({"image": jnp.zeros((0, 8, 8, 3))}, "expected at least one image"),
                                            ({"image": jnp.zeros((3, 8, 8, 3))}, "accumulate=2: expected a divisor")])
def test_batch_errors(stand_in, change, message):
    step = objectives.detection(stand_in, optax.sgd(0.1), accumulate=2)
    with pytest.raises(ValueError, match=message):
        step.check_batch(batch() | change)
    with pytest.raises(ValueError, match="expected masks, valid too"):
        step.check_batch({name: x for name, x in batch().items() if name not in ("masks", "valid")})
    with pytest.raises(ValueError, match="augment=.*expected None"):
        objectives.detection(stand_in, optax.sgd(0.1), augment=lambda images, keys: images)


def discs(seed, n, side=64, most=3):
    """(batch, annotations in COCO's form) of n images with one to three colored discs on noise; the color is the class."""
    rng, colors = np.random.default_rng(seed), np.array([[0.9, 0.2, 0.2], [0.2, 0.9, 0.2]])
    images, y, x = rng.uniform(0.3, 0.5, (n, side, side, 3)), *np.mgrid[:side, :side]
    found = {"boxes": np.zeros((n, most, 4)), "labels": np.zeros((n, most), int), "masks": np.zeros((n, most, side, side), bool), "valid": np.zeros((n, most), bool)}
    truth = {"images": [{"id": i, "height": side, "width": side} for i in range(n)], "categories": [{"id": 0}, {"id": 1}], "annotations": []}
    for i in range(n):
        taken = np.zeros((side, side), bool)
        for j in range(rng.integers(1, most + 1)):
            radius = rng.uniform(6, 14)
            center = rng.uniform(radius, side - radius, 2)
            mask = (y + 0.5 - center[0])**2 + (x + 0.5 - center[1])**2 < radius**2
            if (mask & taken).any():
                continue
            taken |= mask
            label, rows, columns = int(rng.integers(2)), *np.nonzero(mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            images[i][mask] = colors[label] + rng.uniform(-0.1, 0.1, (mask.sum(), 3))
            for name, value in (("boxes", box), ("labels", label), ("masks", mask), ("valid", True)):
                found[name][i, j] = value
            truth["annotations"].append({"id": len(truth["annotations"]) + 1, "image_id": i, "category_id": label, "iscrowd": 0, "area": int(mask.sum()),
                                         "bbox": [int(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])], "segmentation": encode_rle(mask)})
    return {"image": np.clip(images, 0, 1).astype(np.float32), **found, "boxes": found["boxes"].astype(np.float32)}, truth


@pytest.mark.slow
def test_small_detector_learns():
    """Average precision of boxes and masks on images that were not trained on."""
    backbone = dict(dims=(8, 16, 24, 32), depths=(1, 1, 1, 1), drop_path_rate=0.0)
    model = vmamba_jax.create_model(
        "mask_rcnn_vmamba_tiny", backbone=backbone, num_classes=2, channels=24, rpn_channels=24, fc_channels=64, mask_channels=24, mask_depth=2,
        anchor_scale=4, finest=14, ratio=2).clone(
        proposals=Proposals(100, 50), training_proposals=Proposals(100, 50), rpn_sampling=Sampling(0.6, 0.3, 0.3, 64, 0.5),
        box_sampling=Sampling(0.5, 0.5, 0.5, 32, 0.25))
    detector, steps = models.Classifier(model, mean=0.4, std=0.2), 300
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, 40, steps)))
    step = objectives.detection(detector, optimizer)
    state = training.create_state(detector, optimizer, jax.random.key(0), (64, 64, 3))
    data, _ = discs(0, 256)
    data = {name: jnp.asarray(x) for name, x in data.items()}

    @jax.jit
    def run(state, key):
        def one(state, key):
            draw, key = jax.random.split(key)
            chosen = jax.random.choice(draw, 256, (4,), replace=False)
            return step(state, {name: x[chosen] for name, x in data.items()}, key)
        return jax.lax.scan(one, state, jax.random.split(key, 50))

    history = []
    for i in range(steps // 50):
        state, metrics = run(state, jax.random.key(i))
        history.append(float(metrics["loss"].mean()))
    assert history[-1] < 0.5 * history[0]
    images, truth = discs(1, 24)
    found = jax.jit(lambda x: model.apply(state.variables(), detector.normalize(x)))(jnp.asarray(images["image"]))
    detections = detections_of(found, list(range(24)), [(64, 64)] * 24)
    scores = {kind: evaluation.detection.coco_ap(truth, detections, kind) for kind in ("bbox", "segm")}
    attack = attacks.detection_pgd(8 / 255, 10)
    fn, objects = image_losses(detector, state.variables()), {name: jnp.asarray(images[name]) for name in ("boxes", "labels", "masks", "valid")}
    attacked = jax.jit(lambda x: attack(fn, x, objects, jax.random.key(2)))(jnp.asarray(images["image"]))
    assert float(jnp.abs(attacked - images["image"]).max()) <= 8 / 255 + 1e-6
    loss = jax.jit(lambda x: sum(fn(x, objects, jax.random.split(jax.random.key(3), 24))[0].values()))
    assert (loss(attacked) > loss(images["image"])).all()
    found = jax.jit(lambda x: model.apply(state.variables(), detector.normalize(x)))(attacked)
    under_attack = evaluation.detection.coco_ap(truth, detections_of(found, list(range(24)), [(64, 64)] * 24), "segm")
    assert under_attack.AP < scores["segm"].AP - 0.2
    assert scores["bbox"].AP50 > 0.8 and scores["segm"].AP50 > 0.8 and scores["bbox"].AP > 0.5 and scores["segm"].AP > 0.5
