"""The programs of a device check: functions of one tree of arrays, with the shapes of the tree and what is recorded about them."""
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import pallas_kernels
from experiments.device_checks import map_plans, rivals
from vmamba_jax import attacks, create_model, data, models, parallel, training

BACKENDS = {"cuda": "pallas_gpu", "tpu": "pallas_tpu", "cpu": "xla"}
FORWARD, GRADIENT = "forward", "forward + gradient"
BFLOAT16 = "bfloat16"


class Program(NamedTuple):
    """One program.

    Attributes:
        part: "parity", "times" or "training".
        name: unique name.
        run: function of one tree of arrays.
        shapes: the tree, of `jax.ShapeDtypeStruct`.
        facts: JSON-able fields of its record.
        plain: what `run` must return, by the plain scan; None: nothing to compare with.
    """
    part: str
    name: str
    run: Any
    shapes: Any
    facts: dict
    plain: Any = None


class Sizes(NamedTuple):
    """Sizes of a check."""
    parity: tuple      # (batch, length, channels, groups, state, dtype)
    cross_parity: tuple   # (batch, side, channels, rank)
    tails: tuple       # (name, (batch, length, channels), number of last sequences compared)
    scans: tuple       # (batch, length, channels, state)
    maps: tuple        # (batch, side, channels, rank)
    image: tuple       # (batch, side, fields of the model)
    training: dict     # of the adversarial training


FULL = Sizes(
    parity=((4, 197, 96, 1, 1, "float32"), (5, 67, 130, 1, 1, BFLOAT16), (1, 700, 96, 1, 1, "float32"), (3, 50, 260, 2, 2, "float16"),
            (2, 100, 64, 4, 16, "float32"), (9, 33, 100, 1, 5, BFLOAT16), (300, 14, 32, 1, 1, "float32"), (1, 2300, 40, 1, 1, "float32")),
    cross_parity=(8, 14, 160, 4),
    tails=(("2^31 numbers", (1100, 16384, 128), 4), ("300,000 sequences", (300_000, 2, 32), 64)),
    scans=((128, 3136, 96, 1), (128, 784, 192, 1), (512, 196, 384, 1), (1024, 49, 768, 1), (8, 2048, 1536, 16)),
    maps=((128, 56, 96, 6), (128, 28, 192, 12), (128, 14, 384, 24), (128, 7, 768, 48)),
    image=(128, 224, {}),
    training={"data": "cifar10", "side": 32, "channels": 3, "eps": 8 / 255, "dims": (48, 96, 192), "depths": (2, 2, 2), "batch": 256, "crop": 4})
DRY = Sizes(
    parity=((2, 9, 32, 1, 1, "float32"), (1, 5, 6, 2, 3, BFLOAT16)), cross_parity=(2, 3, 8, 2), tails=(("tail", (4, 3, 8), 2),), scans=((2, 8, 8, 1),),
    maps=((2, 3, 8, 2),), image=(2, 32, {"dims": (8,), "depths": (1,), "num_classes": 10}),
    training={"data": "digits", "side": 8, "channels": 1, "eps": 0.1, "dims": (8,), "depths": (1,), "batch": 16, "crop": 0})


def shape(*size, dtype="float32"):
    return jax.ShapeDtypeStruct(size, jnp.dtype(dtype))


def scan_shapes(batch, length, channels, groups=1, state=1, dtype="float32"):
    """Arguments of `selective_scan`."""
    stream, maps, each = shape(batch, length, channels, dtype=dtype), shape(batch, length, groups, state), shape(channels)
    return dict(u=stream, delta=stream, A=shape(channels, state), B=maps, C=maps, D=each, delta_bias=each)


def cross_shapes(batch, side, channels, rank, dtype="float32"):
    """Arguments of `cross_selective_scan`."""
    plane, each = functools.partial(shape, batch, side, side, dtype=dtype), shape(4, channels)
    return dict(u=plane(channels), steps=plane(4, rank), dt_weight=shape(4, channels, rank, dtype=dtype), A=shape(4, channels, 1), B=plane(4, 1),
                C=plane(4, 1), D=each, delta_bias=each)


def with_gradients(scan):
    """(y, cotangents of all arguments) of a scan of a tree that holds the cotangent "dy" too."""
    def run(x):
        y, pullback = jax.vjp(scan, {name: value for name, value in x.items() if name != "dy"})
        return y, pullback(x["dy"].astype(y.dtype))[0]
    return run


def programs(platform, sizes, plans=False):
    """Every `Program` of a platform: "cuda", "tpu", or "cpu" with the scan in plain XLA; plans: only the geometries of a map's scan on a GPU."""
    if plans:
        return list(_map_plans(sizes))
    kernel = {"implementation": BACKENDS[platform]}
    return [*_parity(kernel, sizes), *_scan_times(kernel, sizes), *_cross_times(kernel, sizes), *_model_times(sizes), *_training(sizes)]


def _scan(**options):
    return lambda x: pallas_kernels.selective_scan(**x, **options)


def _cross(**options):
    return lambda x: pallas_kernels.cross_selective_scan(**x, **options)


def _parity(kernel, sizes):
    plain = {"implementation": "reference"}
    for i, (batch, length, channels, groups, state, dtype) in enumerate(sizes.parity):
        shapes, reverse = scan_shapes(batch, length, channels, groups, state, dtype), bool(i % 2)
        name = f"selective_scan {batch} x {length} x {channels}, {groups} groups, N = {state}, {dtype}{', reverse' if reverse else ''}"
        yield Program("parity", name, with_gradients(_scan(reverse=reverse, out_dtype=dtype, **kernel)), shapes | {"dy": shapes["u"]},
                      {"dtype": dtype}, with_gradients(_scan(reverse=reverse, **plain)))
    shapes = cross_shapes(*sizes.cross_parity)
    yield Program("parity", f"cross_selective_scan {sizes.cross_parity}", with_gradients(_cross(**kernel)), shapes | {"dy": shapes["u"]},
                  {"dtype": "float32"}, with_gradients(_cross(**plain)))
    for name, size, count in sizes.tails:
        def difference(x, count=count):    # the last sequences of a large batch, less the same sequences alone: zero
            scan = _scan(out_dtype=BFLOAT16, **kernel)
            alone = {key: value[-count:] if key in ("u", "delta", "B", "C") else value for key, value in x.items()}
            return (scan(x)[-count:] - scan(alone)).astype(jnp.float32)
        yield Program("parity", f"the last {count} of {name}", difference, scan_shapes(*size, dtype=BFLOAT16), {"dtype": BFLOAT16})


def _both_passes(name, scan, shapes, dy, facts, moved):
    """The forward pass and the gradient; moved: least bytes of each."""
    yield Program("times", name, scan, shapes, facts | {"pass": FORWARD, "bytes": moved[0]})
    yield Program("times", f"{name}, gradient", with_gradients(scan), shapes | {"dy": dy}, facts | {"pass": GRADIENT, "bytes": moved[1]})


def _scan_times(kernel, sizes):
    for *size, state in sizes.scans:
        for dtype in ("float32", BFLOAT16):
            shapes, moved = scan_shapes(*size, state=state, dtype=dtype), jnp.dtype(dtype).itemsize * math.prod(size)
            scans = {"ours": _scan(out_dtype=dtype, **kernel)} | ({"lax.associative_scan": rivals.associative} if state == 1 else {})
            for by, scan in scans.items():
                facts = {"what": "selective_scan", "by": by, "size": size, "state": state, "dtype": dtype}
                yield from _both_passes(f"selective_scan {size}, N = {state}, {dtype}, {by}", scan, shapes, shapes["u"], facts, (3 * moved, 8 * moved))
            if dtype == BFLOAT16 and state > 1 and (rival := rivals.linear_attention()):
                stream, maps = shapes["u"], shape(*size[:2], state, dtype=dtype)
                others = dict(q=maps, k=maps, v=stream, dt=stream, a=shape(size[2], state), d=shape(size[2]), dt_bias=shape(size[2]))
                facts = {"what": "selective_scan", "by": "jax-linear-attention", "size": size, "state": state, "dtype": dtype}
                yield from _both_passes(f"selective_scan {size}, jax-linear-attention", rival, others, stream, facts, (3 * moved, 8 * moved))


def _cross_times(kernel, sizes):
    for batch, side, channels, rank in sizes.maps:
        shapes, size = cross_shapes(batch, side, channels, rank, BFLOAT16), (batch, side, side, channels)
        facts = {"what": "cross_selective_scan", "by": "ours", "size": size, "state": 1, "dtype": BFLOAT16}
        yield from _both_passes(f"cross_selective_scan {side} x {side} x {channels}", _cross(**kernel), shapes, shape(*size), facts, _moved(size, rank))


def _map_plans(sizes):
    for batch in map_plans.BATCHES:
        for _, side, channels, rank in sizes.maps:
            shapes, size = cross_shapes(batch, side, channels, rank, BFLOAT16), (batch, side, side, channels)
            for name, scan in map_plans.scans(batch, side, channels):
                facts = {"what": "cross_selective_scan", "by": name, "size": size, "state": 1, "dtype": BFLOAT16}
                moved = _moved(size, rank)
                yield from _both_passes(f"{size}: {name}", map_plans.of_tree(scan), shapes, shape(*size), facts, moved)


def _moved(size, rank):
    """Least bytes of the forward pass and of the gradient of a map's scan: u in bfloat16; y and its cotangent in float32."""
    numbers, others = math.prod(size), math.prod(size[:-1]) * 2 * 4 * (rank + 2)
    return 6 * numbers + others, 16 * numbers + 3 * others


def _model_times(sizes):
    batch, side, fields = sizes.image
    model = models.Classifier(create_model("vmamba_tiny", dtype=BFLOAT16, **fields))
    weights = jax.eval_shape(lambda: model.init(jax.random.key(0), (side, side, 3)))
    loss = lambda images, weights: -jax.nn.log_softmax(model(weights, images).astype(jnp.float32))[:, 0].sum()
    shapes = {"weights": weights, "image": shape(batch, side, side, 3)}
    facts = {"what": "model", "by": "vmamba_tiny", "images": batch, "size": side, "dtype": BFLOAT16}
    yield Program("times", "vmamba_tiny", lambda x: model(x["weights"], x["image"]), shapes, facts | {"pass": FORWARD})
    yield Program("times", "vmamba_tiny, gradient", lambda x: jax.value_and_grad(loss)(x["image"], x["weights"]), shapes, facts | {"pass": GRADIENT})


def _training(sizes):
    """A step of PGD-10 adversarial training and a PGD-20 evaluation, over the leaves of the state; facts["start"] is the first state."""
    of = sizes.training
    model = create_model("vmamba_tiny", patch_size=2, drop_path_rate=0.0, num_classes=10, in_channels=of["channels"], dims=of["dims"],
                         depths=of["depths"])
    model, optimizer = models.Classifier(model, 0.5, 0.25), training.optimizer.create("adamw", learning_rate=1e-3, weight_decay=0.05, clip_norm=1.0)
    attack = lambda steps: attacks.pgd(of["eps"], steps=steps, step_size=2.5 * of["eps"] / steps)
    augment = data.augment.create("crop_flip", pad=of["crop"]) if of["crop"] else None
    step = training.objectives.pgd_at(model, optimizer, attack=attack(10), augment=augment)
    step = parallel.map_step(step, parallel.data_mesh(jax.devices()[:1]), donate=False)
    leaves, tree = jax.tree.flatten(training.create_state(model, optimizer, jax.random.key(0), (of["side"], of["side"], of["channels"])))

    def train(x):
        state, metrics = step(jax.tree.unflatten(tree, x["leaves"]), {name: x[name] for name in ("image", "label")}, jax.random.key(x["seed"]))
        return jax.tree.leaves(state), metrics["loss"]

    def evaluate(x):
        logits_fn = jax.tree_util.Partial(model, jax.tree.unflatten(tree, x["leaves"]).variables())
        attacked = attack(20)(logits_fn, x["image"], x["label"], jax.random.key(x["seed"]))
        return [(logits_fn(images).argmax(-1) == x["label"]).mean() for images in (x["image"], attacked)]

    shapes = {"leaves": [shape(*x.shape, dtype=x.dtype) for x in leaves], "image": shape(of["batch"], of["side"], of["side"], of["channels"]),
              "label": shape(of["batch"], dtype="int32"), "seed": shape(dtype="int32")}
    facts = {name: of[name] for name in ("data", "eps", "batch")}
    yield Program("training", "train", train, shapes, facts | {"start": leaves})
    yield Program("training", "evaluate", evaluate, shapes, facts)
